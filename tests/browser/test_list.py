"""The movie page in a browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from fake_ghibli import FakeGhibli
from services.catalogue import bundled
from tests.browser.conftest import DESKTOP, PHONE, Visit
from tests.support.servers import Totoro, wait_until

pytestmark = pytest.mark.browser

FACTS = bundled.load()
TITLES = [film["title"] for film in FACTS.films]
ALL = f"{len(TITLES)} movies"
# Impacts as axe-core names them.
SEVERE = ("serious", "critical")


def titles(page: Page) -> list[str]:
    return page.get_by_role("heading", level=2).all_inner_texts()


def count(page: Page) -> Any:
    return expect(page.get_by_role("status"))


def search(page: Page, words: str) -> None:
    page.get_by_role("searchbox", name="Search").press_sequentially(words)


def test_shows_all_movies_in_the_order_of_the_api(visit: Visit) -> None:
    page = visit("/movies/")

    count(page).to_have_text(ALL)
    assert titles(page) == TITLES


def test_typing_a_search_filters_the_list(visit: Visit) -> None:
    page = visit("/movies/")

    search(page, "kondo")

    count(page).to_have_text(f"1 of {ALL}")
    assert titles(page) == ["Whisper of the Heart"]
    assert page.url.endswith("/movies/?search=kondo")
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_a_search_sends_one_request_after_typing_for_ids_only(visit: Visit, server: Totoro) -> None:
    page = visit("/movies/")
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))

    search(page, "kondo")

    count(page).to_have_text(f"1 of {ALL}")
    assert [url for url in requested if "/movies/?" in url] == [
        f"{server.url}/movies/?search=kondo&fields=id"
    ]


def test_selecting_an_order_sorts_the_list(visit: Visit) -> None:
    page = visit("/movies/")

    page.get_by_label("Order").select_option("Newest first")

    count(page).to_have_text(f"{ALL}, newest first")
    assert titles(page)[0] == "Earwig and the Witch"
    assert page.url.endswith("?ordering=-release_date")


def test_says_that_no_movies_match(visit: Visit) -> None:
    page = visit("/movies/")

    search(page, "no such film")
    count(page).to_have_text(f"0 of {ALL}")
    expect(page.get_by_text("No movies match.")).to_be_visible()

    page.get_by_role("searchbox").fill("")
    count(page).to_have_text(ALL)
    assert titles(page) == TITLES
    assert page.url.endswith("/movies/")


def test_a_url_with_a_search_can_be_shared_and_the_search_cleared(visit: Visit) -> None:
    page = visit("/movies/?search=kondo&ordering=title")
    assert titles(page) == ["Whisper of the Heart"]

    page.get_by_role("searchbox").fill("")

    count(page).to_have_text(f"{ALL}, title, A to Z")
    assert titles(page) == sorted(TITLES)


def test_a_search_leaves_the_current_page(visit: Visit) -> None:
    page = visit("/movies/?limit=5&offset=5")
    count(page).to_have_text(f"6 to 10 of {ALL}")

    search(page, "totoro")

    count(page).to_have_text(f"1 of {ALL}")
    expect(page.get_by_role("navigation", name="Pages")).to_have_count(0)


def test_a_director_links_to_all_movies_of_the_director(visit: Visit) -> None:
    page = visit("/movies/")

    page.get_by_role("link", name="Isao Takahata").first.click()
    page.wait_for_url("**director=**")  # with its script, which the selection needs
    assert len(titles(page)) == sum(film["director"] == "Isao Takahata" for film in FACTS.films)

    page.get_by_label("Order").select_option("Newest first")
    count(page).to_have_text(re.compile("newest first"))
    page.get_by_role("link", name="Remove the filter Director").click()
    assert len(titles(page)) == len(TITLES)
    assert page.url.endswith("?ordering=-release_date")


def test_an_error_response_keeps_the_list_and_shows_the_reason(visit: Visit) -> None:
    page = visit("/movies/")
    page.route(
        "**/movies/?*",
        lambda route: route.fulfill(
            status=429,
            content_type="application/problem+json",
            json={"detail": "Too many requests."},
        ),
    )

    search(page, "kondo")

    count(page).to_have_text("The list was not updated. Too many requests.")
    assert titles(page) == TITLES


def test_an_unreachable_server_keeps_the_list_and_shows_it(visit: Visit) -> None:
    page = visit("/movies/")
    page.route("**/movies/?*", lambda route: route.abort())

    search(page, "kondo")

    count(page).to_have_text("The list was not updated. Totoro is unreachable.")
    assert titles(page) == TITLES


# Keyboard


def test_the_keyboard_reaches_everything_and_the_focus_is_visible(visit: Visit) -> None:
    page = visit("/movies/")

    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.innerText || document.activeElement.id")
        )
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", reached

    assert reached[:4] == ["Skip to the movies", "Totoro", "API documentation", "search"]
    assert reached[5:7] == ["Show", "Hayao Miyazaki"]
    assert reached[7].startswith("14 people")


def test_the_keyboard_can_skip_to_the_movies(visit: Visit) -> None:
    page = visit("/movies/")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the movies")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")

    expect(page.get_by_role("link", name="Hayao Miyazaki").first).to_be_focused()


def test_the_keyboard_searches_and_opens_the_list_of_people(visit: Visit) -> None:
    page = visit("/movies/")

    page.get_by_role("searchbox").focus()
    page.keyboard.type("arrietty")
    page.keyboard.press("Enter")
    count(page).to_have_text(f"1 of {ALL}")
    for _ in range(4):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    names = [p["name"] for p in FACTS.people if any("2de9426b" in link for link in p["films"])]
    assert names
    for name in names:
        expect(page.locator(".people").get_by_text(name)).to_be_visible()


# Without JavaScript


def test_without_javascript_all_movies_and_people_are_shown(visit: Visit) -> None:
    page = visit("/movies/", java_script_enabled=False)

    assert titles(page) == TITLES
    for summary in page.locator("summary").all():
        summary.click()
    shown = page.locator("#movies").inner_text()
    assert [p["name"] for p in FACTS.people if p["films"] and p["name"] not in shown] == []


def test_without_javascript_the_form_searches(visit: Visit) -> None:
    page = visit("/movies/", java_script_enabled=False)

    search(page, "miyazaki")
    page.get_by_label("Order").select_option("Newest first")
    page.get_by_role("button", name="Show").click()

    count(page).to_have_text(re.compile(rf"\d+ of {ALL}, newest first"))
    assert titles(page)[-1] == "Castle in the Sky"
    expect(page.get_by_role("searchbox")).to_have_value("miyazaki")


# Screens and accessibility


@pytest.mark.parametrize("width", [320, 375, 768])
def test_the_page_never_scrolls_sideways(visit: Visit, width: int) -> None:
    page = visit("/movies/", size=(width, 700))

    page.locator("details").evaluate_all("all => all.forEach((each) => (each.open = true))")

    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_follows_the_preferred_colour_scheme(visit: Visit) -> None:
    colours = [
        visit("/movies/", color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).background"
        )
        for scheme in ("light", "dark")
    ]

    assert colours[0].startswith("rgb(247, 245, 239)")
    assert colours[1].startswith("rgb(24, 32, 28)")


def test_nothing_moves_with_reduced_motion(visit: Visit) -> None:
    page = visit("/movies/", reduced_motion="reduce")

    moving = "getComputedStyle(document.documentElement).scrollBehavior"
    assert page.evaluate(moving) == "auto"
    lasting = "all => all.map((each) => getComputedStyle(each).transitionDuration)"
    assert set(page.locator("*").evaluate_all(lasting)) == {"0s"}


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "path", ["/movies/", "/movies/?director=takahata&limit=2", "/movies/?title=x"]
)
def test_axe_finds_no_severe_violation(
    visit: Visit, path: str, scheme: str, size: tuple[int, int]
) -> None:
    page = visit(path, color_scheme=scheme, size=size)
    page.locator("details").evaluate_all("all => all.forEach((each) => (each.open = true))")

    result = Axe().run(page)

    assert [v["id"] for v in result.response["violations"] if v["impact"] in SEVERE] == []
    assert result.response["passes"]


def test_a_missing_picture_is_invisible(visit: Visit) -> None:
    page = visit("/movies/?search=ponyo", java_script_enabled=False)
    poster, picture = page.locator(".poster"), page.locator(".poster img")
    poster.scroll_into_view_if_needed()
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("(each) => each.naturalWidth") == 0
    drawn = poster.screenshot()

    picture.evaluate("(each) => each.remove()")

    assert poster.screenshot() == drawn


def test_a_picture_covers_its_placeholder(visit: Visit) -> None:
    page = visit("/movies/?search=ponyo")
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="90"/>'
    page.route(
        "https://image.tmdb.org/**",
        lambda route: route.fulfill(content_type="image/svg+xml", body=svg),
    )

    page.reload()
    page.locator(".poster").scroll_into_view_if_needed()

    expect(page.locator(".poster img")).to_have_js_property("naturalWidth", 60)
    assert page.locator(".poster img").bounding_box() == page.locator(".poster").bounding_box()


# Print


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_movies_print_on_four_sheets_with_their_people(visit: Visit, scheme: str) -> None:
    page = visit("/movies/", color_scheme=scheme)

    sheets = re.findall(rb"/Type /Page\b", page.pdf(format="A4"))
    page.emulate_media(media="print")

    assert 1 <= len(sheets) <= 4
    printed = page.locator("#movies").inner_text()
    for film in FACTS.films:
        for name in ("title", "director", "release_date"):
            assert film[name] in printed
    for person in FACTS.people:
        assert person["name"] in printed
    assert "score 95 of 100" in printed
    names = page.locator(".people b")
    assert all(name.is_visible() for name in names.all())
    assert page.locator("body").evaluate("(each) => getComputedStyle(each).color") == "rgb(0, 0, 0)"


@pytest.mark.parametrize("query", ["", "?director=miyazaki", "?limit=5&offset=5"])
def test_controls_and_pictures_are_not_printed(visit: Visit, query: str) -> None:
    page = visit(f"/movies/{query}")
    page.emulate_media(media="print")

    shown = page.locator("header, form, footer, button, .filters, img, svg, nav")
    assert [each.evaluate("(e) => e.outerHTML") for each in shown.all() if each.is_visible()] == []


# Changing data


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[tuple[Totoro, FakeGhibli]]:
    """A server whose cache entries live for a second, and its upstream."""
    with FakeGhibli() as upstream:
        server = Totoro(tmp_path, GHIBLI_API_BASE_URL=upstream.url, CACHE_TTL=1, REFRESH_AHEAD=0)
        yield server, upstream
        server.terminate()


def test_loads_newer_data_with_the_next_search(
    visit: Visit, quick: tuple[Totoro, FakeGhibli]
) -> None:
    server, upstream = quick
    page = visit("/movies/", at=server)
    page.locator("summary").first.click()
    upstream.data["films"][0]["title"] = "Zeppelins"
    wait_until(lambda: "Zeppelins" in server.get("/movies/").text, what="newer data")

    page.get_by_label("Order").select_option("Oldest first")

    count(page).to_have_text(f"{ALL}, oldest first")
    assert titles(page)[0] == "Zeppelins"
    expect(page.locator("details").first).to_have_attribute("open", "")


def test_shows_the_age_and_whether_the_data_is_stale(
    visit: Visit, quick: tuple[Totoro, FakeGhibli]
) -> None:
    server, upstream = quick
    page = visit("/movies/", at=server)
    expect(page.locator("#freshness")).to_have_text(re.compile(r"UTC \((now|\d+ seconds? ago)\)"))
    upstream.faults.status = 500
    wait_until(lambda: "Age" in server.get("/movies/").headers, what="a stale response")

    page.get_by_label("Order").select_option("Oldest first")

    notice = page.get_by_text("The Ghibli API is unavailable.")
    expect(notice).to_be_visible()
    assert titles(page) == TITLES

    upstream.faults.status = None
    wait_until(lambda: "Age" not in server.get("/movies/").headers, what="a fresh response")
    page.get_by_label("Order").select_option("Newest first")
    expect(notice).to_have_count(0)
