"""What a mask is judged by: a reference as the user names it, and what its values mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.stac.labels import FIELD, Meaning, is_vector, raster_labels, vector_labels

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Grid

NAMES: Final[Mapping[str, int]] = MappingProxyType(
    {info.name: int(info.code) for info in CLASSES}
    | dict.fromkeys(("thick_cloud", "thin_cloud", "cirrus", "cloud_medium_probability", "cloud_high_probability"), 1)
    | dict.fromkeys(("shadow", "cloud_shadows"), 2)
    | dict.fromkeys(("no_data", "unlabeled", "unlabelled", "ignore", "outside"), 255)
)
"""Code by the class's name, as others spell it; any other name (water, snow, land, ...) is clear."""
OWN_CODES: Final[Mapping[str, int]] = MappingProxyType({str(int(info.code)): int(info.code) for info in CLASSES})
CONVENTIONS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        "shadow": MappingProxyType({"1": int(CloudClass.CLOUD_SHADOW), "255": int(CloudClass.NODATA)}),
        "cloud": MappingProxyType({"1": int(CloudClass.CLOUD), "255": int(CloudClass.NODATA)}),
    }
)
"""By the end of the asset key, as in ``reference-shadow``: 1 is that class, 255 has no label."""
SCL_VALUES: Final[Mapping[str, int]] = MappingProxyType(
    {"0": int(CloudClass.NODATA)}
    | {str(code): int(CloudClass.CLOUD) for code in Settings.scl_cloud}
    | {str(code): int(CloudClass.CLOUD_SHADOW) for code in Settings.scl_shadow}
)
"""What the product's own mask means, as a run takes it by default; all else is clear."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Labels to judge by.

    Attributes:
        source: Key of an asset of the items, or path of a raster, GeoJSON or GeoPackage file for all of them.
        values: Class code by the label's value, as the user says; empty where the source itself tells.
        field: Property of a vector's features that holds the class.
    """

    source: str
    values: Mapping[str, int]
    field: str = FIELD

    @property
    def is_file(self) -> bool:
        """Whether the source is a file rather than an asset."""
        return is_vector(self.source) or self.source.lower().endswith((".tif", ".tiff")) or Path(self.source).exists()


def parse_reference(text: str) -> Reference:
    """A reference from ``SOURCE`` or ``SOURCE::VALUE=CLASS,...``; ``field=NAME`` names a vector's property.

    Raises:
        ConfigError: It is none.
    """
    source, _, meanings = text.partition("::")
    pairs = [pair.partition("=") for pair in meanings.split(",") if pair]
    if not source or not all(value and sign and name for value, sign, name in pairs):
        raise ConfigError(f"{text!r} is no reference; write SOURCE or SOURCE::VALUE=CLASS,..., as labels.tif::1=cloud")
    said = {value.strip().lower(): name.strip() for value, _, name in pairs}
    field = said.pop("field", FIELD)
    if unknown := [name for name in said.values() if name.lower() not in NAMES]:
        raise ConfigError(f"{text!r}: no class {unknown[0]!r}; there are {', '.join(info.name for info in CLASSES)}")
    return Reference(source=source, values={value: NAMES[name.lower()] for value, name in said.items()}, field=field)


def meaning_of(reference: Reference, asset: Mapping[str, Any]) -> Meaning:
    """What its values mean: by the user, else by the class table of the asset, else by its key, else as our own codes.

    Args:
        reference: As the user named it.
        asset: The JSON of the asset; empty for a file.
    """
    if reference.values:
        return Meaning(values=reference.values, otherwise=int(CloudClass.CLEAR))
    classes = asset.get("classification:classes")
    if isinstance(classes, list) and classes:
        entries = [entry for entry in classes if isinstance(entry, dict)]
        named = {str(entry.get("value")): _plain(str(entry.get("name"))) for entry in entries}
        return Meaning(values={value: NAMES.get(name, int(CloudClass.CLEAR)) for value, name in named.items()})
    if is_vector(reference.source):
        return Meaning(values={**NAMES, **OWN_CODES})
    endings = (
        values for ending, values in CONVENTIONS.items() if reference.source.endswith(("-" + ending, "_" + ending))
    )
    convention = next(endings, None)
    return (
        Meaning(values=OWN_CODES) if convention is None else Meaning(values=convention, otherwise=int(CloudClass.CLEAR))
    )


def judged_classes(meaning: Meaning) -> tuple[int, ...]:
    """The classes that labels of this meaning tell from the rest."""
    return tuple(sorted(set(meaning.values.values()) - {int(CloudClass.CLEAR), int(CloudClass.NODATA)}))


def read_labels(reference: Reference, href: str, grid: Grid, meaning: Meaning) -> NDArray[np.uint8]:
    """The labels on the grid of a mask, ``(y, x)`` class codes; 255 where there is none."""
    if is_vector(href):
        return vector_labels(Path(href), grid, meaning, field=reference.field)
    return raster_labels(href, grid, meaning)


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")
