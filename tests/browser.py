"""A real browser, which reaches nothing but this machine."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.waiting import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OFFLINE = [f"--disable-{what}" for what in ("gpu", "quic", "background-networking", "component-update", "sync")]
PATIENCE_MS = PATIENCE * 1000


@contextmanager
def real_browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium: forms and pages were not tested in a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--no-first-run", *OFFLINE]
        )
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()
