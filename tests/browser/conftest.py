"""One Chromium for all browser tests: the system's own, because a browser is too large to come with a test suite.

And what is served to those of the viewer: one document that two models have read, and matrices that no page is used to.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, sync_playwright

from attlas.view.desk_captures import Exhibit
from attlas.view.opening import open_desk
from attlas.view.serving.running import Server
from explained import TEXT, speaker
from gallery import between, going_on, hostile, long, padded
from visiting import built, visited

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    del config
    here = Path(__file__).parent
    unwanted = os.environ.get("ATTLAS_SKIP_BROWSER") == "1"
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.browser)
            if unwanted:
                item.add_marker(pytest.mark.skip(reason="ATTLAS_SKIP_BROWSER=1 is set, until it is unset"))


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Find the browser, or fail: a browser test that quietly did not run proves nothing."""
    named = os.environ.get("ATTLAS_CHROMIUM")
    if named:
        if not os.access(named, os.X_OK):
            pytest.fail(f"ATTLAS_CHROMIUM: wanted the path of a Chromium, got {named!r}", pytrace=False)
        return Path(named)
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if not found:
        pytest.fail(
            "no Chromium found: install it (on Debian: apt-get install chromium), name one with "
            "ATTLAS_CHROMIUM=/path/to/chromium, or do without the browser tests with ATTLAS_SKIP_BROWSER=1",
            pytrace=False,
        )
    return Path(found)


@pytest.fixture(scope="session")
def browser(chromium: Path) -> Iterator[Browser]:
    # Chromium's own sandbox cannot start as root in a container; the pages opened here are made by the tests.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Give a fresh browser profile that has no network: every page of attlas must work without one."""
    context = browser.new_context(offline=True)
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """Give a page; the test that opened it fails when one of the page's scripts does."""
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    assert errors == [], "the page's scripts failed"


@pytest.fixture
def said(page: Page) -> list[str]:
    """Collect what the page logs, asks for, or pops up; none of it should happen."""
    said: list[str] = []

    def log(message: ConsoleMessage) -> None:
        said.append(message.text)

    def dismiss(dialog: Dialog) -> None:
        said.append(dialog.message)
        dialog.dismiss()

    page.on("console", log)
    page.on("dialog", dismiss)
    page.on("request", lambda request: None if request.url.startswith("file:") else said.append(request.url))
    return said


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Serve a short document that a small model and another one have read; both can explain it."""
    lm, other = speaker(), speaker(seed=1)
    document = f"{TEXT} {TEXT}"
    exhibits = [Exhibit(lm.read(document), "base", model=lm), Exhibit(other.read(document), "tuned", model=other)]
    with Server(open_desk(exhibits), 0, assets=built()) as server:
        yield server


@pytest.fixture
def viewer(browser: Browser, server: Server, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Give a page of that document that has its key; see `visited` for what fails a test."""
    with visited(browser, server, name=request.node.name) as page:
        yield page


@pytest.fixture(scope="session")
def gallery() -> Iterator[Server]:
    """Serve a: a long text, b: hostile tokens, c: one that goes on, d: one between two texts, e: a padded one."""
    exhibits = [long(), hostile(), going_on(), between(), padded()]
    with Server(open_desk(exhibits), 0, assets=built()) as server:
        yield server


@pytest.fixture
def visitor(browser: Browser, gallery: Server, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Give a page of those captures that has its key; see `visited` for what fails a test."""
    with visited(browser, gallery, name=request.node.name) as page:
        yield page
