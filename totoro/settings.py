"""Totoro's settings, and the only reader of the environment.

DJANGO_CONFIGURATION names the class to use; the default is Production. Every variable is checked when
the process starts: an invalid one stops it with a message that names the variable and the value.
"""

import os
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, NoReturn

import structlog
from configurations import Configuration
from configurations.utils import uppercase_attributes
from configurations.values import Value
from corsheaders.defaults import default_headers
from django.core.management.utils import get_random_secret_key
from django.http import HttpRequest

from totoro.env import connections, parsers
from totoro.observability.logging import configure_logging
from totoro.observability.sentry import start_sentry

log = structlog.get_logger(__name__)

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"
SQLITE_FILE = BASE_DIR / "var" / "totoro.sqlite3"
# Read elsewhere: by Django and prometheus_client.
OTHER_VARIABLES = {
    "DJANGO_CONFIGURATION",
    "DJANGO_SETTINGS_MODULE",
    "PROMETHEUS_MULTIPROC_DIR",
}


class Variable(Value):  # type: ignore[misc]  # django-configurations has no types
    """A setting from the environment variable of the same name, or `name`.

    `default` is a text like that of a variable, or None for a setting that is None by default. A secret
    may be in a file, which the variable whose name ends with _FILE names.
    """

    # Parsed only in the configuration that is used.
    late_binding = True

    def __init__(
        self,
        default: str | None,
        parse: Callable[[str], object],
        *,
        name: str | None = None,
        secret: bool = False,
    ) -> None:
        super().__init__(default, environ_name=name, environ_prefix=None)
        self.parse, self.secret = parse, secret

    def __set_name__(self, owner: type, name: str) -> None:
        self.variable: str = self.full_environ_name(name)
        self.file_variable = f"{self.variable}_FILE"

    def setup(self, name: str) -> object:
        self.value = self.read(os.environ if self.environ else {})
        return self.value

    def read(self, environment: Mapping[str, str]) -> object:
        path = environment.get(self.file_variable) if self.secret else None
        if not path:
            text = environment.get(self.variable, self.default)
            return None if text is None else self.to_python(text)
        if environment.get(self.variable):
            stop(f"{self.variable} and {self.file_variable} are both set: remove one of them")
        try:
            return self.parse(parsers.text_of_file(BASE_DIR / path))
        except ValueError as error:
            stop(f"{self.file_variable} = {path!r}: {error}")

    def to_python(self, value: str) -> object:
        try:
            return self.parse(value.strip())
        except ValueError as error:
            # A text with an @ may be a URL with a password.
            hidden = value and (self.secret or "@" in value)
            shown = "(not shown)" if hidden else repr(value)
            stop(f"{self.variable} = {shown}: {error}")


# For the type checker: code that reads a setting gets its value, not a Variable.
variable: Any = Variable


def variables(configuration: type[Configuration]) -> list[Variable]:
    attributes = uppercase_attributes(configuration).values()
    return [attribute for attribute in attributes if isinstance(attribute, Variable)]


def stop(why: str) -> NoReturn:
    """Exit with one line. Some of Django's commands would ignore ImproperlyConfigured."""
    sys.exit(f"totoro: {why}")


def warn_of_misspelt_variables() -> None:
    # Base: the configuration in use has values in place of its variables.
    known = {each.variable for each in variables(Base)} | OTHER_VARIABLES
    known |= {each.file_variable for each in variables(Base) if each.secret}
    for name in os.environ.keys() - known:
        for meant in get_close_matches(name, known, n=1, cutoff=0.885):
            log.warning("environment_variable_unknown", variable=name, meant=meant)


def shows_toolbar(request: HttpRequest) -> bool:
    """Show the debug toolbar on pages in the developer's browser, never in the API."""
    wants_page = "text/html" in request.headers.get("Accept", "")
    is_toolbars_own = request.path.startswith("/__debug__/")
    is_local = request.META.get("REMOTE_ADDR") in Dev.INTERNAL_IPS
    return is_local and (wants_page or is_toolbars_own)


class Base(Configuration):  # type: ignore[misc]  # django-configurations has no types
    """What Dev, Test and Production have in common."""

    # Errors look the same everywhere: Django's HTML debug pages stay off in Dev too.
    DEBUG = False
    SECRET_KEY = variable("", parsers.secret_key, name="DJANGO_SECRET_KEY", secret=True)
    ALLOWED_HOSTS = variable("127.0.0.1,localhost,[::1]", parsers.hosts)

    GHIBLI_API_BASE_URL = variable("https://ghibliapi.vercel.app/", connections.upstream_url)
    CACHE_TTL = variable("60", parsers.integer(1, 86_400))
    # Default: 10, or a sixth of a short CACHE_TTL.
    REFRESH_AHEAD = variable(None, parsers.integer(0, 86_400))
    STALE_IF_ERROR = variable("86400", parsers.integer(0, 3_153_600_000))
    SNAPSHOT_HISTORY = variable("100", parsers.integer(1, 1_000_000))
    THROTTLE_RATE = variable("600/min", parsers.rate)
    TRUSTED_PROXIES = variable("0", parsers.integer(0, 10))
    REDIS_URL = variable("", connections.redis_url, secret=True)
    DATABASE_URL = variable("", connections.database_url, secret=True)
    ORIGINS = variable("*", parsers.origins, name="CORS_ALLOWED_ORIGINS")
    SENTRY_DSN = variable("", connections.sentry_dsn, secret=True)
    SENTRY_ENVIRONMENT = variable("production", str)
    OTEL_EXPORTER_OTLP_ENDPOINT = variable("", connections.otlp_endpoint)
    LOG_LEVEL = variable("INFO", parsers.choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
    ACCESS_LOG = variable("off", parsers.boolean)
    ACCESS_LOG_ADDRESSES = variable("off", parsers.boolean)
    RESPONSE_CACHE = variable("on", parsers.boolean)
    WEB_CONCURRENCY = variable("1", parsers.integer(1, 64))
    PORT = variable("8000", parsers.integer(1, 65_535))
    # Per process, created when needed, 0.15 MB each: for requests that are not hits. All but 32 may wait
    # for a refresh, enough for 1,000 clients in eight processes.
    REQUEST_THREADS = 160

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
        "totoro.middleware.RequestMiddleware",
        "totoro.middleware.OriginMiddleware",
        "totoro.static_files.StaticFilesMiddleware",
        "totoro.middleware.AddressMiddleware",
    ]
    ROOT_URLCONF = "totoro.urls"
    WSGI_APPLICATION = "totoro.wsgi.application"
    TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    TIME_ZONE = "UTC"
    USE_I18N = False

    # Absolute: Django would prepend the prefix of the first request to a relative one, for good.
    STATIC_URL = "/static/"
    STATIC_ROOT = BASE_DIR / "staticfiles"
    STORAGES = {"staticfiles": {"BACKEND": "totoro.static_files.HashedStaticFilesStorage"}}

    REST_FRAMEWORK = {
        # The data is public and read-only: no login, no sessions, no cookies.
        "DEFAULT_AUTHENTICATION_CLASSES": [],
        "DEFAULT_PERMISSION_CLASSES": [],
        "UNAUTHENTICATED_USER": None,
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
        "DEFAULT_CONTENT_NEGOTIATION_CLASS": "movies.http.negotiation.QualityNegotiation",
        "DEFAULT_METADATA_CLASS": "movies.http.metadata.AllowedMethods",
        "EXCEPTION_HANDLER": "totoro.exception_handler.handle_drf_exception",
        # `format` is ignored like any unknown parameter; the documentation turns it on again.
        "URL_FORMAT_OVERRIDE": None,
    }
    SWAGGER_USE_COMPAT_RENDERERS = False
    SWAGGER_SETTINGS = {
        "USE_SESSION_AUTH": False,
        "SECURITY_DEFINITIONS": None,
        # None, not "", with which Swagger UI sends the document's URL to a validator on the internet.
        "VALIDATOR_URL": None,
        "SUPPORTED_SUBMIT_METHODS": ["get"],
        "DEFAULT_MODEL_RENDERING": "example",
        "SPEC_URL": ("swagger", {"format": "json"}),
    }
    REDOC_SETTINGS = {"SPEC_URL": ("swagger", {"format": "json"})}

    CORS_ALLOW_METHODS = ["GET", "HEAD", "OPTIONS"]
    CORS_ALLOW_HEADERS = [*default_headers, "if-none-match", "if-modified-since", "x-request-id"]
    CORS_EXPOSE_HEADERS = [
        "Age",
        "ETag",
        "Link",
        "Retry-After",
        "RateLimit",
        "RateLimit-Policy",
        "X-Request-ID",
        "Cache-Status",
    ]
    SILENCED_SYSTEM_CHECKS = [
        # RequestMiddleware adds the headers of Django's SecurityMiddleware. TLS ends in front of Totoro.
        # Redirecting http to https would hide from clients that their first request was not encrypted
        # (OWASP ASVS 4.1.2).
        "security.W001",
        # No forms and no cookies: no request to forge.
        "security.W003",
        # frame-ancestors 'none' in the Content-Security-Policy does the same.
        "security.W002",
    ]

    LOGGING_CONFIG = None
    LOGS_PRETTY = False

    @property
    def DATABASES(self) -> dict[str, Any]:
        if not self.DATABASE_URL:
            try:
                SQLITE_FILE.parent.mkdir(exist_ok=True)
            except OSError as error:
                stop(f"cannot create the folder {SQLITE_FILE.parent}: {error.strerror}")
        return {"default": connections.database(self.DATABASE_URL or f"sqlite:///{SQLITE_FILE}")}

    @classmethod
    def setup(cls) -> None:
        """Read the variables, and derive further settings from them."""
        super().setup()
        if cls.REFRESH_AHEAD is None:
            cls.REFRESH_AHEAD = min(10, cls.CACHE_TTL / 6)
        elif cls.REFRESH_AHEAD >= cls.CACHE_TTL:
            stop(f"REFRESH_AHEAD = {cls.REFRESH_AHEAD}: must be less than CACHE_TTL")
        if cls.REDIS_URL:
            cls.CACHES = connections.redis_caches(cls.REDIS_URL)
        cls.CORS_ALLOW_ALL_ORIGINS = cls.ORIGINS == ["*"]
        cls.CORS_ALLOWED_ORIGINS = [] if cls.CORS_ALLOW_ALL_ORIGINS else cls.ORIGINS
        if cls.OTEL_EXPORTER_OTLP_ENDPOINT:
            cls.MIDDLEWARE = ["totoro.observability.tracing.TracingMiddleware", *cls.MIDDLEWARE]

    @classmethod
    def post_setup(cls) -> None:
        super().post_setup()
        is_server = sys.argv[1:2] == ["serve"]  # also in workers that are not forked
        configure_logging(cls.LOG_LEVEL, pretty=cls.LOGS_PRETTY, is_server=is_server)
        start_sentry(cls.SENTRY_DSN, environment=cls.SENTRY_ENVIRONMENT, release=VERSION)
        if parent_process() is None:  # not once more in each worker
            warn_of_misspelt_variables()


class Production(Base):
    """The default. It starts only with a secret key."""


class Dev(Base):
    """`make run`: coloured logs, django-extensions, and the debug toolbar on HTML pages."""

    SECRET_KEY = variable(
        get_random_secret_key(), parsers.secret_key, name="DJANGO_SECRET_KEY", secret=True
    )
    # The bundled catalogue, which may be years old, is served when the Ghibli API is out of reach.
    STALE_IF_ERROR = variable("3153600000", parsers.integer(0, 3_153_600_000))
    SENTRY_ENVIRONMENT = variable("development", str)
    LOGS_PRETTY = True
    # Serve static files from their sources under their plain names, so that a change shows at once. This
    # folder does not exist, so there is no manifest of hashed names.
    STATIC_ROOT = BASE_DIR / "var" / "no-static-files"
    WHITENOISE_USE_FINDERS = True
    WHITENOISE_AUTOREFRESH = True
    WHITENOISE_MAX_AGE = 0

    INSTALLED_APPS = [*Base.INSTALLED_APPS, "django_extensions", "debug_toolbar"]
    # First, so that it does not affect requests without a toolbar.
    MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware", *Base.MIDDLEWARE]
    INTERNAL_IPS = ["127.0.0.1", "::1"]
    DEBUG_TOOLBAR_CONFIG = {"SHOW_TOOLBAR_CALLBACK": shows_toolbar}


class Test(Base):
    """For pytest: it reads no environment variables and reaches no other machine."""

    SECRET_KEY = get_random_secret_key()
    # A closed port, so that a test without a fake Ghibli API fails at once.
    GHIBLI_API_BASE_URL = "http://127.0.0.1:9/"
    ALLOWED_HOSTS = ["testserver", "127.0.0.1", "localhost"]
    THROTTLE_RATE = None
    # Do not list all static files for each new test client.
    WHITENOISE_AUTOREFRESH = True

    @property
    def DATABASES(self) -> dict[str, Any]:
        """Both engines; tests/conftest.py sets the port of PostgreSQL."""
        return {
            "default": connections.database("sqlite://:memory:"),
            "postgres": connections.database("postgresql://postgres@127.0.0.1:9/totoro"),
        }

    @classmethod
    def pre_setup(cls) -> None:
        super().pre_setup()
        for each in variables(cls):
            each.environ = False


CONFIGURATIONS = ("Dev", "Test", "Production")
chosen = os.environ["DJANGO_CONFIGURATION"]
if chosen not in CONFIGURATIONS:
    stop(f"DJANGO_CONFIGURATION = {chosen!r}: must be one of {', '.join(CONFIGURATIONS)}")
if chosen == "Dev" and not find_spec("debug_toolbar"):
    stop(
        "DJANGO_CONFIGURATION = 'Dev': needs the development packages, which are not installed here;"
        " use Production"
    )
if chosen == "Test" and not (BASE_DIR / "tests").exists():
    stop(
        "DJANGO_CONFIGURATION = 'Test': needs the tests, which are not installed here; use Production"
    )
