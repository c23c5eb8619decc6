"""Chromium against the real server. No test may violate a page's Content-Security-Policy."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, sync_playwright

from movies.web_page import PICTURE_ORIGINS
from tests.support.servers import Totoro

# The container is the sandbox. The browser makes no requests of its own.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`), true);
"""
PHONE = (375, 812)
DESKTOP = (1280, 900)

Visit = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if not path:
        pytest.fail("Chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class PageMonitor:
    """Blocks requests to other hosts and collects errors of the page."""

    def __init__(self, context: BrowserContext, own: str) -> None:
        self.own = own
        self.errors: list[str] = []
        context.add_init_script(REPORT_VIOLATIONS)
        context.route("**/*", self._filter_request)
        context.on("console", lambda message: self._check_console(message.type, message.text))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def _filter_request(self, route: Route, request: Request) -> None:
        if request.url.startswith((f"{self.own}/", "data:", "blob:")):
            route.fallback()
            return
        url = urlsplit(request.url)
        origin = f"{url.scheme}://{url.netloc}"
        if request.resource_type != "image" or origin not in PICTURE_ORIGINS:
            self.errors.append(f"request to {request.url}")
        route.abort()

    def _check_console(self, kind: str, text: str) -> None:
        # Missing pictures and the error responses that tests cause are no errors.
        if kind == "error" and not text.startswith("Failed to load resource"):
            self.errors.append(text)


@contextmanager
def monitored_page(browser: Browser, own: str, **options: object) -> Iterator[Page]:
    """Open a page in a context of its own, and assert at the end that it had no errors."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(10_000)
    monitor = PageMonitor(context, own)
    try:
        yield context.new_page()
    finally:
        context.close()
    assert monitor.errors == []


@pytest.fixture
def visit(chromium: Browser, server: Totoro) -> Iterator[Visit]:
    """Return a function that opens a path of a server in a new page."""
    with ExitStack() as stack:

        def open_page(
            path: str,
            *,
            size: tuple[int, int] = DESKTOP,
            at: Totoro = server,
            **options: object,
        ) -> Page:
            width, height = size
            viewport = {"width": width, "height": height}
            page = stack.enter_context(
                monitored_page(chromium, at.url, viewport=viewport, **options)
            )
            page.goto(at.url + path)
            return page

        yield open_page
