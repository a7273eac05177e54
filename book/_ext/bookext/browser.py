"""A headless Chromium, for what only a browser does: setting formulas, printing."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")


class NoBrowserError(RuntimeError):
    """There is no Chromium, or nothing to drive it with."""


@contextmanager
def chromium() -> "Iterator[Browser]":
    """Run Chromium: the system's, or else Playwright's own.

    Raises:
        NoBrowserError: neither is there.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise NoBrowserError("needs playwright: see requirements/tools.txt") from error
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=path, args=["--no-sandbox"]
            )
        except Error as error:
            names = ", ".join(NAMES)
            raise NoBrowserError(f"needs Chromium, one of {names}: {error}") from error
        try:
            yield browser
        finally:
            browser.close()
