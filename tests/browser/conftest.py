"""Debian's Chromium before the real server; whatever a test does, its page stays within the policy."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, sync_playwright

from movies.web_page import PICTURE_HOSTS
from tests.support.servers import Totoro

# The container is the sandbox; nothing is fetched but what a page asks for.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
TELL_VIOLATIONS = """
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


class Watch:
    """Lets a page reach its own server alone, and notes what it should not have done."""

    def __init__(self, context: BrowserContext, own: str) -> None:
        self.own = own
        self.wrong: list[str] = []
        context.add_init_script(TELL_VIOLATIONS)
        context.route("**/*", self._let_through)
        context.on("console", lambda message: self._hear(message.type, message.text))
        context.on("weberror", lambda error: self.wrong.append(str(error.error)))

    def _let_through(self, route: Route, request: Request) -> None:
        if request.url.startswith((f"{self.own}/", "data:", "blob:")):
            route.fallback()
            return
        if request.resource_type != "image" or urlsplit(request.url).hostname not in PICTURE_HOSTS:
            self.wrong.append(f"asks for {request.url}")
        route.abort()

    def _hear(self, kind: str, text: str) -> None:
        # Pictures that do not come, and the problems that tests make.
        if kind == "error" and not text.startswith("Failed to load resource"):
            self.wrong.append(text)


@contextmanager
def watched(browser: Browser, own: str, **options: object) -> Iterator[Page]:
    """A page of its own context; at its end, nothing may have been wrong."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(10_000)
    watch = Watch(context, own)
    try:
        yield context.new_page()
    finally:
        context.close()
    assert watch.wrong == []


@pytest.fixture
def visit(chromium: Browser, server: Totoro) -> Iterator[Visit]:
    """Opens a path of the server, or of another, in a new page."""
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
            page = stack.enter_context(watched(chromium, at.url, viewport=viewport, **options))
            page.goto(at.url + path)
            return page

        yield open_page
