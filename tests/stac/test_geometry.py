from __future__ import annotations

import json

import pytest
import shapely
from hypothesis import given, strategies as st
from rasterio.warp import transform_bounds, transform_geom
from shapely.geometry import box, mapping, shape

from stac_cloudmask.core.grid import Grid, Window
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.stac.geometry import bbox_area, bbox_of, footprint, pixels_of, read_area, wrapped
from tests.stac.vectors import write_vectors

LON_LAT = box(15, 45, 15.5, 45.5)
RING = [[179.2, -17.4], [-178.1, -17.4], [-178.1, -16.2], [179.2, -16.2], [179.2, -17.4]]
UNSPLIT = {"type": "Polygon", "coordinates": [RING]}
BEYOND = {"type": "Polygon", "coordinates": [[[-178.9, -17.4], [-178.6, -16.2], [-181.36, -15.8], [-178.9, -17.4]]]}
EUROPE = box(0, -60, 30, 60)


@given(st.floats(-360, 181), st.floats(0.01, 179))
def test_an_area_is_wrapped_to_where_it_lies_on_earth(west, width):
    area = wrapped(box(west, 0, west + width, 1))
    assert area.area == pytest.approx(width, rel=1e-6)
    assert -180 <= area.bounds[0] <= area.bounds[2] <= 180
    middle = (west + width / 2 + 180) % 360 - 180
    assert area.covers(shapely.Point(middle, 0.5))


@pytest.mark.parametrize("geometry", [UNSPLIT, BEYOND])
def test_a_footprint_at_the_antimeridian_lies_on_both_of_its_sides_and_nowhere_else(geometry):
    lies = footprint(geometry, None)
    assert lies.intersects(box(179, -20, 180, -10))
    assert lies.intersects(box(-180, -20, -178, -10))
    assert not lies.intersects(EUROPE)
    west, _, east, _ = bbox_of(lies)
    assert west > 170
    assert east < -170


def test_genuine_items_at_the_antimeridian_are_not_found_in_europe(shared):
    items = [*(shared / "data" / "items").glob("*T01W*.json")]
    assert items
    for path in items:
        body = json.loads(path.read_text())
        lies = footprint(body["geometry"], body["bbox"])
        assert not lies.intersects(EUROPE)
        assert lies.intersects(bbox_area((179, 60, -179, 75)))


@pytest.mark.parametrize("bbox", [[179.5, 0, -179.5, 1], [179.5, 0, 0, -179.5, 1, 100]])
def test_a_bbox_whose_west_is_beyond_its_east_crosses_the_antimeridian(bbox):
    assert bbox_of(footprint(None, bbox)) == [179.5, 0, -179.5, 1]


@pytest.mark.parametrize("geometry", [{"type": "Polygon"}, {"type": "Polygon", "coordinates": "x"}, 5, "x", [1]])
def test_a_geometry_that_cannot_be_read_lies_nowhere(geometry):
    assert footprint(geometry, [0, 0, 1, 1]).is_empty


@pytest.mark.parametrize("bbox", [None, [], [1, 2], "abcd", [0, 0, None, 1], {"a": 1}])
def test_a_bbox_that_cannot_be_read_lies_nowhere(bbox):
    assert footprint(None, bbox).is_empty


def forms(tmp_path):
    feature = {"type": "Feature", "properties": None, "geometry": mapping(LON_LAT)}
    west, east = box(15, 45, 15.25, 45.5), box(15.25, 45, 15.5, 45.5)
    halves = [{"type": "Feature", "properties": {}, "geometry": mapping(half)} for half in (west, east)]
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": halves}))
    return {
        "wkt": LON_LAT.wkt,
        "ewkt": f"SRID=4326;{LON_LAT.wkt}",
        "text": json.dumps(mapping(LON_LAT)),
        "dict": feature,
        "geometry": LON_LAT,
        "path": tmp_path / "area.geojson",
        "url": (tmp_path / "area.geojson").as_uri(),
    }


@pytest.mark.parametrize("form", ["wkt", "ewkt", "text", "dict", "geometry", "path", "url"])
def test_an_area_may_be_given_in_many_forms(tmp_path, form):
    assert read_area(forms(tmp_path)[form]).equals(LON_LAT)


@pytest.mark.parametrize("name", ["area.gpkg", "area.shp", "area.fgb"])
def test_an_area_in_a_vector_file_is_read_in_its_crs(tmp_path, name):
    projected = transform_geom("EPSG:4326", "EPSG:32633", mapping(LON_LAT))
    path = write_vectors(tmp_path / name, [(projected, {"class": "x"})])
    assert read_area(path).symmetric_difference(LON_LAT).area < 1e-6


def test_an_area_beyond_the_antimeridian_is_wrapped():
    assert bbox_of(read_area("POLYGON ((179 0, 181 0, 181 1, 179 1, 179 0))")) == [179, 0, -179, 1]


def test_an_area_that_crosses_itself_is_mended():
    assert read_area("POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))").is_valid


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ("POLYGON ((500000 5000000, 500100 5000000, 500100 5000100, 500000 5000000))", "not longitude and latitude"),
        ("POLYGON ((45 115, 46 115, 46 116, 45 115))", "not longitude and latitude"),
        ("POLYGON EMPTY", "empty"),
        ("POLYGON ((0 0, 1 1", "cannot be read"),
        ('{"type": "Polygon"}', "cannot be read"),
        ('{"type": "FeatureCollection", "features": []}', "empty"),
        ("{", "cannot be read"),
        ("nowhere.geojson", "there is no file"),
        ("nowhere.gpkg", "there is no file"),
    ],
)
def test_what_is_no_area_is_refused_by_name(stated, said):
    with pytest.raises(ConfigError, match=said):
        read_area(stated)


@pytest.mark.parametrize("epsg", [32633, 32619, 32601, 32660, 32733])
@pytest.mark.parametrize(
    "asked", [(-180, -90, 180, 90), (-180, 0, 180, 84), (-10, 0, 180, 78), (-180, -84, 180, 10), (-180, -60, -1, 80)]
)
def test_an_area_of_half_the_world_covers_a_tile_as_the_part_near_it_does(epsg, asked):
    top = 8_000_000 if epsg == 32733 else 5_100_000
    grid = Grid(epsg=epsg, left=300_000, top=top, gsd=120, height=915, width=915)
    west, south, east, north = transform_bounds(grid.code, "EPSG:4326", *grid.bounds)
    parts = [(west, east)] if west < east else [(west, 180), (-180, east)]
    covered = all(
        asked[0] <= left and right <= asked[2] and asked[1] <= south and north <= asked[3] for left, right in parts
    )
    found = pixels_of(bbox_area(asked), grid)
    assert (found == (Window(0, 0, 915, 915), None)) == covered


@pytest.mark.parametrize("asked", [(15.5, 45.5, 15.5, 45.5), (15.4, 45.5, 15.6, 45.5), (15.5, 45.4, 15.5, 45.6)])
def test_a_box_without_width_or_height_is_the_pixels_that_it_touches(asked):
    grid = Grid(epsg=32633, left=500_000, top=5_100_000, gsd=120, height=915, width=915)
    window, inside = pixels_of(bbox_area(asked), grid)
    touched = window.height * window.width if inside is None else inside.sum()
    assert 1 <= touched <= 400


def test_a_file_that_holds_no_area_is_refused_without_words_about_drivers(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(ConfigError) as caught:
        read_area(path)
    assert str(caught.value) == (
        f"{path}: cannot be read: '{path}' not recognized as being in a supported file format; "
        "save it again, as with QGIS or ogr2ogr"
    )


def test_a_geometry_in_another_crs_can_be_well_known_text():
    projected = shape(transform_geom("EPSG:4326", "EPSG:32633", mapping(LON_LAT)))
    assert read_area(f"SRID=32633;{projected.wkt}").symmetric_difference(LON_LAT).area < 1e-6
