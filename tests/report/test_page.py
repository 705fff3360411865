"""The report in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from stac_cloudmask.api import process
from stac_cloudmask.review.report import build_report
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item
from tests.browser import PHONE, SHOWN, WIDE, by_id, complaints, from_npm, requests, show, texts, wait
from tests.outputs import item_path
from tests.scenes import settings_of, write_model


@pytest.fixture
def opened(driver, page):
    """The report on a wide screen, its first item shown; nothing it did may have been refused."""
    show(driver, page)
    yield driver
    assert complaints(driver) == []
    assert requests(driver) <= {"file", "data"}


def numbers(driver, column):
    return [float(text) for text in texts(driver, f"tbody .of-{column} b")]


def head(driver, column):
    return driver.find_element(By.CSS_SELECTOR, f"th.of-{column}")


def choose(driver, side, value):
    Select(by_id(driver, side)).select_by_value(value)


def click_pixel(driver, row, col):
    """Click the middle of a pixel of the mask, wherever it is on the screen."""
    script = """
      const canvas = document.getElementById('stage'), box = canvas.getBoundingClientRect();
      const scale = Math.min(box.width, box.height) / arguments[0];
      return [(arguments[2] + .5 - arguments[0] / 2) * scale, (arguments[1] + .5 - arguments[0] / 2) * scale];"""
    x, y = driver.execute_script(script, 160, row, col)
    ActionChains(driver).move_to_element_with_offset(by_id(driver, "stage"), int(x), int(y)).click().perform()


def colors_of(driver, left, right):
    """How many points of each half of the stage lean to the color of cloud, (left, right)."""
    script = """
      const stage = document.getElementById('stage'), copy = document.createElement('canvas');
      [copy.width, copy.height] = [stage.width, stage.height];
      const pen = copy.getContext('2d', {willReadFrequently: true});
      const count = (from, to) => {
        const data = pen.getImageData(from, 0, to - from, copy.height - 60).data;
        let found = 0;
        for (let i = 0; i < data.length; i += 4) found += data[i] > data[i + 1] + 40 && data[i + 1] > data[i + 2] + 15;
        return found;
      };
      const next = () => new Promise(requestAnimationFrame);
      return next().then(next).then(() => {
        pen.drawImage(stage, 0, 0);
        return [count(0, copy.width / 2 - 30), count(copy.width / 2 + 30, copy.width)];
      });"""
    choose(driver, "left", left)
    choose(driver, "right", right)
    return driver.execute_script(script)


def facts(driver):
    labels, values = texts(driver, "#pixel dt"), texts(driver, "#pixel dd")
    return dict(zip(labels, values, strict=True))


def rasters(catalog, number):
    (folder,) = catalog.glob(f"*-cloudmask/*{number:06}_L2A_cloudmask")
    layers = {}
    for path in folder.glob("*.tif"):
        with rasterio.open(path) as file:
            layers[path.stem] = file.read(1)
    return layers


def test_it_opens_with_every_item_its_picture_and_its_numbers(opened, catalog):
    assert by_id(opened, "count").text == "3 items"
    wait(opened, "return [...document.querySelectorAll('tbody img')].every(img => img.naturalWidth > 50)")
    stated = json.loads(item_path(catalog, "2_L2A_cloudmask").read_text())
    row = next(row for row in texts(opened, "tbody tr") if "000002" in row.replace("\n", ""))
    assert f"{stated['properties']['eo:cloud_cover']:.1f}" in row
    assert f"{next(link for link in stated['links'] if 'eo:cloud_cover' in link)['eo:cloud_cover']:.1f}" in row


def test_it_sorts_by_every_column_both_ways(opened):
    assert head(opened, "time").get_attribute("aria-sort") == "descending"
    for column in ("cloud", "shadow"):
        head(opened, column).find_element(By.TAG_NAME, "button").click()
        assert head(opened, column).get_attribute("aria-sort") == "descending"
        assert numbers(opened, column) == sorted(numbers(opened, column), reverse=True)
        head(opened, column).find_element(By.TAG_NAME, "button").click()
        assert head(opened, column).get_attribute("aria-sort") == "ascending"
        assert numbers(opened, column) == sorted(numbers(opened, column))


def test_it_filters_by_words_dates_and_cloud(opened):
    by_id(opened, "find").send_keys("000002")
    assert by_id(opened, "count").text == "1 of 3 items"
    assert len(opened.find_elements(By.CSS_SELECTOR, "#timeline .bar")) == 1
    by_id(opened, "find").clear()
    by_id(opened, "find").send_keys("no such item")
    assert texts(opened, "tbody tr") == []
    by_id(opened, "find").clear()
    opened.find_element(By.CSS_SELECTOR, ".filters summary").click()
    clouds = sorted(numbers(opened, "cloud"))
    set_value(opened, "most", int(clouds[0]) + 1)
    assert set(numbers(opened, "cloud")) == {cloud for cloud in clouds if cloud <= int(clouds[0]) + 1}


def set_value(driver, name, value):
    script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
    driver.execute_script(script, by_id(driver, name), str(value))


def test_a_date_filter_keeps_its_last_day(opened):
    dates = sorted(
        opened.execute_script("return [...document.querySelectorAll('.of-time.unseen')].map(e => e.textContent)")
    )
    for name in ("from", "to"):
        set_value(opened, name, dates[1])
    assert by_id(opened, "count").text == "1 of 3 items"


def test_the_divider_slides_by_mouse_and_by_keyboard(opened):
    left, right = colors_of(opened, "none", "improved")
    assert left < right / 20
    split = by_id(opened, "split")
    split.send_keys(Keys.HOME)
    assert opened.execute_script("return document.getElementById('split').value") == "0"
    split.send_keys(Keys.END)
    assert colors_of(opened, "none", "improved")[1] < right / 20
    stage = by_id(opened, "stage")
    half = stage.size["width"] // 2
    drag = ActionChains(opened).move_to_element_with_offset(stage, half - 2, 0)
    drag.click_and_hold().move_by_offset(-half, 0).release().perform()
    assert abs(int(opened.execute_script("return document.getElementById('split').value")) - 500) < 20


def test_each_layer_is_shown_on_either_side(opened):
    for layer in ("improved", "product", "votes", "scl", "changes", "cloud", "shadow"):
        choose(opened, "left", layer)
        title = opened.execute_script("return document.getElementById('left').selectedOptions[0].text")
        assert by_id(opened, "chip-left").text == title


def test_a_class_can_be_switched_off_and_on(opened):
    assert colors_of(opened, "improved", "improved")[0] > 1000
    box = opened.find_element(By.CSS_SELECTOR, "#legend input[data-legend=mask][data-entry='1']")
    box.click()
    assert colors_of(opened, "improved", "improved")[0] < 50
    opened.find_element(By.CSS_SELECTOR, "#legend input[data-legend=mask][data-entry='1']").click()
    assert colors_of(opened, "improved", "improved")[0] > 1000


def test_a_click_on_a_pixel_says_what_the_published_files_say(opened, catalog):
    number = int(by_id(opened, "heading").text.replace("_L2A_cloudmask", "")[-6:])
    layers = rasters(catalog, number)
    names = {0: "Clear", 1: "Cloud", 2: "Cloud shadow", 255: "No data"}
    for code in np.unique(layers["cloud_mask"]):
        row, col = (int(value) for value in np.argwhere(layers["cloud_mask"] == code)[7])
        click_pixel(opened, row, col)
        assert opened.find_element(By.CSS_SELECTOR, "#pixel .verdict").text == names[int(code)]
        assert f"Row {row}, column {col}" in by_id(opened, "pixel").text
        votes, found = int(layers["mask_votes"][row, col]), facts(opened)
        low = int(layers["cloud_probability"][row, col]) // 5 * 5
        assert found["Cloud model"].startswith(f"{'yes' if votes & 4 else 'no'}, {low}")
        assert found["Shadow model"].startswith("yes" if votes & 8 else "no")
        assert (found["Removed"], found["Buffer added"]) == tuple("yes" if votes & bit else "no" for bit in (16, 32))


def test_a_pixel_lies_where_the_item_says(opened, catalog):
    click_pixel(opened, 80, 80)
    text = by_id(opened, "pixel").text
    with rasterio.open(next(catalog.glob("*/*/cloud_mask.tif"))) as file:
        x, y = file.xy(80, 80)
        (lon,), (lat,) = rasterio.warp.transform(file.crs, "EPSG:4326", [x], [y])
    assert f"{x:.0f}, {y:.0f}" in text
    assert f"longitude {lon:.6f}, latitude {lat:.6f}" in text
    assert "Read from the pictures in this file, where a pixel is one pixel of the mask, 10 m." in text


def test_it_zooms_and_pans_and_shows_all_again(opened):
    stage, at = (
        by_id(opened, "stage"),
        "return pixel.textContent.match(/Row (\\d+), column (\\d+)/).slice(1).map(Number)",
    )
    for _ in range(4):
        by_id(opened, "zoom-in").click()
    ActionChains(opened).move_to_element_with_offset(stage, -200, -150).click().perform()
    near = opened.execute_script(at)
    assert all(40 < value < 80 for value in near)
    ActionChains(opened).move_to_element_with_offset(stage, -100, 0).click_and_hold().move_by_offset(
        80, 60
    ).release().perform()
    ActionChains(opened).move_to_element_with_offset(stage, -200, -150).click().perform()
    assert all(after < before for after, before in zip(opened.execute_script(at), near, strict=True))
    by_id(opened, "fit").click()
    click_pixel(opened, 3, 5)
    assert opened.execute_script(at) == [3, 5]


def columns_between(driver):
    """How many columns of the mask lie between two points of the stage."""
    found = []
    for x in (-100, 100):
        ActionChains(driver).move_to_element_with_offset(by_id(driver, "stage"), x, 20).click().perform()
        found.append(int(driver.execute_script("return pixel.textContent.match(/column (\\d+)/)[1]")))
    return found[1] - found[0]


def test_it_zooms_by_wheel(opened):
    whole = columns_between(opened)
    wheel = ScrollOrigin.from_element(by_id(opened, "stage"))
    ActionChains(opened).scroll_from_origin(wheel, 0, -500).perform()
    assert columns_between(opened) == pytest.approx(whole / 2.2, abs=2)


def test_it_zooms_by_two_fingers(driver, page):
    show(driver, page, PHONE)
    driver.find_elements(By.CSS_SELECTOR, "tbody .name")[0].click()
    wait(driver, "return document.body.dataset.view === 'viewer'")
    whole = columns_between(driver)
    box = driver.execute_script("return document.getElementById('stage').getBoundingClientRect().toJSON()")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + 40
    for kind, apart in (("touchStart", 30), ("touchMove", 60), ("touchMove", 90), ("touchEnd", None)):
        fingers = [] if apart is None else [{"x": x + side * apart, "y": y, "id": side + 1} for side in (-1, 1)]
        driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    assert columns_between(driver) == pytest.approx(whole / 3, abs=2)
    assert complaints(driver) == []


def test_another_date_of_the_same_grid_is_looked_at_from_the_same_place(opened):
    by_id(opened, "zoom-in").click()
    click_pixel(opened, 70, 90)
    shown, place = opened.execute_script(SHOWN), by_id(opened, "pixel").text.partition("Row")[2].partition("The")[0]
    assert place
    by_id(opened, "timeline").send_keys(Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    wait(opened, f"return document.body.dataset.item !== '{shown}'")
    assert by_id(opened, "pixel").text.partition("Row")[2].partition("The")[0] == place


def test_everything_can_be_done_by_keyboard(opened):
    by_id(opened, "find").send_keys(Keys.TAB)
    names = opened.find_elements(By.CSS_SELECTOR, "tbody .name")
    reachable = [name for name in names if name.get_attribute("tabindex") == "0"]
    assert len(reachable) == 1
    opened.execute_script("arguments[0].focus()", reachable[0])
    reachable[0].send_keys(Keys.HOME)
    wait(opened, "return document.querySelector('tbody tr').getAttribute('aria-current')")
    opened.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    wait(opened, "return document.querySelectorAll('tbody tr')[1].getAttribute('aria-current')")
    stage = by_id(opened, "stage")
    stage.send_keys(Keys.ARROW_RIGHT)
    assert "Row 80, column 80" in by_id(opened, "pixel").text
    stage.send_keys(Keys.SHIFT, Keys.ARROW_DOWN)
    assert "Row 90, column 80" in by_id(opened, "pixel").text
    stage.send_keys(".")
    assert opened.execute_script("return document.getElementById('split').value") == "550"
    shown = opened.execute_script(SHOWN)
    by_id(opened, "timeline").send_keys(Keys.ARROW_LEFT)
    wait(opened, f"return document.body.dataset.item !== '{shown}'")


def test_what_can_be_operated_has_a_name_and_what_changes_is_announced(opened):
    nameless = """
      return [...document.querySelectorAll('button, select, input, canvas, [tabindex]')].filter(node => {
        const label = node.getAttribute('aria-label') ?? node.labels?.[0]?.textContent ?? node.textContent;
        return !label.trim();
      }).map(node => node.outerHTML)"""
    assert opened.execute_script(nameless) == []
    live = opened.execute_script("return [...document.querySelectorAll('[role=status]')].map(node => node.id)")
    assert live == ["count", "pixel"]


@pytest.mark.parametrize(("size", "dark"), [(WIDE, False), (WIDE, True), (PHONE, False)])
def test_axe_has_nothing_to_find_fault_with(driver, page, size, dark):
    show(driver, page, size, dark=dark)
    driver.execute_script(from_npm("axe-core").read_text())
    driver.execute_script("document.body.dataset.view = 'viewer'")
    by_id(driver, "stage").send_keys(Keys.ARROW_RIGHT)
    for view in ("viewer", "list"):
        driver.execute_script("document.body.dataset.view = arguments[0]", view)
        found = driver.execute_async_script("axe.run(document).then(arguments[0])")
        assert found["passes"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


def test_colors_follow_the_system_and_the_button(driver, page):
    show(driver, page, dark=True)
    paper = "return getComputedStyle(document.body).backgroundColor"
    night = driver.execute_script(paper)
    by_id(driver, "theme").click()
    day = driver.execute_script(paper)
    assert by_id(driver, "theme").get_attribute("aria-pressed") == "false"
    show(driver, page)
    assert (driver.execute_script(paper), day != night) == (day, True)


def test_on_a_phone_an_item_opens_and_closes_and_nothing_is_cut_off(driver, page):
    show(driver, page, PHONE)
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert driver.execute_script(overflow) == 0
    assert not by_id(driver, "stage").is_displayed()
    driver.find_elements(By.CSS_SELECTOR, "tbody .name")[1].click()
    wait(driver, "return document.body.dataset.view === 'viewer'")
    assert by_id(driver, "stage").is_displayed()
    assert driver.execute_script(overflow) == 0
    by_id(driver, "back").click()
    assert not by_id(driver, "stage").is_displayed()
    driver.find_elements(By.CSS_SELECTOR, "tbody .name")[0].click()
    wait(driver, "return document.body.dataset.view === 'viewer'")
    driver.back()
    wait(driver, "return document.body.dataset.view === 'list' || document.body.dataset.item")
    assert complaints(driver) == []


def test_links_lead_to_the_item_and_its_files(opened, catalog):
    links = opened.execute_script("return [...document.querySelectorAll('#links a')].map(a => a.href)")
    here = [link for link in links if link.startswith(catalog.as_uri())]
    assert {link.rpartition("/")[2] for link in here} >= {"cloud_mask.tif", "mask_votes.tif", "thumbnail.png"}
    assert opened.execute_script("return document.querySelector('#links a').getAttribute('href')").startswith(
        "simulated"
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A report of one scene that is wider than what is drawn, and its mask."""
    folder = tmp_path_factory.mktemp("large")
    source = write_simulated_item(
        folder / "source", Recipe(height=300, width=1500, bands=("blue", "green", "red", "nir"))
    )
    (result,) = process(source, out=folder / "out", settings=settings_of(write_model(folder / "model"), votes=True))
    with rasterio.open(Path(result.output).with_name("cloud_mask.tif")) as file:
        return build_report(folder / "out", folder / "r.html"), file.read(1)


def test_one_item_is_counted_in_the_singular(driver, large):
    show(driver, large[0])
    assert by_id(driver, "count").text == "1 item"
    assert re.search(r": 1 item, \d{4}-\d\d-\d\d\. Made", by_id(driver, "subtitle").text)
    assert complaints(driver) == []


def test_a_click_answers_for_one_pixel_of_a_mask_that_is_drawn_coarser(driver, large):
    page, mask = large
    show(driver, page)
    by_id(driver, "stage").send_keys(Keys.ARROW_RIGHT)
    names = ["Clear", "Cloud", "Cloud shadow"]
    seen = []
    for _ in range(6):
        driver.execute_script("document.getElementById('pixel').textContent = ''")
        by_id(driver, "stage").send_keys(Keys.SHIFT, Keys.ARROW_RIGHT)
        row, col = wait(driver, "return pixel.textContent.match(/Row (\\d+), column (\\d+)/)?.slice(1).map(Number)")
        seen.append(col)
        assert driver.find_element(By.CSS_SELECTOR, "#pixel .verdict").text == names[mask[row, col]]
    assert np.diff(seen).tolist() == [10] * 5
    assert "one pixel of the mask, 10 m" in by_id(driver, "pixel").text
    assert complaints(driver) == []


def test_the_clear_share_of_a_view_is_counted_on_every_date(opened, catalog):
    by_id(opened, "area").click()
    wait(opened, "return document.getElementById('area-text').textContent.includes('of 3 dates')")
    shares = {}
    for number in (1, 2, 3):
        counts = np.bincount(rasters(catalog, number)["cloud_mask"].ravel(), minlength=256)
        shares[number] = f"clear {100 * counts[0] / counts[:3].sum():.1f} %"
    titles = opened.execute_script("return [...document.querySelectorAll('#timeline title')].map(t => t.textContent)")
    assert [shares[number] in title for number, title in zip((1, 2, 3), sorted(titles), strict=True)] == [True] * 3
    by_id(opened, "area").click()
    assert not by_id(opened, "area-text").is_displayed()
