"""What docker-compose.yml grants its services, and what the overrides change."""

from typing import Any

import pytest
import yaml

from tests.support.documents import read
from totoro.settings import VERSION


class ComposeLoader(yaml.SafeLoader):
    """YAML with Compose's own tags, of which only the values are read."""


def value_of(loader: ComposeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node)
    return None


ComposeLoader.add_multi_constructor("!", value_of)


def compose(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(read(name), ComposeLoader)  # noqa: S506 (a safe loader)
    return loaded


COMPOSE = compose("docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

each_service = pytest.mark.parametrize("name", SERVICES)


def test_one_command_starts_everything_but_the_demo() -> None:
    started = {name for name, service in SERVICES.items() if "profiles" not in service}

    assert {"nginx", "web", "migrate", "redis", "postgres"} <= started
    assert SERVICES["fake-ghibli"]["profiles"] == ["demo"]


@each_service
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", ["nginx", "redis", "postgres", "grafana", "prometheus"])
def test_a_public_image_does_not_start_as_root(name: str) -> None:
    assert SERVICES[name]["user"] == ("nobody" if name == "prometheus" else name)


@each_service
def test_a_service_has_limits(name: str) -> None:
    service = SERVICES[name]

    assert service["mem_limit"].endswith("m")
    assert service["cpu_quota"] >= 50_000
    assert service["pids_limit"] >= 32
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@each_service
def test_a_service_is_started_again_and_its_health_is_checked(name: str) -> None:
    service = SERVICES[name]
    runs_once = name == "migrate"

    assert service["restart"] == ("no" if runs_once else "unless-stopped")
    if name != "web":  # the image has a check
        assert service["healthcheck"].keys() >= ({"disable"} if runs_once else {"test", "interval"})


def test_only_nginx_is_published() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published == {"nginx": ["${PORT:-8000}:8080"]}


@each_service
def test_a_service_can_be_scaled(name: str) -> None:
    assert "container_name" not in SERVICES[name]


def test_web_waits_for_the_migrations_but_not_for_the_cache() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    migrated = {"migrate": {"condition": "service_completed_successfully"}}
    assert SERVICES["web"]["depends_on"] == migrated
    assert SERVICES["nginx"]["depends_on"] == {"web": {"condition": "service_healthy"}}


def test_nginx_reaches_web_only_and_the_data_is_not_reached_from_outside() -> None:
    members = {
        network: {name for name, service in SERVICES.items() if network in service["networks"]}
        for network in ("frontend", "backend")
    }

    assert COMPOSE["networks"]["backend"] == {"internal": True}
    assert members["frontend"] == {"nginx", "web"}
    assert {"redis", "postgres"} <= members["backend"]


def test_secrets_are_files() -> None:
    names = {"django_secret_key", "database_url", "postgres_password"}

    assert COMPOSE["secrets"] == {name: {"file": f"secrets/{name}"} for name in names}
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name or "SECRET" in name or "DATABASE" in name:
                assert str(value).startswith("/run/secrets/")
                assert value.removeprefix("/run/secrets/") in service["secrets"]


def test_web_trusts_nginx_alone() -> None:
    assert SERVICES["web"]["environment"]["TRUSTED_PROXIES"] == 1


def test_a_container_may_run_longer_than_its_workers_finish_their_requests() -> None:
    assert SERVICES["web"]["stop_grace_period"] == "35s"


def test_the_image_is_built_with_its_version_as_tag_and_label() -> None:
    build = SERVICES["web"]["build"]

    assert (
        SERVICES["web"]["image"] == SERVICES["migrate"]["image"] == "${TOTORO_IMAGE:-totoro}:latest"
    )
    assert build["tags"] == [f"${{TOTORO_IMAGE:-totoro}}:{VERSION}"]
    assert build["args"]["VERSION"] == VERSION


def test_the_override_for_managed_services_takes_their_urls() -> None:
    services = compose("docker-compose.managed.yml")["services"]

    assert services["redis"] == services["postgres"] == {"profiles": ["unused"]}
    for name in ("web", "migrate"):
        urls = services[name]["environment"]
        assert urls["DATABASE_URL_FILE"] is None  # removed
        assert urls["REDIS_URL"].startswith("${REDIS_URL:?")
        assert urls["DATABASE_URL"].startswith("${DATABASE_URL:?")
    assert services["migrate"]["networks"] == ["frontend"]


def test_the_override_for_monitoring_publishes_to_this_machine_only() -> None:
    services = compose("docker-compose.monitoring.yml")["services"]

    assert {name for name in SERVICES if SERVICES[name].get("profiles") == ["monitoring"]} == {
        "grafana",
        "prometheus",
    }
    assert services == {
        "grafana": {"ports": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"]},
        "prometheus": {"ports": ["127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"]},
    }


def test_nobody_can_log_in_to_grafana() -> None:
    environment = SERVICES["grafana"]["environment"]

    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert "GF_AUTH_ANONYMOUS_ORG_ROLE" not in environment  # the default is a viewer


def test_the_override_for_development_mounts_the_code() -> None:
    services = compose("docker-compose.dev.yml")["services"]
    code = ["manage.py", "movies", "services", "totoro"]

    assert services["web"]["build"] == {"target": "dev"}
    assert services["web"]["volumes"] == [f"./{name}:/app/{name}:ro" for name in code]
    assert services["web"]["environment"]["DJANGO_CONFIGURATION"] == "Dev"
    assert "runserver" in services["web"]["command"]
