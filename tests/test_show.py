"""What notebooks and figures show of masks."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import numpy as np
import pystac
import pytest
from PIL import Image
from scenes import settings_of, write_items, write_model

import stac_cloudmask as scm
from stac_cloudmask.core.classes import CLASSES
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.pipeline.result import Result
from stac_cloudmask.review.show import preview

SIDE = 96


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A simulated item, its settings, what process said and what cloud_mask gave."""
    folder = tmp_path_factory.mktemp("look")
    (source,) = write_items(folder / "source", 1)
    settings = settings_of(write_model(folder / "model"), votes=True)
    (result,) = scm.process(source, out=folder / "out", settings=settings)
    return source, settings, result, scm.cloud_mask(source, settings=settings)


@pytest.fixture(scope="module")
def result(made):
    return made[2]


@pytest.fixture(scope="module")
def dataset(made):
    return made[3]


def images(html):
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(b64decode(data))).convert("RGBA")) for data in found]


def test_an_item_a_result_a_path_and_the_dataset_look_the_same(result, dataset):
    path = Path(result.output)
    seen = [preview(mask, side=1000) for mask in (path, str(path), pystac.Item.from_file(path), result, dataset)]
    for look in seen:
        np.testing.assert_array_equal(look.improved, dataset["cloud_mask"].values)
        np.testing.assert_array_equal(look.product, seen[0].product)
        assert np.abs(look.rgb.astype(int) - seen[0].rgb).max() <= 1
    assert seen[0].covers["Improved mask"]["cloud"] == pytest.approx(result.cover["cloud"], abs=1e-3)
    assert seen[0].covers["SCL mask"]["cloud"] == pytest.approx(result.product_cover, abs=0.1)


def test_pictures_are_small_and_have_the_shape_of_the_scene(result, dataset):
    for mask in (result, dataset):
        look = preview(mask, side=32)
        assert {picture.shape for picture in look.pictures.values()} == {(32, 32, 4)}
        assert list(look.pictures) == ["Scene", "SCL mask", "Improved mask"]


def test_clouds_are_painted_and_clear_ground_is_the_scene(dataset):
    look = preview(dataset, side=1000)
    scene, improved = (look.pictures[name].astype(int) for name in ("Scene", "Improved mask"))
    clear, cloud = look.improved == 0, look.improved == 1
    np.testing.assert_array_equal(scene[clear], improved[clear])
    assert np.abs(improved[cloud][:, :3] - (0.45 * scene[cloud][:, :3] + 0.55 * np.array(CLASSES[1].rgb))).max() <= 1


def test_a_part_of_a_dataset_shows_that_part(dataset):
    whole, part = preview(dataset, side=1000), preview(dataset.isel(y=slice(10, 40), x=slice(50, 96)), side=1000)
    np.testing.assert_array_equal(part.improved, whole.improved[10:40, 50:96])
    np.testing.assert_array_equal(part.rgb, whole.rgb[10:40, 50:96])


def test_plot_draws_every_picture_with_its_numbers_and_a_legend(result, dataset, tmp_path):
    for mask in (result, dataset):
        figure = scm.plot(mask, width=9)
        titles = [axes.get_title().split("\n")[0] for axes in figure.axes]
        assert titles == ["Scene", "SCL mask", "Improved mask"]
        assert f"cloud {result.cover['cloud']:.1f} %" in figure.axes[2].get_title()
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Cloud", "Cloud shadow"]
        figure.savefig(tmp_path / "plot.png")
        with Image.open(tmp_path / "plot.png") as picture:
            assert picture.size[0] == 900


def test_plot_leaves_out_what_is_not_there(made, tmp_path):
    _, _, result, dataset = made
    path = Path(result.output)
    body = json.loads(path.read_text())
    keep = {"cloud_mask": body["assets"]["cloud_mask"] | {"href": str(path.with_name("cloud_mask.tif"))}}
    (tmp_path / "bare.json").write_text(json.dumps(body | {"assets": keep}))
    assert [axes.get_title().split("\n")[0] for axes in scm.plot(tmp_path / "bare.json").axes] == ["Improved mask"]
    assert len(scm.plot(dataset[["cloud_mask"]]).axes) == 1


def test_without_matplotlib_plot_says_what_to_install(result):
    code = f"import sys; sys.modules['matplotlib'] = None; import stac_cloudmask as scm; scm.plot({result.output!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConfigError: a plot needs matplotlib: pip install 'stac-cloudmask[plot]'" in done.stderr


def test_a_notebook_shows_the_dataset_with_pictures_and_numbers(dataset, result):
    html = dataset.cloudmask._repr_html_()
    assert [image.shape for image in images(html)] == [(SIDE, SIDE, 4)] * 3
    assert f"cloud {result.cover['cloud']:.1f} %" in html
    assert len(dataset.cloudmask.plot().axes) == 3


def test_a_notebook_shows_a_result_with_its_thumbnail(result):
    html = result._repr_html_()
    (image,) = images(html)
    assert image.shape == (SIDE, SIDE, 4)
    assert f"cloud {result.cover['cloud']:.1f} %" in html
    assert result.output in html


@pytest.mark.parametrize("output", [None, "s3://bucket/a/b.json", "/nowhere/b.json"])
def test_a_result_without_a_thumbnail_on_this_machine_is_words(output):
    html = Result(item_id="<i>x</i>", status="failed", output=output, error="no <band> & such")._repr_html_()
    assert images(html) == []
    assert "<i>" not in html
    assert "no &lt;band&gt; &amp; such" in html


def test_what_is_no_mask_is_an_error_that_says_so(made):
    source, _, _, dataset = made
    with pytest.raises(ConfigError, match="no asset 'cloud_mask': it is a scene, not a mask"):
        scm.plot(source)
    with pytest.raises(ConfigError, match="no variable 'cloud_mask'"):
        scm.plot(dataset[["mask_votes"]])
    with pytest.raises(ConfigError, match="item 'x' has no mask: out of clouds"):
        scm.plot(Result(item_id="x", status="failed", error="out of clouds"))
    with pytest.raises(scm.StacCloudmaskError, match="nowhere"):
        scm.plot("/nowhere/x.json")
