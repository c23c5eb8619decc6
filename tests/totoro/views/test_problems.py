"""Each problem type has a page that explains it."""

import html

import pytest
from django.test import Client

from totoro.problem_types import PROBLEM_TYPES


@pytest.mark.parametrize("name", sorted(PROBLEM_TYPES))
def test_explains_each_problem_type_as_json_and_as_a_page(name: str, api: Client) -> None:
    response = api.get(f"/problems/{name}/")
    page = api.get(f"/problems/{name}/", headers={"Accept": "text/html,*/*;q=0.8"})

    assert response.status_code == page.status_code == 200
    problem_type = response.json()
    assert list(problem_type) == ["type", "title", "status", "description", "solution"]
    assert problem_type["type"] == f"/problems/{name}/"
    assert problem_type["description"].endswith(".")
    assert problem_type["solution"].endswith(".")
    assert page["Content-Type"] == "text/html; charset=utf-8"
    text = html.unescape(page.content.decode())
    assert all(problem_type[key] in text for key in ("title", "description", "solution"))
    assert "style-src 'self'" in page["Content-Security-Policy"]
    assert "script" not in page["Content-Security-Policy"]


def test_lists_all_problem_types(api: Client) -> None:
    listed = api.get("/problems/").json()

    assert [problem_type["type"] for problem_type in listed] == [
        f"/problems/{name}/" for name in PROBLEM_TYPES
    ]
    page = api.get("/problems/", headers={"Accept": "text/html"}).content.decode()
    assert all(f'href="/problems/{name}/"' in page for name in PROBLEM_TYPES)


def test_the_type_of_an_error_links_to_its_explanation(api: Client) -> None:
    problem = api.get("/none/").json()

    assert api.get(problem["type"]).json()["title"] == problem["title"]


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_problem_types_are_read_only(method: str, api: Client) -> None:
    assert getattr(api, method)("/problems/").status_code == 405
