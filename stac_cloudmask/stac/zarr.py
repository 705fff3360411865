"""Arrays of EOPF Zarr products: fetched chunk by chunk, decoded by GDAL.

GDAL alone takes a chunk that its server fails to give for one without data. So the chunks that are wanted are fetched
here, with the retries of the package, and GDAL reads a copy in memory.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Final

from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile

from stac_cloudmask.errors import BandNotFoundError, ReadError, UnsupportedItemError
from stac_cloudmask.stac.gdal import permanent
from stac_cloudmask.stac.hrefs import redact
from stac_cloudmask.stac.metadata import MAX_PIXELS, number
from stac_cloudmask.stac.static import Connection, JsonReader, MissingError, json_object

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stac_cloudmask.retry import RetryPolicy

Json = Mapping[str, Any]

LARGEST_CHUNK: Final = MAX_PIXELS // 4
"""Pixels."""


@dataclass(frozen=True, kw_only=True)
class ZarrArray:
    """A two-dimensional array of Zarr format 2.

    Attributes:
        href: Absolute.
        where: How messages name it.
        retry: With failing servers.
        shape: Rows and columns.
        chunks: Rows and columns of a chunk.
        key: Name of a chunk from ``{0}``, its place among rows, and ``{1}``, among columns.
        attributes: As the array states them; a statement of EOPF's own counts where there is no other.
        documents: Metadata and coordinates by their path from the group of the array.
    """

    href: str
    where: str
    retry: RetryPolicy = field(repr=False)
    shape: tuple[int, int]
    chunks: tuple[int, int]
    key: str
    attributes: Json
    documents: Mapping[str, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        """Its name in its group."""
        return self.href.rpartition("/")[2]

    @property
    def scale_and_offset(self) -> tuple[float | None, float | None]:
        """What a stored number is multiplied by, and what is added then; None where it does not say."""
        return number(self.attributes.get("scale_factor")), number(self.attributes.get("add_offset"))

    def read(self, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.generic]:
        """The pixels of some rows and columns, each from the first to before the last; without a chunk its fill value.

        Raises:
            ReadError: A server fails, or a chunk cannot be decoded.
        """
        places = (
            range(first // side, -(-last // side))
            for (first, last), side in zip((rows, cols), self.chunks, strict=True)
        )
        names = [self.key.format(*place) for place in product(*places)]
        with _reading(self.where, self.retry) as reader:
            found = {f"{self.name}/{name}": _optional(reader, f"{self.href}/{name}") for name in names}
        with self.open({name: chunk for name, chunk in found.items() if chunk is not None}) as file:
            pixels: NDArray[np.generic] = file.read(1, window=(rows, cols))
            return pixels

    @contextmanager
    def open(self, chunks: Mapping[str, bytes] | None = None) -> Iterator[DatasetReader]:
        """The array with some of its chunks.

        Raises:
            ReadError: It cannot be decoded.
        """
        folder = uuid.uuid4().hex
        try:
            with ExitStack() as files:
                for name, content in (dict(self.documents) | dict(chunks or {})).items():
                    files.enter_context(MemoryFile(content, dirname=folder, filename=name))
                path = f'ZARR:"/vsimem/{folder}/{self.name}"'
                yield files.enter_context(DatasetReader(path, driver=["Zarr"], sharing=False))
        except RasterioError as error:
            text = str(error.__cause__ or error).replace(folder, "")
            raise permanent(
                f"{self.where} ({redact(self.href)}) is not a Zarr array that GDAL can decode: {text[:200]}"
            ) from error


def open_array(href: str, *, where: str, retry: RetryPolicy) -> ZarrArray:
    """Read the metadata and coordinates of an array.

    Raises:
        BandNotFoundError: There is none.
        UnsupportedItemError: It is not a two-dimensional array of chunks of a believable size.
        ReadError: Its server fails.
    """
    with _reading(where, retry) as reader:
        group, _, name = href.rpartition("/")
        documents = _documents(reader, group, name)
        if f"{name}/.zarray" not in documents:
            raise BandNotFoundError(f"{where}: there is no Zarr array (of format 2) at {redact(href)}")
        shape, chunks, key, attributes, dimensions = _layout(documents, name, where)
        if len(shape) != 2 or len(chunks) != 2 or min(*shape, *chunks) < 1 or prod(chunks) > LARGEST_CHUNK:  # noqa: PLR2004
            raise UnsupportedItemError(
                f"{where} is a Zarr array of {shape} in chunks of {chunks}; one of rows and columns is needed"
            )
        for axis in dimensions:
            documents |= _coordinates(reader, group, axis, where)
    return ZarrArray(
        href=href,
        where=where,
        retry=retry,
        shape=(shape[0], shape[1]),
        chunks=(chunks[0], chunks[1]),
        key=key,
        attributes=attributes,
        documents=documents,
    )


def _documents(reader: JsonReader, group: str, name: str) -> dict[str, bytes]:
    found = {f"{name}/{key}": _optional(reader, f"{group}/{name}/{key}") for key in (".zarray", ".zattrs")}
    return {path: content for path, content in found.items() if content is not None}


def _layout(
    documents: Mapping[str, bytes], name: str, where: str
) -> tuple[tuple[int, ...], tuple[int, ...], str, Json, list[str]]:
    """Shape, shape of a chunk, name of a chunk, attributes, and names of the dimensions."""
    try:
        array = json_object(documents[f"{name}/.zarray"], where)
        attributes = json_object(documents.get(f"{name}/.zattrs", b"{}"), where)
        shape, chunks = (tuple(int(side) for side in array[key]) for key in ("shape", "chunks"))
        key = str(array.get("dimension_separator", ".")).join(f"{{{axis}}}" for axis in range(len(shape)))
        return shape, chunks, key, _merged(attributes), list(map(str, attributes.get("_ARRAY_DIMENSIONS", [])))
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedItemError(f"{where}: metadata of Zarr array {name!r} are broken: {error!r}") from None


def _merged(attributes: Json) -> Json:
    own = attributes.get("_eopf_attrs")
    return {**(own if isinstance(own, Mapping) else {}), **attributes}


def _coordinates(reader: JsonReader, group: str, axis: str, where: str) -> dict[str, bytes]:
    """The metadata and chunks of the coordinates of an axis; nothing where there are none."""
    documents = _documents(reader, group, axis) if re.fullmatch(r"\w+", axis) else {}
    if f"{axis}/.zarray" not in documents:
        return {}
    shape, chunks, key, *_ = _layout(documents, axis, where)
    counts = (range(-(-side // chunk)) for side, chunk in zip(shape, chunks, strict=True))
    names = [f"{axis}/{key.format(*place)}" for place in product(*counts)]
    found = {name: _optional(reader, f"{group}/{name}") for name in names}
    return documents | {name: content for name, content in found.items() if content is not None}


def _optional(reader: JsonReader, href: str) -> bytes | None:
    """What lies at an href; None if nothing does."""
    try:
        return reader.fetch(href)
    except MissingError:
        return None


@contextmanager
def _reading(where: str, retry: RetryPolicy) -> Iterator[JsonReader]:
    """What fetches; its errors name what they were for."""
    try:
        with JsonReader(Connection(policy=retry)) as reader:
            yield reader
    except ReadError as error:
        if where not in str(error):
            error.args = (f"{where}: {error}",)
        raise
