"""FarmVibes.AI's workflow ``improve_cloud_mask`` on two rasters, with identical results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from stac_cloudmask.core.grid import Chip, farmvibes_chips
from stac_cloudmask.core.merge import merge_farmvibes
from stac_cloudmask.core.predict import ROLES, Bands, Member, Role, predict_chips
from stac_cloudmask.errors import ConfigError, UnsupportedItemError
from stac_cloudmask.models.registry import find_model, with_weights
from stac_cloudmask.models.session import OnnxSegmenter
from stac_cloudmask.models.spec import LONGEST_SIDE, ModelWindow
from stac_cloudmask.pipeline.inference import HeldRows
from stac_cloudmask.stac.bands import ESA_SCALE
from stac_cloudmask.stac.gdal import open_raster

CONTRACTS: Final[dict[Role, str]] = {"cloud": "farmvibes-cloud-2", "shadow": "farmvibes-shadow"}
"""The catalog model whose inputs and outputs an .onnx file is assumed to have, by role."""
PROBABILITY_NODATA: Final = np.float32(100)
"""FarmVibes.AI's value of a pixel without a probability, among probabilities 0..1."""

Model = str | Path
Probability = NDArray[np.float32]


@dataclass(frozen=True)
class ImprovedMask:
    """The result of the workflow.

    Attributes:
        cloud_probability: ``(y, x)`` float32 0..1; 100.0 where any band is nodata. Ensemble: mean, NaN there.
        shadow_probability: ``(y, x)`` float32 0..1; 100.0 where any band is nodata.
        mask: ``(y, x)`` uint8: 0 clear, 1 not clear, nodata included.
        crs: Coordinate reference system of the raster as WKT; None if it has none.
        transform: Affine coefficients of the raster in rasterio's order.
    """

    cloud_probability: Probability
    shadow_probability: Probability
    mask: NDArray[np.uint8]
    crs: str | None
    transform: tuple[float, float, float, float, float, float]


def improve_cloud_mask(
    *,
    s2_raster: str | Path,
    product_mask: str | Path,
    cloud_model: Model | Sequence[Model] = "farmvibes-cloud-2",
    shadow_model: Model = "farmvibes-shadow",
    cloud_thr: float = 0.3,
    shadow_thr: float = 0.2,
    in_memory: bool = False,
    window_size: int = 512,
    overlap: float = 0.25,
    closing_size: int = 5,
    min_area: int = 0,
    model_cache: str | Path | None = None,
) -> ImprovedMask:
    """Improve the cloud mask of a Sentinel-2 L2A raster, bit-identical to FarmVibes.AI.

    Parameters keep the names and defaults of FarmVibes.AI; thresholds may be any number, not only whole percents.
    Unlike in FarmVibes.AI, rasters smaller than a window work: they are padded by repeating their edge. As in
    FarmVibes.AI, the BOA offset is not applied; `process` applies it for STAC items. Example::

        result = improve_cloud_mask(s2_raster="s2.tif", product_mask="product_mask.tif", cloud_thr=0.3, shadow_thr=0.2)
        not_clear = result.mask == 1

    Args:
        s2_raster: 12 bands of digital numbers: B01 to B08, B8A, B09, B11, B12. Its nodata tag marks pixels without
            data; without a tag, zeros are data.
        product_mask: The product's own mask on the same grid; any value other than 0 is cloud.
        cloud_model: Name in the catalog, MLM item, or .onnx file with the contract of FarmVibes.AI's cloud models;
            several form an ensemble.
        shadow_model: The same, with the contract of FarmVibes.AI's shadow model.
        cloud_thr: Cloud above this probability, strictly.
        shadow_thr: Shadow above this probability, strictly.
        in_memory: Read the whole raster first; the result is the same.
        window_size: Side of a window in pixels.
        overlap: Minimum fraction of a window that neighboring windows share.
        closing_size: Radius in pixels of the disk by which the mask is dilated.
        min_area: Objects and holes of fewer pixels are removed after dilation; 0 keeps all.
        model_cache: Directory of downloaded weights; None for the user's cache directory.

    Returns:
        Both probabilities and the mask, on the grid of ``s2_raster``.

    Raises:
        ConfigError: There is no cloud model, or this window size and overlap are impossible.
        ModelError: A model is missing, broken or of another kind.
        ReadError: A raster cannot be read.
        UnsupportedItemError: A raster has other bands or another grid than expected.
    """
    cloud_models = [cloud_model] if isinstance(cloud_model, str | Path) else list(cloud_model)
    if not cloud_models or not 1 <= window_size <= LONGEST_SIDE:
        found = f"got {len(cloud_models)} and {window_size}"
        raise ConfigError(f"at least one cloud model and windows of 1 to {LONGEST_SIDE} pixels are needed, {found}")
    cache = None if model_cache is None else Path(model_cache)
    members = [_member(model, "cloud", window_size, cache) for model in cloud_models]
    members.append(_member(shadow_model, "shadow", window_size, cache))
    with open_raster(str(s2_raster)) as raster, open_raster(str(product_mask)) as product:
        _refuse_others(raster, product)
        chips = farmvibes_chips(*raster.shape, size=window_size, overlap_fraction=overlap)
        cloud, shadow = _probabilities(raster, chips, members, in_memory=in_memory)
        if len(cloud_models) > 1:
            cloud[cloud == PROBABILITY_NODATA] = np.nan  # FarmVibes.AI loses the nodata of ensembles
        flagged = flagged_pixels(cloud, shadow, product.read(1), cloud_thr=cloud_thr, shadow_thr=shadow_thr)
        merged = merge_farmvibes(flagged, closing_size=closing_size, min_area=min_area)
        crs = raster.crs.to_wkt() if raster.crs else None
        return ImprovedMask(cloud, shadow, merged.astype(np.uint8), crs, tuple(raster.transform)[:6])


def flagged_pixels(
    cloud: Probability, shadow: Probability, product: NDArray[np.uint16], *, cloud_thr: float, shadow_thr: float
) -> NDArray[np.bool_]:
    """Return ``(y, x)``, True where a model is strictly above its threshold, or the product is not 0.

    Nodata of a model, 100, is above all thresholds; NaN is below.
    """
    flagged: NDArray[np.bool_] = (cloud > np.float32(cloud_thr)) | (shadow > np.float32(shadow_thr)) | (product != 0)
    return flagged


def _member(model: Model, role: Role, window_size: int, cache: Path | None) -> Member:
    """Return a model with the windows of this run instead of its own."""
    is_file = Path(model).suffix == ".onnx"
    spec = with_weights(find_model(CONTRACTS[role]), model) if is_file else find_model(model, role=role)
    window = ModelWindow(size=window_size, multiple=spec.window.multiple, overlap=0)
    return Member(OnnxSegmenter(replace(spec, window=window), cache=cache, local_means=False), (role,))


def _refuse_others(raster: DatasetReader, product: DatasetReader) -> None:
    for file in (raster, product):
        if others := sorted(set(file.dtypes) - {"uint8", "uint16"}):
            raise UnsupportedItemError(f"{file.name}: holds {', '.join(others)}; digital numbers are uint16 or uint8")
    bands = find_model(CONTRACTS["cloud"]).bands
    if raster.count != len(bands):
        expected = f"{len(bands)} are expected: {', '.join(bands)}"
        raise UnsupportedItemError(f"{raster.name}: has {raster.count} bands; {expected}")
    if product.shape != raster.shape or not np.allclose(product.transform, raster.transform):
        raise UnsupportedItemError(
            f"{product.name}: is on another grid ({product.height} x {product.width} pixels) than "
            f"{raster.name} ({raster.height} x {raster.width}); warp it first"
        )


def _probabilities(
    raster: DatasetReader, plan: Sequence[Sequence[Chip]], members: Sequence[Member], *, in_memory: bool
) -> tuple[Probability, Probability]:
    """Return cloud and shadow probability of the whole raster, 100.0 where any band is nodata."""
    names = find_model(CONTRACTS["cloud"]).bands
    bands = Bands(names=names, scales=(ESA_SCALE,) * len(names), offsets=(0,) * len(names))
    out = {role: np.full(raster.shape, PROBABILITY_NODATA) for role in ROLES}
    held = HeldRows()
    for chips in plan:
        held.drop_to(chips[0].read.row_off)
        stop = raster.height if in_memory else chips[0].read.rows.stop
        if held.stop < stop:
            held.add(raster.read(window=((held.stop, stop), (0, raster.width)), out_dtype="uint16"))
        for prediction in predict_chips(chips, held.window, members=members, bands=bands, nodata=raster.nodata):
            if prediction.probabilities is not None:
                empty = (prediction.dn == raster.nodata).any(axis=0)  # without a nodata tag, no number equals None
                for role, found in prediction.probabilities.items():
                    out[role][prediction.chip.write.slices] = np.where(empty, PROBABILITY_NODATA, found)
    return out["cloud"], out["shadow"]
