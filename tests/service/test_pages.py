"""The pages for people, in a real browser that obeys our security headers: they work, and nothing else runs in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.service.running_server import RunningServer

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

pytest.importorskip("selenium", reason="pages are looked at by selenium")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="pages need chromium and chromedriver")
PATIENCE_SECONDS = 20
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1200,2000")
PREDICT = '.opblock-summary-path[data-path="/models/digits/predict"]'
ANSWER = ".live-responses-table tbody"


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    """A browser without a window."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def wait_for(browser: WebDriver, selector: str) -> Any:
    """Give the first element that fits, as soon as it can be clicked."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions
    from selenium.webdriver.support.ui import WebDriverWait

    there = expected_conditions.element_to_be_clickable((By.CSS_SELECTOR, selector))
    return WebDriverWait(browser, PATIENCE_SECONDS).until(there)


def complaints(browser: WebDriver) -> list[str]:
    """What the console says since it was last asked."""
    entries = browser.execute("getLog", {"type": "browser"})["value"]
    return [entry["message"] for entry in entries]


def test_in_docs_a_prediction_can_be_tried_out_and_the_console_stays_empty(
    browser: WebDriver, server: RunningServer
) -> None:
    browser.get(f"{server.url}/docs")
    wait_for(browser, PREDICT).click()
    wait_for(browser, ".try-out__btn").click()
    wait_for(browser, ".btn.execute").click()
    assert wait_for(browser, f"{ANSWER} .response-col_status").text.startswith("200")
    assert '"scores"' in wait_for(browser, f"{ANSWER} .response-col_description").text
    assert complaints(browser) == []


def test_a_script_that_gets_into_the_page_later_does_not_run(browser: WebDriver, server: RunningServer) -> None:
    browser.get(f"{server.url}/docs")
    wait_for(browser, PREDICT)
    browser.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.hasRun = true';"
        "document.body.append(script)"
    )
    assert browser.execute_script("return window.hasRun === true") is False
    assert any("Content Security Policy" in said for said in complaints(browser))


def test_no_page_can_frame_docs_not_even_from_here(browser: WebDriver, server: RunningServer) -> None:
    """The picture is a page whose own policy would let it."""
    browser.get(f"{server.url}/static-offline-docs/favicon.png")
    browser.execute_script(
        "const frame = document.createElement('iframe'); frame.src = arguments[0]; document.body.append(frame);"
        "return new Promise(done => { frame.onload = done })",
        f"{server.url}/docs",
    )
    browser.switch_to.frame(0)
    assert "swagger-ui" not in browser.page_source
