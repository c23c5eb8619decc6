"""Swagger UI and Redoc at work, and a picture of every page."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import DESKTOP, PHONE, Visit
from tests.servers import ROOT

pytestmark = pytest.mark.browser

SCREENSHOTS = ROOT / "screenshots"
PAGES = {
    "movies": "/movies/",
    "cards": "/movies/?search=hayao&ordering=-rt_score#movies",
    "swagger": "/",
    "redoc": "/redoc/",
    "problems": "/problems/",
}
SIZES = {"desktop": DESKTOP, "phone": PHONE}


def test_swagger_ui_tries_the_list_out(visit: Visit) -> None:
    page = visit("/")
    operation = page.locator(".opblock").filter(has_text="listMovies")

    operation.locator("button.opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()

    answer = operation.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_have_text("200")
    expect(answer).to_contain_text("Castle in the Sky")


def test_redoc_describes_the_api(visit: Visit) -> None:
    page = visit("/redoc/")

    expect(page.get_by_role("heading", level=1).first).to_contain_text("Totoro API")
    expect(page.get_by_role("heading", name="All movies with their people")).to_be_visible()
    expect(page.get_by_role("img", name="redocly logo")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_pictured(visit: Visit, name: str, size: str, scheme: str) -> None:
    page = visit(PAGES[name], size=SIZES[size], color_scheme=scheme, reduced_motion="reduce")
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("heading").first).to_be_visible()

    SCREENSHOTS.mkdir(exist_ok=True)
    path = SCREENSHOTS / f"{name}-{size}-{scheme}.png"
    page.screenshot(path=path)

    assert path.stat().st_size > 10_000
