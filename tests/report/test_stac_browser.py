"""The output in STAC Browser as it is, in a real browser."""

from __future__ import annotations

import json
import shutil

import pytest
from selenium.webdriver.common.by import By

from stac_cloudmask.config import Settings
from stac_cloudmask.pipeline.run import run
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item
from stac_cloudmask.stac.search import load_items
from tests.browser import WIDE, complaints, from_npm, set_screen, wait
from tests.outputs import item_path
from tests.stac.range_server import serve

BASE_MAP = "tile.openstreetmap.org"
"""All that STAC Browser asks of others; it is not to be had here."""

PICTURE = "return [...document.images].some(image => /thumbnail.png$/.test(image.src) && image.naturalWidth > 100)"
"""Whether a thumbnail of ours is shown."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """STAC Browser, a scene and the mask of that scene on one server, as somebody would publish them."""
    root = shutil.copytree(from_npm("stac-browser"), tmp_path_factory.mktemp("site") / "root")
    (root / "favicon.ico").touch()
    recipe = Recipe(height=160, width=160, seed=3, bands=("blue", "green", "red", "nir"))
    source = write_simulated_item(root / "source", recipe)
    with serve(root) as site:
        settings = Settings(votes=True, probabilities=True, threads=1)
        items = load_items([f"{site.url}/{source.relative_to(root)}"])
        assert [result.error for result in run(items, settings=settings, out=str(root / "masks"))] == [None]
        start = {"catalogUrl": f"{site.url}/masks/catalog.json", "displayOverview": False}
        (root / "config.js").write_text(f"window.STAC_BROWSER_CONFIG = {json.dumps(start)}")
        yield site


@pytest.fixture
def visit(driver, site):
    """Open the page of a STAC document of the output, and wait for its title; nothing of ours may have failed."""

    def opened(document, path=""):
        driver.get(f"{site.url}/index.html#/{path}")
        wait(driver, f"return document.querySelector('h1')?.textContent.includes({json.dumps(title(document))})")

    set_screen(driver, *WIDE)
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": [f"*://{BASE_MAP}/*"]})
    complaints(driver)
    yield opened
    failed = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    assert [message for message in failed if BASE_MAP not in message] == []


def title(document):
    return document.get("title") or document["properties"]["title"]


def read(site, path):
    return json.loads((site.root / "masks" / path).read_text())


def test_the_catalog_leads_to_its_collection(driver, site, visit):
    catalog = read(site, "catalog.json")
    visit(catalog)
    (child,) = [link["href"] for link in catalog["links"] if link["rel"] == "child"]
    collection = read(site, child)
    wait(driver, f"return [...document.querySelectorAll('a')].some(a => a.textContent.includes('{title(collection)}'))")


def test_the_collection_shows_the_picture_of_its_item(driver, site, visit):
    path = item_path(site.root / "masks", "L2A_cloudmask").parents[1].relative_to(site.root / "masks")
    visit(read(site, path / "collection.json"), f"{path}/collection.json")
    wait(driver, PICTURE)


def test_the_item_shows_its_assets_its_classes_and_its_picture(driver, site, visit):
    path = item_path(site.root / "masks", "L2A_cloudmask").relative_to(site.root / "masks")
    item = read(site, path)
    visit(item, path)
    driver.find_element(By.XPATH, "//*[normalize-space()='Thumbnails' and not(*)]").click()
    wait(driver, PICTURE)
    titles = {asset.get("title", key) for key, asset in item["assets"].items() if key != "thumbnail"}
    heads = {head.text.partition("\n")[0]: head for head in driver.find_elements(By.CSS_SELECTOR, ".assets button")}
    assert titles <= set(heads)
    mask = item["assets"]["cloud_mask"]
    heads[mask["title"]].click()
    described = [one["description"] for one in mask["classification:classes"]]
    wait(
        driver,
        f"return {json.dumps(described)}.every(text => document.querySelector('.assets').innerText.includes(text))",
    )
