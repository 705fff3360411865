"""An output item whose mask was revised after it was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.stac.definitions import ASSETS, class_list
from stac_cloudmask.stac.facts import cover, timestamp
from stac_cloudmask.stac.items import OWN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from stac_cloudmask.stac.facts import AssetFile

    Json = dict[str, Any]

FIELD: Final = f"{OWN}temporal"
FINGERPRINT: Final = f"{OWN}fingerprint"


@dataclass(frozen=True, kw_only=True)
class Revision:
    """What the dates around made of a mask.

    Attributes:
        single: Fingerprint of the mask as its own date gave it.
        around: Fingerprint of it with all dates that were looked at.
        dates: How many these are, itself included.
        most: On more than this many a surface is bright.
        pixels: That were cloud and are no more.
    """

    single: str
    around: str
    dates: int
    most: int
    pixels: int


def revision_of(body: Json) -> Json:
    """What an item says of its revision; empty if it had none."""
    found = body.get("properties", {}).get(FIELD)
    return found if isinstance(found, dict) else {}


def single_date(body: Json) -> str:
    """Fingerprint of an item's mask as its own date gave it."""
    return str(revision_of(body).get("single_date") or body["properties"].get(FINGERPRINT))


def revised(
    body: Json, revision: Revision, *, counts: Mapping[int, int], files: Mapping[str, AssetFile], now: datetime
) -> Json:
    """The item after a revision.

    Args:
        body: As it lies in its catalog.
        revision: What was done.
        counts: Pixels by code of the new class map.
        files: The files that were written again, by asset key.
        now: Timezone-aware.
    """
    stamp = timestamp(now)
    stated = {"eo:cloud_cover": CloudClass.CLOUD, "s2:cloud_shadow_percentage": CloudClass.CLOUD_SHADOW}
    properties = body["properties"] | {
        "updated": stamp,
        "processing:datetime": stamp,
        **{name: cover(counts, code) or 0.0 for name, code in stated.items()},
        FINGERPRINT: revision.around if revision.pixels else revision.single,
        FIELD: {
            "single_date": revision.single,
            "fingerprint": revision.around,
            "dates": revision.dates,
            "most": revision.most,
            "pixels": revision.pixels,
        },
    }
    assets = dict(body["assets"])
    for key, file in files.items():
        assets[key] = assets[key] | {"created": stamp, "file:size": file.size, "file:checksum": file.checksum}
    if "cloud_mask" in files:
        assets["cloud_mask"]["classification:classes"] = class_list(counts)
    if "mask_votes" in files:  # written by an earlier version, it may not know all bits
        assets["mask_votes"]["classification:bitfields"] = ASSETS["mask_votes"]["classification:bitfields"]
    return body | {"properties": properties, "assets": assets}
