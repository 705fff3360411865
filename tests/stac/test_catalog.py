from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import rustac
import stackstac
from offline import Validator, no_network
from outputs import class_map, facts_of, read_items, write_files
from s3 import s3_server

from stac_cloudmask.errors import ConfigError, StacCloudmaskError, UnsupportedItemError
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.collection import MAX_LISTED
from stac_cloudmask.stac.mask_item import file_fields, mask_item
from stac_cloudmask.stac.store import WORK

STYLES = {"cloud_mask.qml", "cloud_mask.tif.aux.xml"}
odc_uses_old_shapely = pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning")


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as url:
        yield url


@pytest.fixture(params=["directory", "s3"])
def catalog(request, tmp_path):
    place = tmp_path / "out" if request.param == "directory" else f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    return OutputCatalog(place)


@pytest.fixture
def sources(shared):
    return [read_items(path)[0] for path in sorted((shared / "data" / "earth-search-33twl").glob("*/*.json"))]


def write(catalog, source, *, array=None, everything=False, **changes):
    array = class_map() if array is None else array
    offline = nullcontext() if catalog.out.startswith("s3://") else no_network()
    with offline, catalog.workdir() as work:
        files = write_files(work, array, everything=everything)
        item = mask_item(source, facts_of(source, array, files, **changes))
        return catalog.write_item(item, files)


def state(catalog, source):
    return catalog.state(f"{source.collection_id}-cloudmask", f"{source.id}_cloudmask")


def test_a_new_catalog_is_valid_and_lists_what_was_written(shared, tmp_path, sources):
    catalog = OutputCatalog(tmp_path / "out")
    catalog.link([write(catalog, source, everything=True) for source in sources])
    valid = Validator(shared / "data" / "schemas")
    with no_network():
        root = pystac.Catalog.from_file(str(tmp_path / "out" / "catalog.json"))
        valid(json.loads((tmp_path / "out" / "catalog.json").read_text()))
        (child,) = root.get_children()
        valid(json.loads((tmp_path / "out" / child.id / "collection.json").read_text()))
        items = list(root.get_items(recursive=True))
    assert sorted(item.id for item in items) == sorted(f"{source.id}_cloudmask" for source in sources)
    for item in items:
        valid(json.loads((tmp_path / "out" / child.id / item.id / f"{item.id}.json").read_text()))
        for key in ("cloud_mask", "thumbnail", "mask_votes"):
            assert item.assets[key].get_absolute_href().startswith(str(tmp_path))
    assert child.extent.spatial.bboxes[0][0] == min(source.bbox[0] if source.bbox else 99 for source in sources)


def test_the_layout_is_the_documented_one(catalog, sources):
    href = write(catalog, sources[0], everything=True)
    folder = f"{catalog.out}/earth-search-33twl-cloudmask/{sources[0].id}_cloudmask"
    assert href == f"{folder}/{sources[0].id}_cloudmask.json"
    names = set(catalog._store.sizes(f"earth-search-33twl-cloudmask/{sources[0].id}_cloudmask"))
    tifs = {"cloud_mask.tif", "cloud_probability.tif", "shadow_probability.tif", "mask_votes.tif"}
    assert names == {f"{sources[0].id}_cloudmask.json", "thumbnail.png", *STYLES, *tifs}


@odc_uses_old_shapely
def test_both_readers_load_the_mask_exactly_from_the_item(tmp_path, sources):
    catalog = OutputCatalog(tmp_path / "out")
    array = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (130, 170))
    href = write(catalog, sources[0], array=array)
    catalog.link([href])
    with no_network():
        item = pystac.Item.from_file(href)
        by_odc = odc.stac.load([item], bands=["cloud_mask"])["cloud_mask"]
        item.make_asset_hrefs_absolute()
        by_stackstac = stackstac.stack(
            [item.to_dict()],
            assets=["cloud_mask"],
            epsg=32633,
            resolution=20,
            bounds=item.properties["proj:bbox"],
            snap_bounds=False,
            dtype="uint8",
            fill_value=np.uint8(255),
            rescale=False,
        )
    assert by_odc.dtype == by_stackstac.dtype == np.uint8
    np.testing.assert_array_equal(by_odc.values[0], array)
    np.testing.assert_array_equal(by_stackstac.values[0, 0], array)


@odc_uses_old_shapely
def test_bands_and_mask_load_from_one_item(tmp_path, shared):
    source = read_items(shared / "data" / "bolzano-2022" / "bolzano_20220612" / "bolzano_20220612.json")[0]
    with rasterio.open(source.assets["red"].get_absolute_href()) as red:
        expected = red.read(1)
    catalog = OutputCatalog(tmp_path / "out")
    href = write(catalog, source)
    catalog.link([href])
    with no_network():
        loaded = odc.stac.load([pystac.Item.from_file(href)], bands=["red"])["red"]
    assert loaded.dtype == np.uint16
    np.testing.assert_array_equal(loaded.values[0], expected)


def test_state_is_the_fingerprint_of_what_is_whole(catalog, sources):
    assert state(catalog, sources[0]) is None
    write(catalog, sources[0])
    assert state(catalog, sources[0]) == "0123456789abcdef"
    assert state(catalog, sources[1]) is None


@pytest.mark.parametrize("loss", ["missing", "truncated", "item is no json", "item is other json"])
def test_damage_is_noticed_and_writing_again_repairs_it(tmp_path, sources, loss):
    catalog = OutputCatalog(tmp_path)
    folder = tmp_path / "earth-search-33twl-cloudmask" / f"{sources[0].id}_cloudmask"
    write(catalog, sources[0])
    if loss == "missing":
        (folder / "cloud_mask.tif").unlink()
    elif loss == "truncated":
        os.truncate(folder / "thumbnail.png", 10)
    else:
        (folder / f"{folder.name}.json").write_text("{" if loss == "item is no json" else "{}")
    assert state(catalog, sources[0]) is None
    write(catalog, sources[0])
    assert state(catalog, sources[0]) == "0123456789abcdef"


def test_files_that_an_item_has_no_more_are_removed(catalog, sources):
    write(catalog, sources[0], everything=True)
    write(catalog, sources[0], everything=False)
    names = set(catalog._store.sizes(f"earth-search-33twl-cloudmask/{sources[0].id}_cloudmask"))
    assert names == {f"{sources[0].id}_cloudmask.json", "thumbnail.png", "cloud_mask.tif", *STYLES}


def test_linking_again_changes_nothing(catalog, sources):
    hrefs = [write(catalog, source) for source in sources[:2]]
    catalog.link(hrefs)
    before = catalog.collection("earth-search-33twl-cloudmask")
    catalog.link(reversed(hrefs))
    assert catalog.collection("earth-search-33twl-cloudmask") == before
    assert sum(link["rel"] == "item" for link in before["links"]) == 2


def test_an_item_that_is_not_whole_is_not_listed(tmp_path, sources, caplog):
    catalog = OutputCatalog(tmp_path)
    hrefs = [write(catalog, source) for source in sources[:2]]
    (tmp_path / "earth-search-33twl-cloudmask" / f"{sources[0].id}_cloudmask" / "cloud_mask.tif").unlink()
    catalog.link(hrefs)
    listed = [
        link["href"] for link in catalog.collection("earth-search-33twl-cloudmask")["links"] if link["rel"] == "item"
    ]
    assert listed == [f"./{sources[1].id}_cloudmask/{sources[1].id}_cloudmask.json"]
    assert "is incomplete or is another item" in caplog.text


def test_only_items_of_the_catalog_can_be_linked(catalog):
    for href in ("/etc/passwd", f"{catalog.out}/a/b/c.json", f"{catalog.out}/a/b.json"):
        with pytest.raises(StacCloudmaskError, match=r"not an item of|cannot be part of a path"):
            catalog.link([href])


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", ".."])
def test_ids_never_become_paths_unchecked(tmp_path, name):
    catalog = OutputCatalog(tmp_path)
    for ids in ((name, "item"), ("collection", name)):
        with pytest.raises(UnsupportedItemError):
            catalog.state(*ids)
        with pytest.raises(UnsupportedItemError):
            catalog.href(*ids)


def test_items_come_back_with_absolute_hrefs(catalog, sources):
    hrefs = [write(catalog, source) for source in sources[:2]]
    catalog.link(hrefs)
    bodies = list(catalog.items())
    assert sorted(link["href"] for body in bodies for link in body["links"] if link["rel"] == "self") == sorted(hrefs)
    for body in bodies:
        folder = f"{catalog.out}/{body['collection']}/{body['id']}"
        assert body["assets"]["cloud_mask"]["href"] == f"{folder}/cloud_mask.tif"


def test_reports_are_written_at_the_root(catalog):
    catalog.write_json("run.json", {"items": []})
    assert catalog._store.read_json("run.json") == {"items": []}
    with pytest.raises(UnsupportedItemError):
        catalog.write_json("../run.json", {})


WRITER = """
import json, sys, warnings
from pathlib import Path
from outputs import CREATED, class_map, facts_of
import pystac
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.mask_item import mask_item

out, source, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
catalog = OutputCatalog(out)
item = pystac.Item.from_dict(json.loads(Path(source).read_text()), migrate=False)
item.set_self_href(source)
print("ready", flush=True)
for number in range(first, first + count):
    item.id = f"scene-{number}"
    collection, identifier = f"{item.collection_id}-cloudmask", f"{item.id}_cloudmask"
    if catalog.state(collection, identifier) is None:
        with catalog.workdir() as work:
            files = {"cloud_mask": work / "cloud_mask.tif", "thumbnail": work / "thumbnail.png"}
            for key, path in files.items():
                path.write_bytes(key.encode() * (1000 + number))
            catalog.write_item(mask_item(item, facts_of(item, class_map(), files)), files)
    catalog.link([catalog.href(collection, identifier)])
"""


@contextmanager
def writer(shared, out, first, count):
    source = shared / "data" / "bolzano-2022" / "bolzano_20220612" / "bolzano_20220612.json"
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", WRITER, str(out), str(source), str(first), str(count)]
    path = os.pathsep.join(map(str, (tests, tests.parent)))
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})
    with running:
        assert running.stdout.readline() == "ready\n"
        yield running


def listed_items(out):
    """Ids that the catalog lists, after a look at every one: it is there, and its files are as it says."""
    root = out / "bolzano-2022-cloudmask"
    if not (root / "collection.json").exists():
        return set()
    collection = json.loads((root / "collection.json").read_text())
    hrefs = [link["href"] for link in collection["links"] if link["rel"] == "item"]
    for href in hrefs:
        body = json.loads((root / href).read_text())
        for asset in body["assets"].values():
            if asset["href"].startswith("./"):
                assert file_fields((root / href).parent / asset["href"]).items() <= asset.items()
    assert len(hrefs) == len(set(hrefs))
    return {href.split("/")[1] for href in hrefs}


def test_two_runs_at_once_keep_each_others_items(shared, tmp_path):
    with writer(shared, tmp_path / "out", 0, 20) as one, writer(shared, tmp_path / "out", 15, 20) as other:
        assert [one.wait(timeout=60), other.wait(timeout=60)] == [0, 0]
    assert listed_items(tmp_path / "out") == {f"scene-{n}_cloudmask" for n in range(35)}
    assert list((tmp_path / "out" / WORK).glob("run-*")) == []


def test_a_run_killed_at_any_moment_leaves_a_whole_catalog_that_the_next_completes(shared, tmp_path):
    out, count = tmp_path / "out", 12
    for delay in (0.0, 0.01, 0.02, 0.04, 0.07):
        with writer(shared, out, 0, count) as run:
            time.sleep(delay)
            run.send_signal(signal.SIGKILL)
        listed_items(out)
    with writer(shared, out, 0, count) as run:
        assert run.wait(timeout=60) == 0
    assert listed_items(out) == {f"scene-{n}_cloudmask" for n in range(count)}
    assert list((out / WORK).glob("run-*")) == []


def test_a_catalog_of_scenes_is_not_taken_for_one_of_masks(shared):
    with pytest.raises(ConfigError, match="not a catalog that `process --out` wrote"):
        next(OutputCatalog(shared / "data").items())


@pytest.mark.slow
def test_a_collection_of_many_items_stays_small_and_all_are_found(tmp_path, shared, sources):
    catalog = OutputCatalog(tmp_path)
    href = write(catalog, sources[0])
    body = json.loads(Path(href).read_text())
    hrefs = []
    for number in range(2 * MAX_LISTED + 5):
        name = f"scene-{number}_cloudmask"
        folder = Path(href).parents[1] / name
        folder.mkdir()
        for path in Path(href).parent.iterdir():
            if path.suffix != ".json":
                (folder / path.name).hardlink_to(path)
        (folder / f"{name}.json").write_text(json.dumps(body | {"id": name}))
        hrefs.append(str(folder / f"{name}.json"))
    for half in (hrefs[: MAX_LISTED + 3], hrefs[MAX_LISTED:]):  # some of them twice
        catalog.link(half)
    catalog.mirror(["earth-search-33twl-cloudmask"])
    collection = Path(href).parents[1] / "collection.json"
    valid = Validator(shared / "data" / "schemas")
    pages = list(collection.parent.glob("items-*.json"))
    assert {path.name for path in pages} == {"items-2.json", "items-3.json"}
    for path in (collection, *pages):
        valid(json.loads(path.read_text()))
        assert path.stat().st_size < 400_000
    assert len(list(catalog.listed())) == len(hrefs)
    with no_network():
        root = pystac.Catalog.from_file(str(tmp_path / "catalog.json"))
        assert {item.id for item in root.get_items(recursive=True)} == {Path(path).stem for path in hrefs}
    table = rustac.read_sync(str(collection.parent / "items.parquet"))["features"]
    assert len(table) == len(hrefs)
    assert table[0]["assets"]["cloud_mask"]["href"] == f"./{table[0]['id']}/cloud_mask.tif"
    assert json.loads(collection.read_text())["assets"]["items"]["href"] == "./items.parquet"
