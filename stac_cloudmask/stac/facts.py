"""What a run knows of one finished mask: all that an output item is written from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stac_cloudmask.core.classes import CLASSES, CloudClass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.stac.bands import BandSource

CHUNK = 1 << 20
"""Bytes or pixels looked at in one go."""


@dataclass(frozen=True, kw_only=True)
class AssetFile:
    """A file that was written for an asset: its name beside the item, its size in bytes, its SHA-256 in hex."""

    name: str
    size: int
    sha256: str

    @property
    def checksum(self) -> str:
        """The multihash that ``file:checksum`` wants: 12 = SHA-256, 20 = 32 bytes, in hex."""
        return f"1220{self.sha256}"


@dataclass(frozen=True, kw_only=True)
class ModelUse:
    """A model that had a say: its name, what it was used for (``cloud``, ``shadow``), its bytes and its MLM item."""

    name: str
    roles: tuple[str, ...]
    sha256: str
    href: str | None = None


@dataclass(frozen=True, kw_only=True)
class MaskFacts:
    """A mask and how it came about.

    Attributes:
        grid: Grid of the class map and of every other raster that was written.
        counts: Pixels by code of the class map, see ``class_counts``.
        files: The written files by asset key (``definitions.ASSETS``); ``cloud_mask`` is always among them.
        fingerprint: Hash of inputs, model hashes, settings and version.
        created: When the mask was made; timezone-aware.
        version: Version of this package.
        software: Versions of what else decides the result, by name.
        lineage: One or two sentences for people.
        models: The models that had a say.
        bands: The source's bands that were read, and what was added to their digital numbers.
        product_mask: Asset key of the source's own mask, None where the mask comes from the models alone.
        policy: Name of the merge policy.
        parameters: Its thresholds and sizes as they were applied, by name.
        settings: What the user asked for, by name.
        mask_only: Leave the source's assets out of the item.
    """

    grid: Grid
    counts: Mapping[int, int]
    files: Mapping[str, AssetFile]
    fingerprint: str
    created: datetime
    version: str
    software: Mapping[str, str] = field(default_factory=dict)
    lineage: str
    models: tuple[ModelUse, ...] = ()
    bands: tuple[BandSource, ...] = ()
    product_mask: str | None
    policy: str
    parameters: Mapping[str, float | str | None] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    mask_only: bool = False

    @property
    def valid(self) -> int:
        """Pixels that have data."""
        return valid_pixels(self.counts)


def file_facts(path: Path) -> AssetFile:
    """Name, size and hash of a file as it lies on the disk."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
        size = stream.tell()
    return AssetFile(name=path.name, size=size, sha256=digest.hexdigest())


def valid_pixels(counts: Mapping[int, int]) -> int:
    """Pixels that have data, of those counted by code."""
    return sum(count for code, count in counts.items() if code != CloudClass.NODATA)


def cover(counts: Mapping[int, int], code: CloudClass) -> float | None:
    """Percent of the valid pixels that have this class; None where no pixel is valid."""
    valid = valid_pixels(counts)
    return round(100 * counts.get(code, 0) / valid, 4) if valid else None


def timestamp(time: datetime) -> str:
    """A timezone-aware time as items state it: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def class_counts(class_map: NDArray[np.uint8]) -> dict[int, int]:
    """Pixels by code, for every class of the table; ``class_map`` is ``(y, x)`` uint8.

    In strips, as numpy's count would hold eight bytes a pixel.
    """
    rows = max(1, CHUNK // max(1, class_map.shape[1]))
    total = np.zeros(256, np.int64)
    for top in range(0, class_map.shape[0], rows):
        total += np.bincount(class_map[top : top + rows].ravel(), minlength=256)
    return {int(info.code): int(total[info.code]) for info in CLASSES}
