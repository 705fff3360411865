from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.warp import transform_geom

from stac_cloudmask.core.grid import Grid
from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskWarning
from stac_cloudmask.stac.warp import Meaning, is_vector, read_labels
from tests.stac.vectors import write_vectors

GRID = Grid(epsg=32633, left=600000, top=5000040, gsd=10, height=30, width=40)
OWN = Meaning(values={"0": 0, "1": 1, "2": 2, "255": 255})
NAMED = Meaning(values={"clear": 0, "cloud": 1, "shadow": 2, "1": 1})


def write_raster(path, array, grid, *, nodata=None, crs="EPSG:32633"):
    with rasterio.open(
        path, "w", driver="GTiff", count=1, dtype=array.dtype, nodata=nodata, crs=crs,
        height=array.shape[0], width=array.shape[1], transform=rasterio.Affine(*grid.transform),
    ) as raster:  # fmt: skip
        raster.write(array, 1)
    return str(path)


def pattern(shape=GRID.shape):
    return np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), shape)


def polygon(rows, cols):
    """A polygon over whole pixels of the grid, in its CRS."""
    left, right = GRID.left + cols[0] * GRID.gsd, GRID.left + cols[1] * GRID.gsd
    top, bottom = GRID.top - rows[0] * GRID.gsd, GRID.top - rows[1] * GRID.gsd
    return shapely.geometry.mapping(shapely.box(left, bottom, right, top))


def point(row, col):
    return {"type": "Point", "coordinates": (GRID.left + (col + 0.5) * GRID.gsd, GRID.top - (row + 0.5) * GRID.gsd)}


def geojson(path, features, **members):
    crs = members.pop("to", "EPSG:4326")
    moved = [transform_geom(GRID.code, crs, g) if g and g["coordinates"] else g for g, _ in features]
    listed = [{"type": "Feature", "geometry": g, "properties": p} for g, (_, p) in zip(moved, features, strict=True)]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": listed, **members}))
    return path


def test_a_raster_on_the_same_grid_is_read_as_it_is(tmp_path):
    href = write_raster(tmp_path / "labels.tif", pattern(), GRID)
    np.testing.assert_array_equal(read_labels(href, GRID, OWN), pattern())


def test_a_coarser_raster_is_repeated(tmp_path):
    coarse = GRID.coarsen(2)
    href = write_raster(tmp_path / "labels.tif", pattern(coarse.shape), coarse)
    expected = pattern(coarse.shape).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(read_labels(href, GRID, OWN), expected)


def test_a_raster_in_another_crs_has_its_labels_in_place(tmp_path):
    lon_lat = transform_geom(GRID.code, "EPSG:4326", polygon((0, 30), (0, 40)))["coordinates"][0]
    west, south = np.min(lon_lat, axis=0)
    east, north = np.max(lon_lat, axis=0)
    labels = np.zeros((400, 400), np.uint8)
    labels[:, :200] = 1
    transform = rasterio.transform.from_bounds(west, south, east, north, 400, 400)
    with rasterio.open(
        tmp_path / "labels.tif", "w", driver="GTiff", count=1, dtype="uint8", height=400, width=400, crs="EPSG:4326",
        transform=transform,
    ) as raster:  # fmt: skip
        raster.write(labels, 1)
    found = read_labels(str(tmp_path / "labels.tif"), GRID, OWN)
    assert np.all(found[3:-3, 3:17] == 1)
    assert np.all(found[3:-3, 23:-3] == 0)


@pytest.mark.parametrize("nodata", [None, 9])
def test_outside_of_the_raster_there_is_no_label(tmp_path, nodata):
    href = write_raster(tmp_path / "labels.tif", np.ones((10, 10), np.uint8), GRID, nodata=nodata)
    found = read_labels(href, GRID, OWN)
    assert np.all(found[:10, :10] == 1)
    assert np.count_nonzero(found != 255) == 100


def test_nodata_of_the_raster_is_no_label(tmp_path):
    labels = np.zeros(GRID.shape, np.int16)
    labels[5] = -9999
    href = write_raster(tmp_path / "labels.tif", labels, GRID, nodata=-9999)
    np.testing.assert_array_equal(read_labels(href, GRID, OWN) == 255, labels == -9999)


def test_values_mean_what_the_caller_says(tmp_path):
    labels = np.tile(np.array([10, 20, 30, 40], np.float32), (30, 10))
    href = write_raster(tmp_path / "labels.tif", labels, GRID)
    found = read_labels(href, GRID, Meaning(values={"20": 1, "30": 2, "40.0": 255}, otherwise=0))
    assert found[0, :4].tolist() == [0, 1, 2, 255]


def test_a_value_without_meaning_is_an_error(tmp_path):
    href = write_raster(tmp_path / "labels.tif", np.full(GRID.shape, 7, np.uint8), GRID)
    with pytest.raises(ConfigError, match=r"value 7 has no meaning; known are 0, 1, 2, 255"):
        read_labels(href, GRID, OWN)


def test_a_raster_without_crs_is_an_error(tmp_path):
    href = write_raster(tmp_path / "labels.tif", pattern(), GRID, crs=None)
    with pytest.raises(ConfigError, match="has no CRS"):
        read_labels(href, GRID, OWN)


def test_a_file_that_is_no_raster_is_an_error(tmp_path):
    (tmp_path / "labels.tif").write_text("no raster")
    with pytest.raises(ReadError, match="not an image"):
        read_labels(str(tmp_path / "labels.tif"), GRID, OWN)


def test_vectors_are_told_by_their_name():
    assert all(map(is_vector, ["a/labels.GPKG", "labels.shp", "labels.fgb", "labels.geojson"]))
    assert not is_vector("labels.tif")


def test_a_name_among_numbers_means_nothing_to_a_raster(tmp_path):
    href = write_raster(tmp_path / "labels.tif", np.ones(GRID.shape, np.uint8), GRID)
    assert np.all(read_labels(href, GRID, NAMED) == 1)


def test_a_raster_of_several_strips_is_read_without_a_seam(tmp_path):
    tall = Grid(epsg=32633, left=600000, top=5100040, gsd=10, height=2500, width=3)
    href = write_raster(tmp_path / "labels.tif", pattern(tall.shape), tall)
    np.testing.assert_array_equal(read_labels(href, tall, OWN), pattern(tall.shape))


FEATURES = [
    (polygon((2, 8), (3, 20)), {"class": "cloud"}),
    (polygon((5, 10), (15, 30)), {"class": "Shadow"}),
    (point(25, 35), {"class": "clear"}),
    (None, {"class": "cloud"}),
    ({"type": "Polygon", "coordinates": []}, {"class": "cloud"}),
]


def expected_labels():
    labels = np.full(GRID.shape, 255, np.uint8)
    labels[2:8, 3:20] = 1
    labels[5:10, 15:30] = 2
    labels[25, 35] = 0
    return labels


def test_geojson_in_degrees_lands_on_the_right_pixels(tmp_path):
    path = geojson(tmp_path / "labels.geojson", FEATURES)
    np.testing.assert_array_equal(read_labels(str(path), GRID, NAMED), expected_labels())


def test_geojson_may_name_its_crs_as_it_did_in_2008(tmp_path):
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path = geojson(tmp_path / "labels.geojson", FEATURES, to="EPSG:32633", crs=crs)
    np.testing.assert_array_equal(read_labels(str(path), GRID, NAMED), expected_labels())


CUSTOM = (
    'PROJCS["My own zone",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",15],PARAMETER["scale_factor",0.9996],'
    'PARAMETER["false_easting",500000],PARAMETER["false_northing",0],UNIT["meter",1]]'
)
POLYGONS = [FEATURES[0], FEATURES[1]]


@pytest.mark.parametrize("name", ["labels.gpkg", "labels.fgb"])
@pytest.mark.parametrize("crs", ["EPSG:32633", CUSTOM])
def test_vector_files_land_on_the_right_pixels_whatever_their_format_and_crs(tmp_path, name, crs):
    path = write_vectors(tmp_path / name, FEATURES[:3], crs=crs, SPATIAL_INDEX="NO")
    np.testing.assert_array_equal(read_labels(str(path), GRID, NAMED), expected_labels())


def test_a_shapefile_lands_on_the_right_pixels(tmp_path):
    path = write_vectors(tmp_path / "labels.shp", POLYGONS)
    found = read_labels(str(path), GRID, NAMED)
    assert np.all(found[5:10, 15:30] == 2)
    assert np.all(found[2:8, 3:15] == 1)


def test_all_layers_of_a_geopackage_are_labels(tmp_path):
    for (_, properties), feature in zip(FEATURES[:2], FEATURES[:2], strict=True):
        write_vectors(tmp_path / "labels.gpkg", [feature], layer=properties["class"])
    found = read_labels(str(tmp_path / "labels.gpkg"), GRID, NAMED)
    assert set(np.unique(found)) == {1, 2, 255}


@pytest.mark.parametrize("srs", [None, -1, 0])
def test_a_layer_without_a_crs_is_refused_with_what_helps(tmp_path, srs):
    path = write_vectors(tmp_path / "labels.gpkg", POLYGONS, crs=None)
    if srs is not None:
        with closing(sqlite3.connect(path)) as db, db:
            for table in ("gpkg_geometry_columns", "gpkg_contents"):
                db.execute(f"UPDATE {table} SET srs_id = {srs}")  # noqa: S608
    with pytest.raises(ConfigError, match=r"layer 'labels' has no CRS; set it"):
        read_labels(str(path), GRID, NAMED)


def test_projected_coordinates_in_geojson_without_a_crs_are_refused_with_what_helps(tmp_path):
    path = geojson(tmp_path / "labels.geojson", FEATURES[:2], to="EPSG:32633")
    with pytest.raises(ConfigError, match=r"are not longitude and latitude in degrees.*GeoPackage"):
        read_labels(str(path), GRID, NAMED)


def test_a_geopackage_without_its_table_of_contents_is_read_all_the_same(tmp_path):
    path = write_vectors(tmp_path / "labels.gpkg", FEATURES)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE gpkg_contents")
    before = path.read_bytes()
    np.testing.assert_array_equal(read_labels(str(path), GRID, NAMED), expected_labels())
    assert path.read_bytes() == before


LINKED = {"href": "http://spatialreference.org/ref/epsg/32633/proj4/", "type": "proj4"}


@pytest.mark.parametrize("properties", [{"name": "EPSG:32633"}, {"name": "urn:ogc:def:crs:EPSG:8.5:32633"}, LINKED])
def test_geojson_may_name_its_crs_in_other_ways(tmp_path, properties):
    crs = {"type": "link" if "href" in properties else "name", "properties": properties}
    path = geojson(tmp_path / "labels.geojson", FEATURES, to="EPSG:32633", crs=crs)
    np.testing.assert_array_equal(read_labels(str(path), GRID, NAMED), expected_labels())


def test_a_crs_of_geojson_that_nobody_knows_is_not_taken_for_degrees(tmp_path):
    crs = {"type": "name", "properties": {"name": "my grid"}}
    path = geojson(tmp_path / "labels.geojson", FEATURES, crs=crs)
    with pytest.raises(ConfigError, match="my grid"):
        read_labels(str(path), GRID, NAMED)


def test_a_bare_geometry_has_no_class(tmp_path):
    path = tmp_path / "bare.geojson"
    path.write_text(json.dumps(transform_geom(GRID.code, "EPSG:4326", polygon((0, 9), (0, 9)))))
    with pytest.raises(ConfigError, match=r"no class that is known: 'class' is None, of its properties \(none\)"):
        read_labels(str(path), GRID, NAMED)


@pytest.mark.parametrize("value", ["Thick Cloud", "thick-cloud", " thick_cloud "])
def test_class_words_may_have_blanks_and_dashes(tmp_path, value):
    path = geojson(tmp_path / "labels.geojson", [(point(1, 1), {"class": value})])
    assert read_labels(str(path), GRID, Meaning(values={"thick_cloud": 1}))[1, 1] == 1
    assert read_labels(str(path), GRID, Meaning(values={"thick cloud": 1}))[1, 1] == 1


def test_a_code_may_be_a_float(tmp_path):
    path = geojson(tmp_path / "labels.geojson", [(point(1, 1), {"class": 2.0})])
    assert read_labels(str(path), GRID, OWN)[1, 1] == 2


@pytest.mark.parametrize("bands", [2, 3])
def test_a_label_raster_of_several_bands_is_refused(tmp_path, bands):
    with rasterio.open(
        tmp_path / "labels.tif", "w", driver="GTiff", count=bands, dtype="uint8", crs=GRID.code, height=30, width=40,
        transform=rasterio.Affine(*GRID.transform),
    ) as raster:  # fmt: skip
        raster.write(np.ones((bands, 30, 40), np.uint8))
    with pytest.raises(ConfigError, match=f"has {bands} bands; one is needed"):
        read_labels(str(tmp_path / "labels.tif"), GRID, OWN)


def test_a_nodata_tag_that_is_a_class_is_noted(tmp_path):
    href = write_raster(tmp_path / "labels.tif", pattern(), GRID, nodata=0)
    with pytest.warns(StacCloudmaskWarning, match="nodata of the label raster is 0, which means clear"):
        found = read_labels(href, GRID, OWN)
    np.testing.assert_array_equal(found, np.where(pattern() == 0, 255, pattern()))


def test_a_single_feature_is_a_label_file_too(tmp_path):
    geometry = transform_geom(GRID.code, "EPSG:4326", point(4, 5))
    path = tmp_path / "one.geojson"
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {"class": 1}}))
    found = read_labels(str(path), GRID, NAMED)
    assert found[4, 5] == 1
    assert np.count_nonzero(found != 255) == 1


def test_another_property_can_hold_the_class(tmp_path):
    path = geojson(tmp_path / "labels.geojson", [(point(1, 1), {"kind": "cloud"})])
    assert read_labels(str(path), GRID, NAMED, field="kind")[1, 1] == 1


def test_classes_that_are_not_listed_can_have_a_meaning(tmp_path):
    path = geojson(tmp_path / "labels.geojson", [(point(1, 1), {"class": "barn"})])
    assert read_labels(str(path), GRID, Meaning(values={"haze": 1}, otherwise=0))[1, 1] == 0


@pytest.mark.parametrize("properties", [{"class": "barn"}, {"class": None}, {"kind": "cloud"}, {}])
def test_a_feature_without_a_known_class_is_an_error(tmp_path, properties):
    path = geojson(tmp_path / "labels.geojson", [(point(1, 1), properties)])
    with pytest.raises(ConfigError, match="no class that is known"):
        read_labels(str(path), GRID, NAMED)


def test_a_file_without_features_labels_nothing(tmp_path):
    assert np.all(read_labels(str(geojson(tmp_path / "labels.geojson", [])), GRID, NAMED) == 255)


@pytest.mark.parametrize("name", ["labels.geojson", "labels.gpkg"])
@pytest.mark.parametrize("content", ["nonsense", "[]", '{"type": "FeatureCollection"}', ""])
def test_a_damaged_vector_is_an_error_that_names_it(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ReadError, match=name):
        read_labels(str(tmp_path / name), GRID, NAMED)


def test_a_vector_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ReadError, match=r"gone\.gpkg"):
        read_labels(str(tmp_path / "gone.gpkg"), GRID, NAMED)


def test_labels_nested_without_end_are_refused_by_name(tmp_path):
    path = tmp_path / "labels.geojson"
    path.write_text('{"a":' * 100_000)
    with pytest.raises(ReadError, match="cannot be read"):
        read_labels(str(path), GRID, NAMED)


def test_a_geometry_of_no_kind_is_refused_by_name(tmp_path):
    path = tmp_path / "labels.geojson"
    geometry = {"type": "Pnint", "coordinates": [12.4, 45.1]}
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {"class": "cloud"}}))
    with pytest.raises(ReadError, match="Unknown geometry type"):
        read_labels(str(path), GRID, NAMED)
