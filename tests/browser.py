"""A real browser for the pages: Chromium of the machine, without a window."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by playwright; the test is skipped where either is missing."""
    driver = pytest.importorskip("playwright.sync_api", reason="pages are opened with the package playwright")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(PROGRAMS)} is installed")
    with driver.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """`open_page(file, width=1600, dark=False)` opens a page as a double click does.

    At the end of the test the pages must not have logged an error, asked for anything that is not a file of theirs, or be
    wider than the window.
    """
    opened: list = []
    faults: list[str] = []

    def refuse(dialog) -> None:
        faults.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def open_it(file: Path, width: int = 1600, *, dark: bool = False, height: int = 1000):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
        page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", refuse)
        page.on("request", lambda request: None if is_local(request.url) else faults.append(request.url))
        page.on("requestfailed", lambda request: faults.append(f"cannot load {request.url}"))
        page.goto(file.resolve().as_uri())
        opened.append(page)
        return page

    yield open_it
    for page in opened:
        wide, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window, f"the page is {wide} px wide in a window of {window} px"
        page.close()
    assert not faults, faults


def is_local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:", "about:"))
