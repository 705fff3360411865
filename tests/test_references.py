from __future__ import annotations

import pytest

from stac_cloudmask.errors import ConfigError
from stac_cloudmask.review.evaluate import judged_classes, meaning_of, parse_reference
from stac_cloudmask.stac.assets import class_list


def meaning(text, asset=None):
    return meaning_of(parse_reference(text), asset or {})


def test_a_plain_name_is_an_asset():
    reference = parse_reference("reference")
    assert (reference.source, reference.is_file) == ("reference", False)


@pytest.mark.parametrize("name", ["labels.tif", "labels.geojson", "labels.GPKG", "a/b.TIFF"])
def test_label_files_are_told_by_their_name(name):
    assert parse_reference(name).is_file


def test_a_file_without_a_known_ending_is_a_file_if_it_is_there(tmp_path):
    (tmp_path / "labels.vrt").touch()
    assert parse_reference(str(tmp_path / "labels.vrt")).is_file


def test_values_get_the_meaning_that_the_user_states():
    found = meaning("labels.tif::3=Cloud, 4=shadow ,9=nodata")
    assert (dict(found.values), found.otherwise) == ({"3": 1, "4": 2, "9": 255}, 0)
    assert judged_classes(found) == (1, 2)


def test_the_field_of_a_vector_can_be_named():
    assert parse_reference("labels.gpkg::field=kind,haze=cloud").field == "kind"
    assert meaning("labels.gpkg::field=kind").values["cloud"] == 1


def test_the_class_table_of_an_asset_tells_what_its_values_mean():
    classes = [{"value": 0, "name": "no_data"}, {"value": 1, "name": "Water"}, {"value": 7, "name": "thin-cloud"}]
    found = meaning("labels", {"classification:classes": classes})
    assert (dict(found.values), found.otherwise) == ({"0": 255, "1": 0, "7": 1}, None)


def test_our_own_class_table_means_our_own_codes():
    found = meaning("reference", {"classification:classes": class_list()})
    assert dict(found.values) == {"0": 0, "1": 1, "2": 2, "255": 255}


def test_the_user_knows_better_than_the_class_table():
    assert dict(meaning("x::1=shadow", {"classification:classes": class_list()}).values) == {"1": 2}


@pytest.mark.parametrize(("name", "judged"), [("reference-shadow", (2,)), ("my_cloud", (1,)), ("reference", (1, 2))])
def test_asset_keys_tell_which_class_they_are_about(name, judged):
    assert judged_classes(meaning(name)) == judged


def test_features_name_their_class_or_give_its_code():
    found = meaning("labels.geojson")
    assert [found.values[name] for name in ("clear", "cloud", "shadow", "2")] == [0, 1, 2, 2]


@pytest.mark.parametrize("text", ["", "::1=cloud", "labels.tif::1", "labels.tif::=cloud", "labels.tif::1="])
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(ConfigError, match="is not a reference"):
        parse_reference(text)


def test_an_unknown_class_is_refused():
    with pytest.raises(ConfigError, match="no class 'barn'; there are clear, cloud, cloud_shadow, nodata"):
        parse_reference("labels.tif::1=barn")
