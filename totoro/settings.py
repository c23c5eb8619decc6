"""Totoro's settings, and the only reader of the environment.

`DJANGO_CONFIGURATION` names the class (Production unless told otherwise). Every variable is checked
when the process starts: a bad value stops it with a message that names the variable and the value.
"""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, NoReturn

import dj_database_url
import structlog
from configurations import Configuration
from configurations.utils import uppercase_attributes
from configurations.values import Value
from corsheaders.defaults import default_headers
from django.core.management.utils import get_random_secret_key

from totoro import env
from totoro.observability.logging import configure_logging
from totoro.observability.sentry import start_sentry

log = structlog.get_logger(__name__)

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"
SQLITE_FILE = BASE_DIR / "var" / "totoro.sqlite3"
# Read elsewhere: by docker-compose.yml, by Django, by prometheus_client.
OTHER_NAMES = {
    "DJANGO_CONFIGURATION",
    "DJANGO_SETTINGS_MODULE",
    "POSTGRES_PASSWORD",
    "PROMETHEUS_MULTIPROC_DIR",
}
# The default of a variable that must be set: unset is as wrong as empty.
REQUIRED = object()


class Variable(Value):  # type: ignore[misc]  # django-configurations has no types
    """One environment variable, parsed when its configuration is chosen and not before."""

    late_binding = True

    def __init__(
        self, default: object, to: Callable[[str], object], *, name: str | None, secret: bool
    ) -> None:
        super().__init__(default, environ_name=name, environ_prefix=None)
        self.parse, self.secret = to, secret

    def __set_name__(self, owner: type, name: str) -> None:
        self.variable: str = self.full_environ_name(name)

    def setup(self, name: str) -> Any:
        value = super().setup(name)
        return self.to_python("") if value is REQUIRED else value

    def to_python(self, value: str) -> object:
        try:
            return self.parse(value.strip())
        except ValueError as error:
            # What holds an @ may be a URL with a password.
            hidden = value and (self.secret or "@" in value)
            shown = "(not shown)" if hidden else repr(value)
            stop(f"{self.variable} = {shown}: {error}")


def stop(why: str) -> NoReturn:
    """End the process with one line.

    Not ImproperlyConfigured, as Django goes on without settings when it meets that one.
    """
    sys.exit(f"totoro: {why}")


def variable(
    default: object, to: Callable[[str], object], *, name: str | None = None, secret: bool = False
) -> Any:
    """A setting from the environment variable of the same name (or `name`), read through `to`."""
    return Variable(default, to, name=name, secret=secret)


def warn_of_misspelt_names() -> None:
    values = uppercase_attributes(Base).values()  # of the one that is set up, only values are left
    known = {value.variable for value in values if isinstance(value, Variable)} | OTHER_NAMES
    for name, meant in env.misspelt(os.environ, known).items():
        log.warning("environment_variable_unknown", variable=name, meant=meant)


def database(url: str) -> dict[str, Any]:
    """Django's description of a database. It is a safety net: no answer may hang on it."""
    described: dict[str, Any] = {**dj_database_url.parse(url)}
    if described["ENGINE"].endswith("sqlite3"):
        limits = {"timeout": 0.25, "init_command": "PRAGMA journal_mode=WAL"}
    else:
        limits = {"connect_timeout": 1, "options": "-c statement_timeout=500"}
    described["OPTIONS"] = {**described.get("OPTIONS", {}), **limits}
    return described


def redis_cache(url: str, *, patience: float) -> dict[str, Any]:
    """`patience`: how long an answer may take (seconds)."""
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": url,
        "KEY_PREFIX": "totoro",
        "OPTIONS": {
            # django-redis' own default is pickle.
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
            # One command of a hung Redis costs a request at most the sum of the two.
            "CONNECTION_POOL_CLASS": "services.redis_connection.BoundedConnectionPool",
            "SOCKET_CONNECT_TIMEOUT": 0.1,
            "SOCKET_TIMEOUT": patience,
            # No greetings beyond AUTH: each would cost a slow Redis a round trip more.
            "CONNECTION_POOL_KWARGS": {
                "max_connections": 320,
                "protocol": 2,
                "driver_info": None,
            },
        },
    }


def redis_caches(url: str) -> dict[str, Any]:
    return {
        "default": redis_cache(url, patience=0.2),
        # In the way of requests, so less patient. The fragment, which means nothing to Redis, makes
        # django-redis keep another pool of connections, with these time-outs.
        "quotas": redis_cache(f"{url}#quotas", patience=0.1),
    }


class Base(Configuration):  # type: ignore[misc]  # django-configurations has no types
    """What Dev, Test and Production have in common."""

    # Errors look the same everywhere: Django's HTML debug pages stay off in Dev too.
    DEBUG = False
    SECRET_KEY = variable(REQUIRED, env.secret_key, name="DJANGO_SECRET_KEY", secret=True)
    ALLOWED_HOSTS = variable(["127.0.0.1", "localhost", "[::1]"], env.hosts)

    GHIBLI_API_BASE_URL = variable("https://ghibliapi.vercel.app/", env.upstream_url)
    CACHE_TTL = variable(60, env.integer(1, 86_400))
    # None: 10, or less of a short CACHE_TTL.
    REFRESH_AHEAD = variable(None, env.integer(0, 86_400))
    STALE_IF_ERROR = variable(86_400, env.integer(0, 3_153_600_000))
    SNAPSHOT_HISTORY = variable(100, env.integer(1, 1_000_000))
    # Requests and seconds, or None.
    THROTTLE_RATE = variable((600, 60), env.rate)
    TRUSTED_PROXIES = variable(0, env.integer(0, 10))
    REDIS_URL = variable("", env.redis_url, secret=True)
    DATABASE_URL = variable("", env.database_url, secret=True)
    ORIGINS = variable(["*"], env.origins, name="CORS_ALLOWED_ORIGINS")
    SENTRY_DSN = variable("", env.sentry_dsn, secret=True)
    SENTRY_ENVIRONMENT = variable("production", str)
    LOG_LEVEL = variable("INFO", env.choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
    ACCESS_LOG = variable(False, env.boolean)
    WEB_CONCURRENCY = variable(1, env.integer(1, 64))
    PORT = variable(8000, env.integer(1, 65_535))
    # Per process, so as many requests it works on at once. A thread is made when it is needed, and
    # needed for long only by requests that wait for a refresh: after an idle minute, of 1,000 clients
    # who come to eight processes at once. At most half of them may wait, so the others are still served.
    REQUEST_THREADS = 256

    INSTALLED_APPS = [
        "whitenoise.runserver_nostatic",
        "django.contrib.staticfiles",
        "corsheaders",
        "rest_framework",
        # Before drf_yasg, one of whose templates it extends.
        "totoro",
        "drf_yasg",
        "services",
        "movies",
    ]
    MIDDLEWARE = [
        "totoro.middleware.ExactMethodMiddleware",
        "totoro.middleware.RequestIDMiddleware",
        "totoro.middleware.TimelyMiddleware",
        "django.middleware.security.SecurityMiddleware",
        "totoro.middleware.ContentSecurityPolicyMiddleware",
        "totoro.middleware.AnyOriginMiddleware",
        "corsheaders.middleware.CorsMiddleware",
        "totoro.middleware.URLLengthMiddleware",
        "totoro.static_files.StaticFilesMiddleware",
        "totoro.middleware.HostMiddleware",
    ]
    ROOT_URLCONF = "totoro.urls"
    WSGI_APPLICATION = "totoro.wsgi.application"
    TEMPLATES = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
        }
    ]
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    USE_TZ = True
    TIME_ZONE = "UTC"
    USE_I18N = False

    # Absolute: to a relative one Django adds the prefix of the first request, for all that follow.
    STATIC_URL = "/static/"
    STATIC_ROOT = BASE_DIR / "staticfiles"
    STORAGES = {
        "staticfiles": {"BACKEND": "totoro.static_files.HashedStaticFilesStorage"},
    }

    REST_FRAMEWORK = {
        # Public, read-only data: nobody logs in, so no auth apps, no sessions, no cookies.
        "DEFAULT_AUTHENTICATION_CLASSES": [],
        "DEFAULT_PERMISSION_CLASSES": [],
        "UNAUTHENTICATED_USER": None,
        "DEFAULT_RENDERER_CLASSES": ["movies.http.renderers.PlainJSONRenderer"],
        "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
        "DEFAULT_CONTENT_NEGOTIATION_CLASS": "movies.http.negotiation.WeighedNegotiation",
        "DEFAULT_METADATA_CLASS": "movies.http.metadata.AllowedMethods",
        "EXCEPTION_HANDLER": "totoro.exception_handler.handle_drf_exception",
        # An unknown parameter is ignored, `format` included; the documentation turns it on again.
        "URL_FORMAT_OVERRIDE": None,
    }
    SWAGGER_USE_COMPAT_RENDERERS = False
    SWAGGER_SETTINGS = {
        "DEFAULT_INFO": "totoro.views.documentation.INFO",
        "USE_SESSION_AUTH": False,
        "SECURITY_DEFINITIONS": None,
        # None, not "": else Swagger UI sends the document's address to a validator on the internet.
        "VALIDATOR_URL": None,
        "SUPPORTED_SUBMIT_METHODS": ["get"],
        "DEFAULT_MODEL_RENDERING": "example",
        "SPEC_URL": ("swagger", {"format": "json"}),
    }
    REDOC_SETTINGS = {"SPEC_URL": ("swagger", {"format": "json"})}

    CORS_ALLOW_METHODS = ["GET", "HEAD", "OPTIONS"]
    CORS_ALLOW_HEADERS = [*default_headers, "if-none-match", "if-modified-since", "x-request-id"]
    CORS_EXPOSE_HEADERS = [
        "ETag",
        "Link",
        "Retry-After",
        "RateLimit",
        "RateLimit-Policy",
        "X-Request-ID",
        "Cache-Status",
    ]
    SECURE_REFERRER_POLICY = "no-referrer"
    X_FRAME_OPTIONS = "DENY"
    SILENCED_SYSTEM_CHECKS = [
        # TLS ends in front of Totoro. An API that redirects http to https hides that a client's
        # first request, with all its headers, went out unencrypted (OWASP ASVS 4.1.2).
        "security.W004",
        "security.W008",
        # No forms, no cookies, nothing that changes state: nothing to forge.
        "security.W003",
        # frame-ancestors 'none' in the Content-Security-Policy says the same.
        "security.W002",
    ]

    LOGGING_CONFIG = None
    LOGS_PRETTY = False

    @property
    def CORS_ALLOW_ALL_ORIGINS(self) -> bool:
        return "*" in self.ORIGINS

    @property
    def CORS_ALLOWED_ORIGINS(self) -> list[str]:
        return [origin for origin in self.ORIGINS if origin != "*"]

    @property
    def CACHES(self) -> dict[str, Any]:
        if not self.REDIS_URL:
            return {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
        return redis_caches(self.REDIS_URL)

    @property
    def DATABASES(self) -> dict[str, Any]:
        if not self.DATABASE_URL:
            SQLITE_FILE.parent.mkdir(exist_ok=True)
        return {"default": database(self.DATABASE_URL or f"sqlite:///{SQLITE_FILE}")}

    @classmethod
    def setup(cls) -> None:
        super().setup()
        if cls.REFRESH_AHEAD is None:
            cls.REFRESH_AHEAD = min(10, cls.CACHE_TTL / 6)
        elif cls.REFRESH_AHEAD >= cls.CACHE_TTL:
            stop(f"REFRESH_AHEAD = {cls.REFRESH_AHEAD}: must be less than CACHE_TTL")

    @classmethod
    def post_setup(cls) -> None:
        super().post_setup()
        configure_logging(cls.LOG_LEVEL, pretty=cls.LOGS_PRETTY)
        start_sentry(cls.SENTRY_DSN, environment=cls.SENTRY_ENVIRONMENT, release=VERSION)
        if parent_process() is None:  # the server says it for its workers
            warn_of_misspelt_names()


class Production(Base):
    """The default: safe, and starts only with a secret key of its own."""


class Dev(Base):
    """`make run`: pretty logs, django-extensions, and the debug toolbar on HTML pages."""

    SECRET_KEY = variable(
        get_random_secret_key(), env.secret_key, name="DJANGO_SECRET_KEY", secret=True
    )
    # The bundled catalogue is as old as its file; a developer without the Ghibli API wants it still.
    STALE_IF_ERROR = variable(3_153_600_000, env.integer(0, 3_153_600_000))
    SENTRY_ENVIRONMENT = variable("development", str)
    LOGS_PRETTY = True
    # The toolbar's own files too, which `make static` leaves out.
    WHITENOISE_USE_FINDERS = True

    INSTALLED_APPS = [*Base.INSTALLED_APPS, "django_extensions", "debug_toolbar"]
    # First of all, so that a request that it does not show passes it by untouched.
    MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware", *Base.MIDDLEWARE]
    INTERNAL_IPS = ["127.0.0.1", "::1"]
    DEBUG_TOOLBAR_CONFIG = {"SHOW_TOOLBAR_CALLBACK": "totoro.observability.toolbar.is_shown"}


class Test(Base):
    """What pytest runs: nothing in it reaches beyond the machine, nor listens to the shell."""

    SECRET_KEY = get_random_secret_key()
    # A closed port: a test that forgets to start its own upstream fails at once.
    GHIBLI_API_BASE_URL = "http://127.0.0.1:9/"
    ALLOWED_HOSTS = ["testserver", "127.0.0.1", "localhost"]
    # Tests ask more often than anybody may.
    THROTTLE_RATE = None

    @property
    def DATABASES(self) -> dict[str, Any]:
        """Both engines at once; where PostgreSQL listens is known when the tests start it."""
        return {
            "default": database("sqlite://:memory:"),
            "postgres": database("postgresql://postgres@127.0.0.1:9/totoro"),
        }

    @classmethod
    def pre_setup(cls) -> None:
        super().pre_setup()
        for value in uppercase_attributes(cls).values():
            if isinstance(value, Variable):
                value.environ = False


CONFIGURATIONS = ("Dev", "Test", "Production")
if os.environ["DJANGO_CONFIGURATION"] not in CONFIGURATIONS:
    chosen = os.environ["DJANGO_CONFIGURATION"]
    stop(f"DJANGO_CONFIGURATION = {chosen!r}: must be one of {', '.join(CONFIGURATIONS)}")
if os.environ["DJANGO_CONFIGURATION"] == "Dev" and not (
    find_spec("django_extensions") and find_spec("debug_toolbar")
):
    stop(
        "DJANGO_CONFIGURATION = 'Dev': needs the development packages, which are not installed here;"
        " use Production"
    )
