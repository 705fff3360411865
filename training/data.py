"""Scenes with the teacher's answers, from which the student learns.

Each file is an int16 array ``(layer, y, x)``: blue, green, red and near infrared reflectance and the wanted
probabilities of cloud and cloud shadow, all times 10000, and 1 where there is data. What is wanted lies between the
teacher's answer and the class that the default policy makes of it. Run in the environment of stac_cloudmask::

    python -m training.data ../shared/data training-data
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pystac
import rasterio
from scipy.ndimage import gaussian_filter, zoom

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.merge import POLICIES
from stac_cloudmask.core.votes import Sun, Vote
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.models.session import OnnxSegmenter
from stac_cloudmask.pipeline.mask import make_mask
from stac_cloudmask.simulate.clouds import draw_sky, look_down
from stac_cloudmask.simulate.landscape import landscape, power_noise
from stac_cloudmask.stac.providers import BANDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    Codes = NDArray[np.uint8]
    Answer = Callable[[F32], F32]

TEACHER: Final = "ukis-csmask-4b-l2a"
PROVIDER: Final = "openvino"
DECIDED: Final = 0.8
"""Weight of the decided class beside the teacher's probability; what the policy overrules falls below thresholds."""
UNDECIDED: Final = 255
"""Code of a pixel whose class the teacher's probability alone stands for."""
SEED: Final = 0
VISIBLE: Final = ("blue", "green", "red", "nir")
SCALE: Final = 10_000
SIDE: Final = 896
"""Longest side in pixels of an altered copy of a scene."""
COPIES: Final = {"alberta-2020": 7, "earth-search-33twl": 3, "bolzano-2022": 7, "sahara-29rkh": 6, "cloudn-chips": 8,
                 "cloudn-l2a": 6, "alberta-2020-snow": 14, "hard-cases": 8}  # fmt: skip
"""Altered copies per scene, by collection."""
SIMULATED: Final = 72
AEROSOL: Final = np.array([0.075, 0.045, 0.022, 0.008], np.float32)
"""Most that is taken from top-of-atmosphere reflectance to make it look like surface reflectance, by band."""
HAZE: Final = np.array([0.42, 0.38, 0.36, 0.34], np.float32)
"""Reflectance of thick haze by band."""
GROUNDS: Final = {
    "summer": None,
    "snow": (0.82, 0.83, 0.82, 0.76),
    "sand": (0.14, 0.23, 0.36, 0.46),
    "water": (0.045, 0.035, 0.020, 0.010),
    "soil": (0.09, 0.12, 0.16, 0.21),
    "roofs": (0.36, 0.38, 0.40, 0.42),
}
"""What covers a part of the simulated landscape, by reflectance."""


@dataclass(frozen=True)
class Scene:
    """Surface reflectance ``(band, y, x)`` and where there is data.

    ``overruled`` ``(y, x)`` has the class where the policy decides otherwise than the teacher alone, else `UNDECIDED`.
    """

    kind: str
    name: str
    reflectance: F32
    valid: NDArray[np.bool_]
    overruled: Codes


def undecided(shape: tuple[int, ...]) -> Codes:
    """Return classes of pixels that no policy has decided on."""
    return np.full(shape[-2:], UNDECIDED, np.uint8)


def read_item(path: Path) -> Scene:
    """The four bands of an item, as surface reflectance; 0 where there is no data."""
    item = json.loads(path.read_text())
    layers = []
    for band in VISIBLE:
        asset = item["assets"][band]
        with rasterio.open(path.parent / asset["href"]) as file:
            dn = file.read(1).astype(np.float32)
        offset = asset.get("raster:bands", [{}])[0].get("offset") or 0.0
        if item["properties"].get("earthsearch:boa_offset_applied"):
            offset = 0.0
        layers.append(np.where(dn > 0, dn / SCALE + offset, 0))
    reflectance = np.stack(layers).astype(np.float32)
    valid = (reflectance != 0).any(0)
    return Scene(path.parents[1].name, item["id"], reflectance, valid, overruled(path, "scl" in item["assets"]))


def overruled(path: Path, has_scl: bool) -> Codes:  # noqa: FBT001
    """The default's classes of an item where they are not what the teacher alone says; a buffer is left out."""
    item = pystac.Item.from_file(path)
    item.make_asset_hrefs_absolute()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes on items without a sun or a product mask
        mask = make_mask(item, settings=Settings(provider=PROVIDER, missing_scl="fail" if has_scl else "model-only"))
    codes = mask.decision.class_map
    percents = np.stack([mask.evidence.cloud, mask.evidence.shadow])
    kept = (decided(percents / np.float32(100)) == codes) | ((mask.decision.votes & np.uint8(Vote.ADDED)) > 0)
    return np.where(kept, np.uint8(UNDECIDED), codes)


def decided(answer: F32) -> Codes:
    """The class of each pixel by probabilities ``(role, y, x)`` and the default policy's thresholds alone."""
    cloud, shadow = answer
    limits = POLICIES["calibrated"]
    codes = np.zeros(cloud.shape, np.uint8)
    codes[shadow > limits.shadow_thr] = CloudClass.CLOUD_SHADOW
    codes[(cloud > limits.cloud_thr) & ((codes == 0) | (cloud >= shadow))] = CloudClass.CLOUD
    return codes


def real_scenes(root: Path) -> Iterator[Scene]:
    """All scenes of surface reflectance: those of both catalogs and the chips without labels."""
    for path in sorted([*root.glob("*/*/*.json"), *root.glob("hard/*/*/*.json")]):
        item = json.loads(path.read_text())
        if item.get("type") == "Feature" and set(VISIBLE) <= set(item.get("assets", ())):
            yield read_item(path)
    for number, chip in enumerate(_stacked(root / "unlabelled/cloudn-l2a.tif")):
        yield Scene("cloudn-l2a", f"chip{number}", chip, np.ones(chip.shape[1:], bool), undecided(chip.shape))


def _stacked(path: Path) -> list[F32]:
    """Square patches that lie one above the other in a file."""
    with rasterio.open(path) as file:
        pixels = file.read().astype(np.float32) / SCALE
    return np.split(pixels, pixels.shape[1] // pixels.shape[2], axis=1)


def top_of_atmosphere(root: Path, rng: np.random.Generator) -> Iterator[Scene]:
    """The L1C patches by fours, with the light of the air taken from their bands, so that they look like L2A."""
    patches = _stacked(root / "unlabelled/sen12mscr-l1c.tif")
    for turn in range(2):
        order = rng.permutation(len(patches))
        for start in range(0, len(order) - 3, 4):
            four = [_corrected(patches[number], rng) for number in order[start : start + 4]]
            square = np.concatenate([np.concatenate(four[:2], 2), np.concatenate(four[2:], 2)], 1)
            valid = np.ones(square.shape[1:], bool)
            yield Scene("sen12mscr-l1c", f"{turn}-{start}", square, valid, undecided(square.shape))


def _corrected(patch: F32, rng: np.random.Generator) -> F32:
    dark = np.percentile(patch, 1, axis=(1, 2)) - 0.005
    path = np.minimum(AEROSOL * rng.uniform(0.6, 1.1), np.maximum(dark, 0))[:, None, None]
    return np.clip((patch - path) / (1 - 1.5 * path), 0.0005, None).astype(np.float32)


def simulated(number: int, rng: np.random.Generator) -> Scene:
    """A simulated scene of 384 x 384 pixels, much of it covered with snow, sand, water, soil or roofs."""
    side, gsd = 384, float(rng.choice([10, 20, 30, 60]))
    ground, _ = landscape(rng, (side, side), gsd)
    kind = list(GROUNDS)[number % len(GROUNDS)]
    spectrum = GROUNDS[kind]
    places = [list(BANDS).index(band) for band in VISIBLE]
    if spectrum is not None:
        field = power_noise(rng, (side, side), slope=2.6, outer=rng.uniform(300, 6000) / gsd)
        covered = field > np.quantile(field, 0.95 if kind == "roofs" else rng.uniform(0.1, 0.7))
        texture = 1 + 0.06 * power_noise(rng, (side, side), slope=2.0, outer=60)
        share = gaussian_filter(covered.astype(np.float32), rng.uniform(0, 1.5)) * rng.uniform(0.7, 1)
        for place, value in zip(places, spectrum, strict=True):
            ground[place] = ground[place] * (1 - share) + share * value * texture
    sun = Sun(azimuth=float(rng.uniform(0, 360)), elevation=float(rng.uniform(15, 70)))
    sky = draw_sky(rng, (side, side), gsd, cumulus=rng.uniform(0, 0.5), cirrus=rng.uniform(0, 0.5), sun=sun)
    seen = look_down(ground, sky, gsd)[places] + 0.002 * rng.standard_normal((4, side, side), np.float32)
    seen = np.clip(seen, 0.0005, None).astype(np.float32)
    return Scene("simulated", f"{number}-{kind}", seen, np.ones((side, side), bool), undecided(seen.shape))


def altered(scene: Scene, number: int, clouds: list[tuple[F32, F32]], rng: np.random.Generator) -> Scene:
    """A part of a scene at another scale, in other light, some with haze or with the clouds of another scene.

    Where clouds or haze hide what the policy overruled, nobody knows what it would decide: no data.
    """
    factor = float(np.exp(rng.uniform(np.log(0.6), np.log(1.8))))
    height, width = (min(length, int(SIDE / factor)) for length in scene.valid.shape)
    row, column = (rng.integers(0, have - want + 1) for have, want in
                   zip(scene.valid.shape, (height, width), strict=True))  # fmt: skip
    pixels = scene.reflectance[:, row : row + height, column : column + width]
    valid = scene.valid[row : row + height, column : column + width].astype(np.float32)
    classes = scene.overruled[row : row + height, column : column + width]
    if factor < 1:
        pixels = gaussian_filter(pixels, (0, 0.35 / factor, 0.35 / factor))
    pixels, valid = zoom(pixels, (1, factor, factor), order=1), zoom(valid, factor, order=1) > 0.99
    classes = zoom(classes, factor, order=0)
    clouded, hazy = rng.random() < 0.35, rng.random() < 0.35
    if clouded:
        pixels = _with_clouds(pixels, clouds[rng.integers(len(clouds))], rng)
    if hazy:
        pixels = _with_haze(pixels, rng)
    if clouded or hazy:
        valid &= classes == UNDECIDED
    if rng.random() < 0.6:
        pixels = pixels * np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.04, (4, 1, 1)))
    if rng.random() < 0.3:
        pixels = pixels + rng.uniform(-0.01, 0.03)
    return Scene(scene.kind, f"{scene.name}-{number}", np.clip(pixels, 0, 2).astype(np.float32), valid, classes)


def _with_clouds(pixels: F32, other: tuple[F32, F32], rng: np.random.Generator) -> F32:
    """Clouds of another scene laid over the pixels, and its shadows darkening them."""
    donor, answer = other
    height, width = pixels.shape[1:]
    repeats = (1, -(-height // donor.shape[1]), -(-width // donor.shape[2]))
    donor, answer = (np.tile(layer, repeats)[:, :height, :width] for layer in (donor, answer))
    cloud, shadow = gaussian_filter(answer, (0, 1, 1))
    cloud = np.clip(cloud * rng.uniform(0.5, 1.1), 0, 1)
    return (pixels * (1 - rng.uniform(0.4, 0.75) * shadow)) * (1 - cloud) + donor * cloud


def _with_haze(pixels: F32, rng: np.random.Generator) -> F32:
    shape = pixels.shape[1:]
    field = power_noise(rng, shape, slope=rng.uniform(2.6, 3.6), outer=rng.uniform(30, 400))
    low, high = np.percentile(field, [rng.uniform(0, 60), 99.5])
    depth = np.clip((field - low) / (high - low), 0, 1) * rng.uniform(0.05, 0.6)
    return pixels * (1 - depth) + depth * HAZE[:, None, None] * rng.uniform(0.8, 1.6)


def save(folder: Path, scene: Scene, answer: F32) -> None:
    """Write a scene and what is wanted of the student, given the teacher's answer to it."""
    classes = np.where(scene.overruled == UNDECIDED, decided(answer), scene.overruled)
    chosen = np.stack([classes == code for code in (CloudClass.CLOUD, CloudClass.CLOUD_SHADOW)])
    wanted = (1 - DECIDED) * answer + DECIDED * chosen
    layers = [np.clip(scene.reflectance, -1, 3) * SCALE, wanted * SCALE, scene.valid[None]]
    np.save(folder / f"{scene.kind}--{scene.name}.npy", np.concatenate(layers).round().astype(np.int16))


def teacher() -> Answer:
    """The default model, as the package runs it."""
    model = OnnxSegmenter(find_model(TEACHER), provider=PROVIDER)

    def answer(reflectance: F32) -> F32:
        given = model.predict(reflectance[None])
        return np.concatenate([given["cloud"], given["shadow"]])

    return answer


def make(root: Path, folder: Path, answer: Answer) -> None:
    """Write all scenes with the teacher's answers."""
    rng, start = np.random.default_rng(SEED), time.time()
    folder.mkdir(parents=True, exist_ok=True)
    scenes = list(real_scenes(root))
    clouds = []
    for scene in scenes:
        given = answer(scene.reflectance)
        save(folder, scene, given)
        if (given[0] > 0.5).mean() > 0.05:
            clouds.append((scene.reflectance, given * scene.valid))
    for scene in [*top_of_atmosphere(root, rng), *(simulated(number, rng) for number in range(SIMULATED))]:
        save(folder, scene, answer(scene.reflectance))
    print(f"{len(scenes)} scenes, patches and simulated ones: {time.time() - start:.0f} s", flush=True)
    for scene in scenes:
        for number in range(COPIES[scene.kind]):
            copy = altered(scene, number, clouds, rng)
            save(folder, copy, answer(copy.reflectance))
        print(f"{scene.kind} {scene.name}: {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]), teacher())
