from __future__ import annotations

import json
import os
import subprocess

import pystac_client
import pytest
import rustac
from outputs import class_map, facts_of, read_items, source_paths, write_files
from pgstac import PYTHON, pgstac_server

from stac_cloudmask.errors import WriteError
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.collection import write_geoparquet, write_ndjson
from stac_cloudmask.stac.mask_item import mask_item
from stac_cloudmask.stac.transactions import StacApi


@pytest.fixture(scope="module")
def catalog(shared, tmp_path_factory):
    """Masks of one item of every provider, some with votes and probabilities: rows that differ in their fields."""
    catalog = OutputCatalog(tmp_path_factory.mktemp("out"))
    hrefs = {}
    for number, path in enumerate(source_paths(shared)[::3]):
        source = read_items(path)[0]
        with catalog.workdir() as work:
            files = write_files(work, class_map(), everything=number % 2 == 0)
            item = mask_item(source, facts_of(source, class_map(), files))
            hrefs[item["id"]] = catalog.write_item(item, files)
    catalog.link(hrefs.values())
    return catalog


def without_nulls(value):
    """A table has a column for every field of any row."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None and k != "self"}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def parts_of(geometry):
    """A column has one kind of geometry: polygons beside a scene across the antimeridian become multipolygons."""
    return [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]


def test_every_line_is_an_item(catalog, tmp_path):
    count = write_ndjson(catalog.items(), tmp_path / "items.ndjson")
    lines = [json.loads(line) for line in (tmp_path / "items.ndjson").read_text().splitlines()]
    assert lines == list(catalog.items())
    assert count == len(lines) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["items.ndjson"]


@pytest.mark.slow
def test_pypgstac_loads_the_lines_into_a_real_database(catalog, tmp_path):
    write_ndjson(catalog.items(), tmp_path / "items.ndjson")
    items = list(catalog.items())
    with pgstac_server() as server:
        with StacApi(server.url) as api:
            for name in sorted({item["collection"] for item in items}):
                api.ensure_collection(catalog.collection(name))
        load = [PYTHON / "pypgstac", "load", "items", tmp_path / "items.ndjson", "--method", "upsert"]
        subprocess.run(load, env=os.environ | server.database, check=True, capture_output=True)
        found = {item.id for item in pystac_client.Client.open(server.url).search().items()}
    assert found == {item["id"] for item in items}


def test_a_table_gives_back_the_items(catalog, tmp_path):
    items = {item["id"]: item for item in catalog.items()}
    assert write_geoparquet(items.values(), tmp_path / "items.parquet") == len(items)
    rows = {row["id"]: row for row in rustac.read_sync(str(tmp_path / "items.parquet"))["features"]}
    assert set(rows) == set(items)
    for name, row in rows.items():
        assert without_nulls(row["assets"]) == without_nulls(items[name]["assets"])
        assert row["collection"] == items[name]["collection"]
        assert parts_of(row["geometry"]) == parts_of(items[name]["geometry"])
        for key in ("eo:cloud_cover", "stac_cloudmask:fingerprint", "proj:code", "grid:code"):
            assert row["properties"].get(key) == items[name]["properties"].get(key)


def test_empty_objects_which_a_table_cannot_hold_are_left_out_of_it(catalog, tmp_path):
    item = next(iter(catalog.items()))
    item["properties"]["x:empty"] = {"deep": {}}
    assert write_geoparquet([item], tmp_path / "items.parquet") == 1


def test_a_table_that_cannot_be_made_is_a_warning_and_the_run_goes_on(tmp_path, catalog, caplog):
    place = OutputCatalog(tmp_path)
    place.mirror(["not-there"])
    assert "no items.parquet" in caplog.text


def test_a_table_without_rows_is_an_error(tmp_path):
    with pytest.raises(WriteError, match=r"items\.parquet.*no items"):
        write_geoparquet([], tmp_path / "items.parquet")


@pytest.mark.parametrize("write", [write_ndjson, write_geoparquet])
def test_a_place_that_cannot_be_written_is_an_error_that_names_it(catalog, tmp_path, write):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file/items"):
        write(catalog.items(), tmp_path / "file" / "items.parquet")


def test_a_file_that_was_there_is_kept_when_writing_fails(tmp_path):
    (tmp_path / "items.ndjson").write_text("old")
    with pytest.raises(ValueError, match="Out of range"):
        write_ndjson([{"id": float("nan")}], tmp_path / "items.ndjson")
    assert (tmp_path / "items.ndjson").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
