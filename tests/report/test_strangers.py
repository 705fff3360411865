"""Reports of catalogs that others made, or that are large, in a real browser."""

from __future__ import annotations

import json
import shutil

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from stac_cloudmask.review.report import build_report, script_json
from tests.browser import by_id, complaints, requests, show, texts, wait
from tests.outputs import item_path

HOSTILE = "</script><script>window.hit=1</script><img src=x onerror=window.hit=1>"


@pytest.fixture
def hostile(catalog, tmp_path):
    """A catalog that somebody else made, with markup and scripts wherever there is text."""
    out = tmp_path / "out"
    shutil.copytree(catalog, out)
    path = item_path(out, "2_L2A_cloudmask")
    body = json.loads(path.read_text())
    source = next(link for link in body["links"] if link["rel"] == "derived_from" and "mlm:name" not in link)
    source["title"] = f"Source item {HOSTILE}"
    body["properties"] |= {"platform": HOSTILE, "processing:lineage": HOSTILE, "datetime": f"2023-01-01{HOSTILE}"}
    body["links"].append({"rel": "derived_from", "href": "javascript:window.hit=1", "title": HOSTILE})
    body["assets"]["evil"] = {"href": "data:text/html,<script>window.hit=1</script>", "title": HOSTILE}
    body["assets"]["worse"] = {"href": " \tjava\nscript:window.hit=1", "title": "worse"}
    body["assets"]["web"] = {"href": "https://user:secret@example.org/a?sig=secret", "title": "web"}
    path.write_text(json.dumps(body))
    return build_report(out, tmp_path / "hostile.html")


def test_hostile_titles_and_hrefs_are_shown_as_text_and_lead_nowhere(driver, hostile):
    show(driver, hostile)
    row = "[...document.querySelectorAll('tbody tr')].find(one => one.textContent.includes('script'))"
    assert HOSTILE in driver.execute_script(f"return {row}.textContent")
    driver.execute_script(f"{row}.querySelector('.name').click()")
    wait(driver, "return document.getElementById('facts').textContent.includes('script')")
    hrefs = driver.execute_script("return [...document.querySelectorAll('#links a')].map(a => a.href)")
    assert {href.partition(":")[0] for href in hrefs} <= {"file", "https"}
    assert "secret" not in hostile.read_text()
    assert driver.execute_script("return window.hit === undefined && document.images.length") == 3
    assert driver.execute_script("return document.scripts.length") == 1 + len(texts(driver, "tbody tr")) + 1
    assert complaints(driver) == []
    assert requests(driver) <= {"file", "data"}


def test_the_policy_stops_what_should_get_in_all_the_same(driver, page, tmp_path):
    broken = tmp_path / "broken.html"
    text = page.read_text().replace(
        "</main>", "</main><script>window.hit=1</script><img src='https://example.org/x.png'>"
    )
    broken.write_text(text)
    show(driver, broken)
    assert driver.execute_script("return window.hit === undefined")
    said = complaints(driver)
    assert sum("Content Security Policy" in line for line in said) == 2
    assert requests(driver) <= {"file", "data"}


@pytest.mark.slow
def test_five_hundred_items_stay_small_and_usable(driver, catalog, tmp_path):
    out = many(catalog, tmp_path / "out", 500)
    path = build_report(out, tmp_path / "many.html")
    assert path.stat().st_size < 500 * 100_000
    show(driver, path)
    assert by_id(driver, "count").text == "500 items"
    loaded = "return [...document.querySelectorAll('tbody img')].filter(img => img.src).length"
    assert driver.execute_script(loaded) < 60
    by_id(driver, "find").send_keys("item-0123")
    assert by_id(driver, "count").text == "1 of 500 items"
    driver.find_element(By.CSS_SELECTOR, "tbody .name").click()
    wait(driver, "return document.getElementById('heading').textContent === 'item-0123_cloudmask'")
    by_id(driver, "find").clear()
    by_id(driver, "find").send_keys(" ")
    driver.find_element(By.CSS_SELECTOR, "tbody .name").send_keys(Keys.END)
    wait(driver, "return document.querySelector('tbody tr:last-child').getAttribute('aria-current')")
    wait(driver, "return document.querySelector('tbody tr:last-child img').src")
    assert complaints(driver) == []


def many(catalog, out, count):
    """A catalog of so many items that all show the pixels of one."""
    source = item_path(catalog, "1_L2A_cloudmask")
    body = json.loads(source.read_text())
    mask = {**body["assets"]["cloud_mask"], "href": str(source.with_name("cloud_mask.tif"))}
    folder = out / "many"
    folder.mkdir(parents=True)
    links = []
    for number in range(count):
        name = f"item-{number:04}_cloudmask"
        when = f"20{10 + number // 50}-{number % 12 + 1:02}-{number % 28 + 1:02}T10:00:00Z"
        properties = body["properties"] | {"datetime": when, "eo:cloud_cover": number % 101}
        item = body | {"id": name, "collection": "many", "properties": properties, "assets": {"cloud_mask": mask}}
        (folder / name).mkdir()
        (folder / name / f"{name}.json").write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./{name}/{name}.json"})
    (folder / "collection.json").write_text(json.dumps({"links": links}))
    (out / "catalog.json").write_text(json.dumps({"links": [{"rel": "child", "href": "./many/collection.json"}]}))
    return out


def test_data_in_a_script_element_cannot_end_it():
    value = {"a": "</script><!--<script>&amp;\u2028"}
    text = script_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value
