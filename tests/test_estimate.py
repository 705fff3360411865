from __future__ import annotations

import json

import pytest
import rasterio

import stac_cloudmask as scm
from stac_cloudmask.errors import ModelError
from stac_cloudmask.models.session import OnnxSegmenter
from stac_cloudmask.pipeline.estimate import advice, estimate_mask
from stac_cloudmask.pipeline.mask import resolve_sources
from stac_cloudmask.stac.search import load_items
from tests.scenes import BANDS, settings_of, write_items, write_model
from tests.stac.range_server import serve
from tests.stac.rasters import digital_numbers, item_of, write


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("sources"), 2)


def dry(items, out, model, **changes):
    return scm.process(items, out=out, settings=settings_of(model, **changes), dry_run=True)


def estimate_of(item, model, **changes):
    settings = settings_of(model, **changes)
    return estimate_mask(resolve_sources(item, settings=settings), settings=settings)


def files_of(path):
    return [path.parent / f"{name}.tif" for name in (*BANDS, "scl")]


def test_what_is_estimated_is_what_a_run_computes(sources, model, tmp_path, monkeypatch):
    asked = []
    channels = OnnxSegmenter.channels

    def counted(self, reflectance):
        asked.append(reflectance.shape[2:])
        return channels(self, reflectance)

    [planned] = dry(str(sources[0]), tmp_path, model)
    monkeypatch.setattr(OnnxSegmenter, "channels", counted)
    [done] = scm.process(str(sources[0]), out=tmp_path, settings=settings_of(model))
    assert (planned.status, done.status) == ("planned", "done")
    with rasterio.open(next(tmp_path.rglob("cloud_mask.tif"))) as mask:
        assert planned.estimate.pixels == mask.width * mask.height
    assert planned.estimate.windows == len(asked)
    assert planned.estimate.computed == sum(height * width for height, width in asked)


def test_windows_of_each_model_count_and_so_does_their_padding(tmp_path, model):
    [path] = write_items(tmp_path / "small", 1, height=50, width=60)
    other = write_model(tmp_path / "other", name="other")
    one, both = (
        dry(str(path), tmp_path / "out", model, cloud_model=names)[0].estimate
        for names in ((str(model),), (str(model), str(other)))
    )
    assert (one.windows, one.computed) == (1, 64 * 64)
    assert (both.windows, both.computed) == (1, 2 * 64 * 64)


def test_bytes_are_those_of_the_files(sources, model, tmp_path):
    [planned] = dry(str(sources[0]), tmp_path, model)
    assert planned.estimate.bytes == sum(file.stat().st_size for file in files_of(sources[0]))


def remote_item(site, path, *, sizes):
    [item] = load_items([f"{site.url}/{path.parent.parent.name}/{path.parent.name}/{path.name}"])
    for file in files_of(path) if sizes else ():
        item.assets[file.stem].extra_fields["file:size"] = file.stat().st_size
    return item


def test_files_are_not_opened_where_the_item_says_what_is_asked(sources, model):
    sizes = sum(file.stat().st_size for file in files_of(sources[0]))
    with serve(sources[0].parents[2]) as site:
        item = remote_item(site, sources[0], sizes=True)
        before = dict(site.asked)
        assert estimate_of(item, model).bytes == sizes
        assert dict(site.asked) == before


def test_headers_are_read_where_it_does_not(sources, model):
    sizes = sum(file.stat().st_size for file in files_of(sources[0]))
    with serve(sources[0].parents[2]) as site:
        item = remote_item(site, sources[0], sizes=False)
        estimate = estimate_of(item, model)
        assert site.statuses[206] > 0
    assert 0.8 * sizes < estimate.bytes < sizes


def test_bytes_that_nothing_states_are_unknown(tmp_path, model):
    for name in BANDS:
        options = {"driver": "JP2OpenJPEG", "nodata": None, "tiled": False}
        write(tmp_path / f"{name}.jp2", digital_numbers((128, 128)), 10, **options)
    with serve(tmp_path) as site:
        item = item_of(site.url, {name: f"{name}.jp2" for name in BANDS})
        estimate = estimate_of(item, model, missing_scl="model-only")
    assert (estimate.bytes, estimate.pixels) == (None, 128 * 128)


def test_a_coarser_mask_costs_less_and_reads_overviews(tmp_path, model):
    [path] = write_items(tmp_path / "wide", 1, height=1024, width=1024)
    fine, coarse = (dry(str(path), tmp_path / "out", model, resolution=gsd)[0].estimate for gsd in (10.0, 40.0))
    assert coarse.pixels == fine.pixels / 16
    assert coarse.computed < fine.computed / 3
    assert coarse.bytes < fine.bytes / 2


def test_up_to_date_items_cost_nothing_and_failing_ones_are_named(tmp_path, model):
    paths = write_items(tmp_path / "in", 3)
    scm.process(str(paths[0]), out=tmp_path / "out", settings=settings_of(model))
    (paths[1].parent / "red.tif").unlink()
    before = sorted(tmp_path.rglob("*"))
    done, failed, planned = dry([str(path) for path in paths], tmp_path / "out", model)
    assert (done.status, done.estimate) == ("up-to-date", None)
    assert (failed.status, failed.estimate) == ("failed", None)
    assert "item 'scene-0001': asset 'red': there is no file" in failed.error
    assert planned.estimate.windows > 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_whose_weights_are_broken_fails_before_the_run(tmp_path, sources):
    broken = write_model(tmp_path / "broken")
    (tmp_path / "broken" / "tiny.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="tiny"):
        dry(str(sources[0]), tmp_path / "out", broken)


def test_a_long_run_is_told_what_would_be_faster_and_loses_no_item(sources, model):
    items = list(load_items([str(path) for path in sources]))
    seen, faster = advice(iter(items), settings_of(model), long=1e-9)
    assert seen == items[: len(seen)]
    assert "`--resolution 20` takes a quarter of the time" in faster
    assert "`--clip`" in faster


def test_models_of_any_fixed_window_are_timed(sources, tmp_path):
    items = list(load_items([str(path) for path in sources]))
    for size in (48, 320):
        model = write_model(tmp_path / str(size))
        body = json.loads(model.read_text())
        body["properties"]["stac_cloudmask:window"] = {"size": size, "multiple": 0, "overlap": 16}
        model.write_text(json.dumps(body))
        assert "more than" in advice(iter(items), settings_of(model), long=1e-9)[1]


def test_a_short_run_is_told_nothing_and_no_model_is_loaded_for_it(sources, model):
    items = list(load_items([str(path) for path in sources]))
    assert advice(iter(items), settings_of(model)) == (items, None)
