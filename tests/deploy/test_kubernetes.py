"""The manifests in deploy/k8s/ are valid, and agree with each other and with the code."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from django.urls import resolve

from services.freshness.health import HEALTH_SECONDS
from tests.support.documents import README as PROJECT_README
from tests.support.documents import read
from tests.support.servers import ROOT
from totoro.observability.metrics_folder import IN_MEMORY
from totoro.serving.worker import STOP_TIMEOUT_SECONDS
from totoro.settings import BASE_DIR, SQLITE_FILE, VERSION, Production, variables

Manifest = dict[str, Any]

K8S = ROOT / "deploy" / "k8s"
README = read("deploy/k8s/README.md")
FILES = sorted(K8S.rglob("*.yaml"))
KUSTOMIZATIONS = {
    file.parent: yaml.safe_load(file.read_text()) for file in FILES if file.stem == "kustomization"
}
PATCHES = [
    folder / patch["path"]
    for folder, each in KUSTOMIZATIONS.items()
    for patch in each.get("patches", [])
]
RESOURCES = [file for file in FILES if file.stem != "kustomization" and file not in PATCHES]
OVERLAYS = sorted((K8S / "overlays").iterdir())
# README.md names the oldest one.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
BUILD = [["kubectl", "kustomize"], ["kustomize", "build"]]
BUILDERS = [command for command in BUILD if shutil.which(command[0])]

VARIABLES = {each.variable: each for each in variables(Production)}
SECRETS = "/run/secrets/totoro/"

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda folder: folder.name)


def name_of(value: object) -> str | None:
    return str(value.relative_to(K8S)) if isinstance(value, Path) else None


@cache
def parsed(file: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(file.read_text()))


def manifests(*files: Path) -> Iterator[Manifest]:
    return chain.from_iterable(map(parsed, files))


def named(kind: str, name: str) -> Manifest:
    [found] = [
        each
        for each in manifests(*RESOURCES)
        if (each["kind"], each["metadata"]["name"]) == (kind, name)
    ]
    return found


def of_kind(kind: str) -> list[Manifest]:
    return [each for each in manifests(*RESOURCES) if each["kind"] == kind]


def pods(*files: Path) -> list[Manifest]:
    """Return the pod templates: of the Deployments and the Job, and of the patches if given."""
    return [
        each["spec"]["template"]
        for each in manifests(*files)
        if each["kind"] in ("Deployment", "Job")
    ]


def containers(*files: Path) -> list[Manifest]:
    specs = [pod["spec"] for pod in pods(*files)]
    return [
        each for spec in specs for each in [*spec.get("initContainers", []), *spec["containers"]]
    ]


def whole_containers() -> list[Manifest]:
    """Return all containers but those to which a patch adds something."""
    return [each for each in containers(*RESOURCES, *PATCHES) if "image" in each]


def web() -> Manifest:
    template: Manifest = named("Deployment", "totoro")["spec"]["template"]
    return template


def web_container() -> Manifest:
    [container] = web()["spec"]["containers"]
    return dict(container)


def literals(folder: Path) -> dict[str, str]:
    """Return the ConfigMap of an overlay, or of the base."""
    [generator] = KUSTOMIZATIONS[folder]["configMapGenerator"]
    return dict(literal.split("=", 1) for literal in generator["literals"])


def selects(selector: dict[str, str], pod: Manifest) -> bool:
    return selector.items() <= dict(pod["metadata"]["labels"]).items()


# The files


def test_a_kustomization_names_every_file() -> None:
    for folder, kustomization in KUSTOMIZATIONS.items():
        resources = {folder / name for name in kustomization["resources"]}
        assert all(resource.exists() for resource in resources)
        beside = {file for file in folder.glob("*.yaml") if file.stem != "kustomization"}
        assert beside - {*resources, *PATCHES} == set()
    assert all(
        (K8S / "base")
        in [(folder / name).resolve() for name in KUSTOMIZATIONS[folder]["resources"]]
        for folder in OVERLAYS
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", RESOURCES, ids=name_of)
def test_a_manifest_is_valid(file: Path, version: str) -> None:
    for manifest in manifests(file):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_patch_changes_what_is_there() -> None:
    assert PATCHES
    for patch in manifests(*PATCHES):
        original = named(patch["kind"], patch["metadata"]["name"])
        names = {each["name"] for each in original["spec"]["template"]["spec"]["containers"]}
        assert {each["name"] for each in patch["spec"]["template"]["spec"]["containers"]} <= names


@every_overlay
def test_an_overlay_changes_the_configuration_of_the_base(overlay: Path) -> None:
    [base], [own] = (KUSTOMIZATIONS[each]["configMapGenerator"] for each in (K8S / "base", overlay))

    assert (own["name"], own["behavior"]) == (base["name"], "merge")
    assert web_container()["envFrom"] == [{"configMapRef": {"name": base["name"]}}]


@pytest.mark.skipif(not BUILDERS, reason="needs kubectl or kustomize")
@every_overlay
def test_an_overlay_builds(overlay: Path) -> None:
    output = subprocess.run([*BUILDERS[0], overlay], check=True, capture_output=True).stdout
    built = list(yaml.safe_load_all(output))
    for manifest in built:
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    names = {
        manifest["metadata"]["name"]
        for manifest in built
        if manifest["kind"] in ("ConfigMap", "Job")
    }

    [web] = [
        each
        for each in built
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", "totoro")
    ]
    [container] = web["spec"]["template"]["spec"]["containers"]
    config = container["envFrom"][0]["configMapRef"]["name"]
    assert re.fullmatch("totoro-[a-z0-9]{10}", config)
    assert names == {config} | ({f"migrate-{VERSION}"} if overlay.name == "prod" else set())
    assert container["image"].endswith(f"totoro:{VERSION}")
    assert {each["metadata"]["namespace"] for each in built} == {
        KUSTOMIZATIONS[overlay]["namespace"]
    }


@every_overlay
def test_an_overlay_sets_the_version_of_every_image(overlay: Path) -> None:
    images = {each["name"]: each["newTag"] for each in KUSTOMIZATIONS[overlay]["images"]}
    files = [file for file in [*RESOURCES, *PATCHES] if file.parent in (overlay, K8S / "base")]

    used = {each["image"] for each in containers(*files) if "image" in each}
    assert images == dict.fromkeys(used, VERSION)


# What refers to each other


@pytest.mark.parametrize("kind", ["Deployment", "PodDisruptionBudget"])
def test_a_selector_selects_the_pods(kind: str) -> None:
    for each in of_kind(kind):
        template = each["spec"].get("template", web())
        assert selects(each["spec"]["selector"]["matchLabels"], template)


def test_a_service_selects_one_deployment_and_a_port_of_it() -> None:
    for service in of_kind("Service"):
        [pod] = [pod for pod in pods(*RESOURCES) if selects(service["spec"]["selector"], pod)]
        ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_the_autoscaler_scales_the_deployment_which_names_no_number_of_replicas() -> None:
    [autoscaler] = of_kind("HorizontalPodAutoscaler")
    target = autoscaler["spec"]["scaleTargetRef"]

    assert "replicas" not in named(target["kind"], target["name"])["spec"]
    assert (
        autoscaler["spec"]["minReplicas"]
        > of_kind("PodDisruptionBudget")[0]["spec"]["maxUnavailable"]
    )


def test_pods_spread_over_nodes_and_zones() -> None:
    constraints = web()["spec"]["topologySpreadConstraints"]

    assert {each["topologyKey"] for each in constraints} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    assert all(selects(each["labelSelector"]["matchLabels"], web()) for each in constraints)


def test_the_ingress_leads_to_the_service_for_a_host_that_is_allowed() -> None:
    [ingress] = of_kind("Ingress")
    [rule], [tls] = ingress["spec"]["rules"], ingress["spec"]["tls"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    service = named("Service", backend["name"])

    assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    assert (
        tls["hosts"]
        == [rule["host"]]
        == literals(K8S / "overlays" / "prod")["ALLOWED_HOSTS"].split(",")
    )
    assert int(literals(K8S / "overlays" / "prod")["TRUSTED_PROXIES"]) >= 1


def test_the_network_policy_applies_to_all_pods_of_the_overlay() -> None:
    [policy] = of_kind("NetworkPolicy")
    files = [file for file in RESOURCES if file.parent.name in ("base", "prod")]

    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert all(selects(policy["spec"]["podSelector"]["matchLabels"], pod) for pod in pods(*files))


def test_the_network_policy_lets_only_proxy_and_prometheus_in() -> None:
    [[rule]] = [policy["spec"]["ingress"] for policy in of_kind("NetworkPolicy")]
    namespaces = [peer["namespaceSelector"]["matchLabels"] for peer in rule["from"]]

    assert namespaces == [
        {"kubernetes.io/metadata.name": name} for name in ("ingress-nginx", "monitoring")
    ]
    assert [port["port"] for port in rule["ports"]] == [int(VARIABLES["PORT"].default)]


def test_the_network_policy_lets_out_what_totoro_uses() -> None:
    [rules] = [policy["spec"]["egress"] for policy in of_kind("NetworkPolicy")]
    dns, stores, https = ({port["port"] for port in rule["ports"]} for rule in rules)

    assert (dns, stores, https) == ({53}, {6379, 26379, 5432}, {443})
    assert {port["protocol"] for port in rules[0]["ports"]} == {"UDP", "TCP"}
    internal = {peer["ipBlock"]["cidr"] for peer in rules[1]["to"]}
    # 169.254.169.254 is the cloud's metadata.
    assert set(rules[2]["to"][0]["ipBlock"]["except"]) == {*internal, "169.254.0.0/16"}


# What refers to the code


def test_the_port_is_the_default() -> None:
    annotations = web()["metadata"]["annotations"]
    port = int(VARIABLES["PORT"].default)

    assert web_container()["ports"] == [{"name": "http", "containerPort": port}]
    assert annotations["prometheus.io/port"] == str(port)
    resolve(annotations["prometheus.io/path"])


def test_probes_request_addresses_that_exist() -> None:
    paths = {
        name: web_container()[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "liveness", "readiness")
    }

    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    for path in paths.values():
        resolve(path)


def test_the_readiness_probe_waits_for_longer_than_totoro_takes() -> None:
    assert web_container()["readinessProbe"]["timeoutSeconds"] > 2 * HEALTH_SECONDS


def test_a_pod_has_the_time_to_finish_its_requests() -> None:
    pause = web_container()["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert web()["spec"]["terminationGracePeriodSeconds"] >= pause + STOP_TIMEOUT_SECONDS + 5
    assert named("Deployment", "totoro")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 1,
        "maxUnavailable": 0,
    }


def environments() -> list[dict[str, str]]:
    base = literals(K8S / "base")
    [job] = [each for each in whole_containers() if "env" in each]
    return [
        *({**base, **literals(overlay)} for overlay in OVERLAYS),
        {each["name"]: each["value"] for each in job["env"]},
    ]


@pytest.mark.parametrize("environment", environments(), ids=["dev", "prod", "migration"])
def test_the_environment_is_valid(environment: dict[str, str]) -> None:
    assert "DJANGO_SECRET_KEY_FILE" in environment
    for name, value in environment.items():
        if name.endswith("_FILE"):
            assert VARIABLES[name.removesuffix("_FILE")].secret
            assert value == SECRETS + name.removesuffix("_FILE").lower()
        else:
            assert not VARIABLES[name].secret
            VARIABLES[name].to_python(value)


def test_several_workers_share_a_redis() -> None:
    dev, prod, _ = environments()

    assert "REDIS_URL_FILE" in prod
    assert "WEB_CONCURRENCY" not in dev
    assert "REDIS_URL_FILE" not in dev


def test_the_secret_is_made_as_the_readme_says() -> None:
    files = {
        value.removeprefix(SECRETS)
        for each in environments()
        for name, value in each.items()
        if name.endswith("_FILE")
    }

    assert set(re.findall(r"--from-file=(\w+)", README)) == files
    assert of_kind("Secret") == []
    assert all("secretGenerator" not in each for each in KUSTOMIZATIONS.values())


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL"])
def test_the_urls_of_the_readme_are_valid(variable: str) -> None:
    [row] = re.findall(rf"^   \| `{variable.lower()}` \| (.*)", README, re.MULTILINE)
    urls = re.findall(r"`(\S+://\S+)`", row)

    assert urls
    for url in urls:
        assert VARIABLES[variable].parse(url) == url


@pytest.mark.parametrize(
    "pod",
    [pod for pod in pods(*RESOURCES) if pod["spec"].get("volumes")],
    ids=["totoro", "migrate"],
)
def test_the_secret_is_mounted(pod: Manifest) -> None:
    [volume] = [volume for volume in pod["spec"]["volumes"] if "secret" in volume]

    assert f"create secret generic {volume['secret']['secretName']}" in README
    for container in pod["spec"]["containers"]:
        assert {
            "name": volume["name"],
            "mountPath": SECRETS.rstrip("/"),
            "readOnly": True,
        } in container["volumeMounts"]


def test_totoro_may_write_where_it_must() -> None:
    folders = {mount["mountPath"] for mount in web_container()["volumeMounts"]}
    database = f"/app/{SQLITE_FILE.parent.relative_to(BASE_DIR)}"

    assert {str(IN_MEMORY), "/tmp"} <= folders  # noqa: S108 (in the container)
    for container in containers(*PATCHES):
        assert database in {mount["mountPath"] for mount in container["volumeMounts"]}


# Security and resources


@pytest.mark.parametrize(
    "pod", pods(*RESOURCES), ids=lambda pod: pod["spec"]["containers"][0]["name"]
)
def test_a_pod_is_restricted(pod: Manifest) -> None:
    context = pod["spec"]["securityContext"]
    [(user, group)] = set(re.findall(r"^USER (\d+):(\d+)$", read("Dockerfile"), re.MULTILINE))

    assert context["runAsNonRoot"] is True
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("container", whole_containers(), ids=lambda container: container["name"])
def test_a_container_is_restricted(container: Manifest) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("container", whole_containers(), ids=lambda container: container["name"])
def test_a_container_has_resources(container: Manifest) -> None:
    requests, limits = (container["resources"][each] for each in ("requests", "limits"))
    needed, allowed = (int(each["memory"].removesuffix("Mi")) for each in (requests, limits))

    assert requests["cpu"]
    assert 0 < needed <= allowed


def test_the_readme_leads_there() -> None:
    assert "deploy/k8s/README.md" in PROJECT_README
    for overlay in OVERLAYS:
        assert f"deploy/k8s/overlays/{overlay.name}" in README
    assert f"Kubernetes {VERSIONS[0]} or later" in README
