"""Arrays of EOPF Zarr products: fetched chunk by chunk, decoded by GDAL.

GDAL treats a chunk that its server fails to deliver as one without data. Therefore the required chunks are fetched
here, with the package's retries, and GDAL reads a copy in memory.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile

from stac_cloudmask.errors import BandNotFoundError, ReadError, UnsupportedItemError, redact
from stac_cloudmask.stac.connection import Connection, JsonReader, MissingError, json_object
from stac_cloudmask.stac.gdal import DamagedError
from stac_cloudmask.stac.metadata import MAX_PIXELS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stac_cloudmask.retry import RetryPolicy

Json = Mapping[str, Any]

METADATA: Final = (".zarray", ".zattrs")
NO_CHUNKS: Final[Mapping[str, bytes]] = MappingProxyType({})
LARGEST_CHUNK: Final = MAX_PIXELS // 4
"""Pixels."""


class Layout(NamedTuple):
    """The layout of an array in its folder.

    Attributes:
        shape: Pixels along each axis.
        chunks: Pixels of a chunk along each axis.
        key: Name of a chunk from ``{0}``, its place along the first axis, and so on.
        attributes: Attributes of the array; EOPF's own are used if there are no others.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    key: str
    attributes: Json

    def names(self, spans: Sequence[tuple[int, int]]) -> list[str]:
        """Return the names of the chunks from the first to before the last pixel along each axis."""
        places = (
            range(first // side, -(-last // side)) for (first, last), side in zip(spans, self.chunks, strict=True)
        )
        return [self.key.format(*place) for place in product(*places)]


@dataclass(frozen=True, kw_only=True)
class ZarrArray:
    """A two-dimensional array of Zarr format 2.

    Attributes:
        href: Absolute href.
        where: Name for messages.
        retry: Retry settings for failing servers.
        layout: Rows first, then columns.
        documents: Metadata and coordinates by their path from the group of the array.
    """

    href: str
    where: str
    retry: RetryPolicy = field(repr=False)
    layout: Layout
    documents: Mapping[str, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        """Its name in its group."""
        return self.href.rpartition("/")[2]

    def read(self, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.generic]:
        """Return some rows and columns, each from the first to before the last; missing chunks have the fill value.

        Raises:
            ReadError: A server fails, or a chunk cannot be decoded.
        """
        with _reading(self.where, self.retry) as reader:
            chunks = _there(reader, self.href.removesuffix(self.name), self.name, self.layout.names((rows, cols)))
        with self.open(chunks) as file:
            pixels: NDArray[np.generic] = file.read(1, window=(rows, cols))
            return pixels

    @contextmanager
    def open(self, chunks: Mapping[str, bytes] = NO_CHUNKS) -> Iterator[DatasetReader]:
        """Open the array with some of its chunks.

        Raises:
            ReadError: The array cannot be decoded.
        """
        folder = uuid.uuid4().hex
        try:
            with ExitStack() as files:
                for name, content in {**self.documents, **chunks}.items():
                    files.enter_context(MemoryFile(content, dirname=folder, filename=name))
                path = f'ZARR:"/vsimem/{folder}/{self.name}"'
                yield files.enter_context(DatasetReader(path, driver=["Zarr"], sharing=False))
        except RasterioError as error:
            text = str(error.__cause__ or error).replace(folder, "")
            raise DamagedError(
                f"{self.where} ({redact(self.href)}) is not a Zarr array that GDAL can decode: {text[:200]}"
            ) from error


def open_array(href: str, *, where: str, retry: RetryPolicy) -> ZarrArray:
    """Read the metadata and coordinates of an array.

    Raises:
        BandNotFoundError: The array does not exist.
        UnsupportedItemError: It is not a two-dimensional array of chunks of a plausible size.
        ReadError: Its server fails.
    """
    head, slash, name = href.rpartition("/")
    group = head + slash
    with _reading(where, retry) as reader:
        documents = _there(reader, group, name, METADATA)
        if f"{name}/.zarray" not in documents:
            raise BandNotFoundError(f"{where}: there is no Zarr array (of format 2) at {redact(href)}")
        layout = _layout(documents, name, where)
        shape, chunks = layout.shape, layout.chunks
        if len(shape) != 2 or len(chunks) != 2 or min(*shape, *chunks) < 1 or prod(chunks) > LARGEST_CHUNK:  # noqa: PLR2004
            raise UnsupportedItemError(
                f"{where} is a Zarr array of {shape} in chunks of {chunks}; one of rows and columns is needed"
            )
        for axis in map(str, layout.attributes.get("_ARRAY_DIMENSIONS", [])):
            documents |= _coordinates(reader, group, axis, where)
    return ZarrArray(href=href, where=where, retry=retry, layout=layout, documents=documents)


def _layout(documents: Mapping[str, bytes], name: str, where: str) -> Layout:
    try:
        array = json_object(documents[f"{name}/.zarray"], where)
        stated = json_object(documents.get(f"{name}/.zattrs", b"{}"), where)
        shape, chunks = (tuple(int(side) for side in array[key]) for key in ("shape", "chunks"))
        key = str(array.get("dimension_separator", ".")).join(f"{{{axis}}}" for axis in range(len(shape)))
        own = stated.get("_eopf_attrs")
        return Layout(shape, chunks, key, {**(own if isinstance(own, Mapping) else {}), **stated})
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedItemError(f"{where}: metadata of Zarr array {name!r} are broken: {error!r}") from None


def _coordinates(reader: JsonReader, group: str, axis: str, where: str) -> dict[str, bytes]:
    """Return the metadata and chunks of the coordinates of an axis; empty if there are none."""
    documents = _there(reader, group, axis, METADATA) if re.fullmatch(r"\w+", axis) else {}
    if f"{axis}/.zarray" not in documents:
        return {}
    layout = _layout(documents, axis, where)
    return documents | _there(reader, group, axis, layout.names([(0, side) for side in layout.shape]))


def _there(reader: JsonReader, group: str, array: str, names: Iterable[str]) -> dict[str, bytes]:
    """Return the existing files of an array, by their path from its group, whose href ends with a slash."""
    found = {}
    for path in (f"{array}/{name}" for name in names):
        with suppress(MissingError):
            found[path] = reader.fetch(group + path)
    return found


@contextmanager
def _reading(where: str, retry: RetryPolicy) -> Iterator[JsonReader]:
    """Open the reader for fetching; its errors name the asset."""
    try:
        with JsonReader(Connection(policy=retry)) as reader:
            yield reader
    except ReadError as error:
        if where not in str(error):
            error.args = (f"{where}: {error}",)
        raise
