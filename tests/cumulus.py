"""Small scenes with clouds and shadows where geometry puts them, as the models would see them."""

from dataclasses import replace

import numpy as np

from stac_cloudmask.core.merge_calibrated import RULES
from stac_cloudmask.core.shadow import shadow_shift
from stac_cloudmask.core.votes import Evidence, ProductMask, Sun

GSD = 10.0
SUN = Sun(azimuth=135.0, elevation=45.0)


def disk(shape, row, col, radius):
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    return (rows - row) ** 2 + (cols - col) ** 2 <= radius**2


def product(scl, *, cloud_codes=(8, 9, 10), shadow_codes=(3,)):
    scl = np.asarray(scl, np.uint8)
    return ProductMask(scl=scl, factor=1, shape=scl.shape, cloud_codes=cloud_codes, shadow_codes=shadow_codes)


def scene(cloud, shadow, *, sun=SUN, scl=None, ground=0.35, shade=0.1, seed=0):
    """Evidence of pixels that surely are cloud or shadow, on noisy ground whose shaded part is dark."""
    rng = np.random.default_rng(seed)
    nir = np.where(shadow, shade, ground) * rng.uniform(0.9, 1.1, cloud.shape)
    return Evidence(
        cloud=np.where(cloud, 95, rng.integers(0, 4, cloud.shape)).astype(np.uint8),
        shadow=np.where(shadow & ~cloud, 95, rng.integers(0, 4, cloud.shape)).astype(np.uint8),
        gsd=GSD,
        product=None if scl is None else product(scl),
        sun=sun,
        nir=cell_means(np.where(cloud, 0.7, nir)),
    )


def cell_means(nir):
    k = RULES.cell_factor(GSD)
    height, width = (-(-n // k) * k for n in nir.shape)
    padded = np.pad(nir, ((0, height - nir.shape[0]), (0, width - nir.shape[1])), constant_values=np.nan)
    return np.nanmean(padded.reshape(height // k, k, width // k, k), axis=(1, 3)).astype(np.float32)


def cumulus(*, shape=(360, 424), height=1000.0, sun=SUN, towards=1, seed=0, **how):
    """Two clouds at ``height`` meters and their shadows; with ``towards=-1`` the shadows lie on the sunny side."""
    cloud, shadow = np.zeros(shape, bool), np.zeros(shape, bool)
    down, right = (n * towards for n in shadow_shift(sun, height / np.tan(np.radians(sun.elevation)) / GSD))
    for row, col, radius in ((200, 150, 20), (150, 300, 25)):
        cloud |= disk(shape, row, col, radius)
        shadow |= disk(shape, row + down, col + right, radius)
    return scene(cloud, shadow, sun=sun, seed=seed, **how)


def turned(evidence, *, quarters=0, mirror=False):
    """The same scene seen with another side up: quarter turns counterclockwise after mirroring left and right."""

    def turn(array):
        return np.ascontiguousarray(np.rot90(array[:, ::-1] if mirror else array, quarters))

    azimuth = -evidence.sun.azimuth if mirror else evidence.sun.azimuth
    sun = Sun(azimuth=(azimuth - 90 * quarters) % 360, elevation=evidence.sun.elevation)
    scl = None if evidence.product is None else product(turn(evidence.product.scl))
    layers = {name: turn(getattr(evidence, name)) for name in ("cloud", "shadow", "nir")}
    return replace(evidence, sun=sun, product=scl, **layers), turn
