"""Each `type` of problem is an address that explains it."""

import pytest
from django.test import Client

from totoro.problem_types import KINDS


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_kind_is_explained_as_json_and_as_a_page(name: str, api: Client) -> None:
    told = api.get(f"/problems/{name}/")
    page = api.get(f"/problems/{name}/", headers={"Accept": "text/html,*/*;q=0.8"})

    assert told.status_code == page.status_code == 200
    kind = told.json()
    assert list(kind) == ["type", "title", "status", "about"]
    assert kind["type"] == f"/problems/{name}/"
    assert kind["about"].endswith(".")
    assert page["Content-Type"] == "text/html; charset=utf-8"
    assert kind["title"] in page.content.decode()
    assert "script" not in page["Content-Security-Policy"]


def test_all_kinds_are_listed(api: Client) -> None:
    listed = api.get("/problems/").json()

    assert [kind["type"] for kind in listed] == [f"/problems/{name}/" for name in KINDS]
    page = api.get("/problems/", headers={"Accept": "text/html"}).content.decode()
    assert all(f'href="/problems/{name}/"' in page for name in KINDS)


def test_the_type_of_an_error_leads_to_its_explanation(api: Client) -> None:
    problem = api.get("/none/").json()

    assert api.get(problem["type"]).json()["title"] == problem["title"]


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_kinds_are_read_only(method: str, api: Client) -> None:
    assert getattr(api, method)("/problems/").status_code == 405
