"""A real Chromium without a window."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
WEB = Path(os.environ.get("STAC_CLOUDMASK_WEB") or CACHE / "stac-cloudmask" / "web")
"""Where .ci/web puts what it takes from npm."""
WIDE = (1440, 900)
PHONE = (390, 844)
SHOWN = "return document.body.dataset.item"
"""The number of the item that a report shows."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def lacks(what: str) -> None:
    """Skip the test for what .ci/servers would have installed, or fail it where CI says that it must be there."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"needs {what}, which .ci/servers installs")


def from_npm(name: str) -> Path:
    """The one file or folder of .ci/web whose name begins so."""
    found = sorted(WEB.glob(f"{name}-*"))
    if not found:
        lacks(name)
    return found[-1]


@contextmanager
def chromium(profile: Path) -> Iterator[WebDriver]:
    """Run it with an empty profile; skips where it is not installed, and fails there if CI says that it must be."""
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        lacks(" and ".join(missing))
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs["chromedriver"]))
    try:
        yield driver
    finally:
        driver.quit()


def set_screen(driver: WebDriver, width: int, height: int, *, dark: bool = False) -> None:
    """The size of the page, and what the system prefers."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def wait(driver: WebDriver, script: str) -> object:
    """What a script returns, once that is something."""
    return WebDriverWait(driver, 30).until(lambda one: one.execute_script(script))


def complaints(driver: WebDriver) -> list[str]:
    """Everything that the page has written to the console since the last call, blocked content included."""
    return [entry["message"] for entry in driver.get_log("browser")]


def requests(driver: WebDriver) -> set[str]:
    """Schemes of all that was requested since the last call, but for what the page's own policy stopped."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    stopped = {event["params"]["requestId"] for event in events if event["params"].get("blockedReason") == "csp"}
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return {urlsplit(one["request"]["url"]).scheme for one in sent if one["requestId"] not in stopped}


def show(driver: WebDriver, path: Path, size: tuple[int, int] = WIDE, *, dark: bool = False) -> None:
    """Open a report, forgetting what was before, and wait until it shows an item."""
    driver.get("about:blank")
    set_screen(driver, *size, dark=dark)
    complaints(driver)
    requests(driver)
    driver.get(path.as_uri())
    wait(driver, SHOWN)


def by_id(driver: WebDriver, name: str) -> WebElement:
    return driver.find_element(By.ID, name)


def texts(driver: WebDriver, selector: str) -> list[str]:
    return [element.text for element in driver.find_elements(By.CSS_SELECTOR, selector)]
