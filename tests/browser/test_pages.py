"""Swagger UI and Redoc in a browser, and a screenshot of every page."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import DESKTOP, PHONE, Visit
from tests.support.servers import ROOT, wait_until

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


def test_swagger_ui_sends_requests(visit: Visit) -> None:
    page = visit("/")
    operation = page.locator(".opblock").filter(has_text="listMovies")

    operation.locator("button.opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()

    response = operation.locator(".live-responses-table .response")
    expect(response.locator(".response-col_status")).to_have_text("200")
    expect(response).to_contain_text("Castle in the Sky")


def test_redoc_describes_the_api(visit: Visit) -> None:
    page = visit("/redoc/")

    expect(page.get_by_role("heading", level=1).first).to_contain_text("Totoro API")
    expect(page.get_by_role("heading", name="List movies")).to_be_visible()
    expect(page.get_by_role("img", name="redocly logo")).to_have_count(0)


DOCUMENTATION = ["/", "/redoc/"]
SCREENS = {"desktop": (1280, 800), "phone": (390, 844)}


def open_everything(page: Page) -> None:
    """Open all operations of Swagger UI and send the first two, or open all responses of Redoc."""
    expect(page.get_by_role("main")).to_be_visible()
    operations = page.locator("button.opblock-summary-control")
    for operation in operations.all():
        operation.click()
    if operations.count():
        tries = page.locator("button.try-out__btn")
        expect(tries).to_have_count(operations.count())
        tries.evaluate_all("all => all.forEach((each) => each.click())")
        page.get_by_role("button", name="Execute").first.click()
        expect(page.locator(".live-responses-table")).to_contain_text("Castle in the Sky")
        page.locator("[data-param-name=movie_id] input").fill("unknown")
        page.get_by_role("button", name="Execute").nth(1).click()
        expect(page.locator(".live-responses-table").nth(1)).to_contain_text('"status": 404')
        open_models(page)
    else:
        page.locator(".api-content button").evaluate_all(
            "all => all.forEach((each) => each.ariaExpanded === 'true' || each.click())"
        )


def open_models(page: Page) -> None:
    """Show the model of every response of Swagger UI with all nested models."""
    click_all = "all => all.forEach((each) => each.click())"
    page.get_by_role("tab", name="Model").evaluate_all(click_all)
    closed = page.locator(".opblock .model-box-control[aria-expanded=false]")
    wait_until(lambda: closed.evaluate_all(click_all) or closed.count() == 0, what="models open")
    expect(page.locator(".opblock .model").first).to_be_visible()


@pytest.mark.parametrize("path", DOCUMENTATION)
def test_documentation_has_a_language_and_loads_no_other_document(visit: Visit, path: str) -> None:
    page = visit(path)

    expect(page.get_by_role("main")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.get_by_text("Explore")).to_have_count(0)


@pytest.mark.parametrize("path", DOCUMENTATION)
def test_documentation_without_javascript_links_to_pages_that_work(visit: Visit, path: str) -> None:
    page = visit(path, java_script_enabled=False)

    # Playwright does not search for text in <noscript>.
    notice = page.locator("noscript p")
    expect(notice).to_be_visible()
    expect(notice).to_contain_text("This documentation needs JavaScript.")
    links = page.locator("noscript a").evaluate_all("all => all.map((each) => each.pathname)")
    assert links == ["/swagger.json", "/swagger.yaml", "/problems/", "/movies/"]


@pytest.mark.parametrize("path", DOCUMENTATION)
def test_documentation_fits_a_phone(visit: Visit, path: str) -> None:
    page = visit(path, size=SCREENS["phone"], is_mobile=True)

    open_everything(page)

    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_swagger_ui_on_a_phone_shows_paths_instead_of_operation_ids(visit: Visit) -> None:
    page = visit("/", size=SCREENS["phone"])

    expect(page.get_by_text("/movies/", exact=True)).to_be_visible()
    expect(page.get_by_text("listMovies")).to_be_hidden()


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_opens_redoc_s_menu_on_a_phone(visit: Visit, key: str) -> None:
    page = visit("/redoc/", size=SCREENS["phone"])
    menu = page.get_by_role("navigation", name="Operations")
    button = page.get_by_role("button", name="Operations", exact=True)

    expect(button).to_have_attribute("tabindex", "0")
    expect(menu).to_be_hidden()
    button.press(key)

    expect(menu).to_be_visible()


@pytest.mark.parametrize("size", SCREENS)
@pytest.mark.parametrize("path", DOCUMENTATION)
def test_axe_finds_no_violation_in_the_documentation(visit: Visit, path: str, size: str) -> None:
    page = visit(path, size=SCREENS[size])
    expect(page.get_by_role("main")).to_be_visible()
    first = Axe().run(page).response

    open_everything(page)
    opened = Axe().run(page).response

    for result in (first, opened):
        assert [(each["id"], each["nodes"][0]["html"]) for each in result["violations"]] == []
        assert result["passes"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_takes_a_screenshot(visit: Visit, name: str, size: str, scheme: str) -> None:
    page = visit(PAGES[name], size=SIZES[size], color_scheme=scheme, reduced_motion="reduce")
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("heading").first).to_be_visible()

    SCREENSHOTS.mkdir(exist_ok=True)
    path = SCREENSHOTS / f"{name}-{size}-{scheme}.png"
    page.screenshot(path=path)

    assert path.stat().st_size > 10_000
