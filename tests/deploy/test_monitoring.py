"""Alerts and dashboard: each rule and each query works with a real Prometheus and a real Totoro."""

import json
import math
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from fake_ghibli import FakeGhibli
from tests.deploy.test_compose import SERVICES
from tests.support.documents import headings, read
from tests.support.metrics import METRICS, PROCESS_METRICS
from tests.support.servers import ROOT, Process, Totoro, Valkey, free_port, wait_until

MONITORING = ROOT / "deploy" / "monitoring"
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule["alert"] for rule in RULES]
PANELS = json.loads((MONITORING / "grafana" / "dashboards" / "totoro.json").read_text())["panels"]
QUERIES = [(panel["title"], each["expr"]) for panel in PANELS for each in panel["targets"]]
HISTOGRAMS = {name for name in METRICS if name.endswith("_duration_seconds")}

needs_prometheus = pytest.mark.skipif(
    not shutil.which("promtool") and "CI" not in os.environ,
    reason="needs Prometheus: apt-get install prometheus",
)


class Prometheus(Process):
    """Debian's Prometheus with our configuration, which scrapes this Totoro twice a second."""

    def __init__(self, folder: Path, totoro: Totoro) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        config["rule_files"] = [str(MONITORING / "alerts.yml")]
        [job] = config["scrape_configs"]
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{totoro.port}"]}]
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        address = self.url.removeprefix("http://")
        super().__init__(
            [
                *("prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder}/data"),
                *(f"--web.listen-address={address}", "--log.level=error"),
            ]
        )

    def get(self, path: str, **parameters: str) -> Any:
        response = requests.get(f"{self.url}/api/v1/{path}", parameters, timeout=10).json()
        assert response["status"] == "success", response
        return response["data"]

    def values(self, query: str) -> list[float]:
        """Return the values of an instant query that are numbers."""
        result = self.get("query", query=query)["result"]
        values = [float(each["value"][1]) for each in result]
        return [value for value in values if not math.isnan(value)]

    def has_scraped(self) -> bool:
        try:
            return self.values("up") == [1]
        except requests.RequestException:  # it is starting
            return False


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has seen traffic, a refresh and a request over the rate limit."""
    folder = tmp_path_factory.mktemp("monitoring")
    with ExitStack() as stack:
        upstream = stack.enter_context(FakeGhibli())
        valkey = Valkey()
        stack.callback(valkey.terminate)
        totoro = Totoro(
            folder,
            GHIBLI_API_BASE_URL=upstream.url,
            REDIS_URL=valkey.url,
            WEB_CONCURRENCY=2,
            THROTTLE_RATE="20/min",
        )
        stack.callback(totoro.terminate)
        prometheus = Prometheus(folder, totoro)
        stack.callback(prometheus.terminate)
        wait_until(prometheus.has_scraped)
        for path in ("/movies/", "/redoc/", "/movies/x/", "/readyz") * 10:
            totoro.get(path)
        yield prometheus


def promtool(*arguments: str | Path) -> None:
    subprocess.run(["/usr/bin/env", "promtool", *arguments], check=True, timeout=60)


@needs_prometheus
def test_the_configuration_and_the_rules_are_valid() -> None:
    promtool("check", "config", MONITORING / "prometheus.yml")


@needs_prometheus
def test_each_alert_fires_when_it_should() -> None:
    promtool("test", "rules", ROOT / "tests" / "deploy" / "alerts_test.yml")


def test_each_alert_has_unit_tests() -> None:
    states: defaultdict[str, set[bool]] = defaultdict(set)
    for test in yaml.safe_load(read("tests/deploy/alerts_test.yml"))["tests"]:
        evaluations = [str(each.get("exp_samples")) for each in test["promql_expr_test"]]
        for alert in re.findall(r"Totoro\w+", test["name"]):
            states[alert] |= {f'"{alert}"' in evaluation for evaluation in evaluations}

    assert states == {alert: {False, True} for alert in ALERTS}


@pytest.mark.parametrize("rule", RULES, ids=ALERTS)
def test_an_alert_says_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    document, _, anchor = rule["annotations"]["runbook_url"].partition("#")

    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert document == "docs/operations.md"
    assert anchor == rule["alert"].lower()
    assert rule["alert"] in headings(read(document))


@pytest.mark.parametrize(
    ("where", "query"), [(rule["alert"], rule["expr"]) for rule in RULES] + QUERIES
)
def test_the_metrics_of_a_query_exist(where: str, query: str) -> None:
    parts = {f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")}
    named = set(re.findall(r"\b(?:totoro|process)_\w+", query))

    assert named or "up{" in query
    assert named - (METRICS.keys() - HISTOGRAMS) - parts - PROCESS_METRICS == set(), where


@needs_prometheus
@pytest.mark.parametrize(("panel", "query"), QUERIES)
def test_the_query_of_a_panel_returns_data(prometheus: Prometheus, panel: str, query: str) -> None:
    query = query.replace("$__rate_interval", "1m")

    wait_until(lambda: bool(prometheus.values(query)), what=f"{panel}: {query}")


@needs_prometheus
def test_no_alert_fires_for_a_healthy_service(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        [group] = prometheus.get("rules")["groups"]
        evaluated: list[dict[str, Any]] = group["rules"]
        return evaluated

    wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()))
    assert [rule["lastError"] for rule in rules() if rule["health"] != "ok"] == []
    firing = {rule["name"] for rule in rules() if rule["state"] == "firing"}
    # The fixture sends more requests than are allowed, and too few for ratios.
    assert firing == set()


def test_prometheus_scrapes_each_web_container() -> None:
    [job] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]

    assert job["job_name"] == "totoro"
    [names] = job["dns_sd_configs"]
    assert names["names"] == ["web"]
    assert names["port"] == SERVICES["web"]["environment"]["PORT"]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = MONITORING / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())
    providers = yaml.safe_load((provisioning / "dashboards" / "totoro.yml").read_text())

    [source], [provider] = sources["datasources"], providers["providers"]
    assert (source["url"], source["isDefault"]) == ("http://prometheus:9090", True)
    assert "prometheus" in SERVICES
    mounts = [mount.split(":") for mount in SERVICES["grafana"]["volumes"]]
    folders = {target: source for source, target, _ in mounts}
    assert ROOT / folders["/etc/grafana/provisioning"] == provisioning
    assert ROOT / folders[provider["options"]["path"]] == MONITORING / "grafana" / "dashboards"
