"""Arrays of EOPF Zarr products: fetched chunk by chunk, decoded by GDAL.

GDAL treats a chunk that its server fails to deliver as one without data. Therefore the required chunks are fetched
here, with the package's retries, and GDAL reads a copy in memory.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile

from stac_cloudmask.errors import BandNotFoundError, ReadError, UnsupportedItemError, redact
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.connection import Connection, JsonReader, MissingError, json_object
from stac_cloudmask.stac.gdal import DamagedError

METADATA: Final = (".zarray", ".zattrs")


class Layout(NamedTuple):
    """The layout of an array in its folder.

    Attributes:
        shape: Pixels along each axis.
        chunks: Pixels of a chunk along each axis.
        separator: What stands between the numbers in the name of a chunk.
        attributes: Attributes of the array; EOPF's own are used if there are no others.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    separator: str
    attributes: Mapping[str, Any]

    def names(self, spans: Iterable[tuple[int, int]]) -> list[str]:
        """Return the names of the chunks from the first to before the last pixel along each axis."""
        places = [
            range(first // side, -(-last // side)) for (first, last), side in zip(spans, self.chunks, strict=True)
        ]
        return [self.separator.join(map(str, place)) for place in product(*places)]


@dataclass(frozen=True, kw_only=True)
class ZarrArray:
    """A two-dimensional array of Zarr format 2.

    Attributes:
        group: Absolute href of the folder that holds it and its coordinates, with a slash at the end.
        name: Its name there.
        where: Name for messages.
        retry: Retry settings for failing servers.
        layout: Rows first, then columns.
        documents: Metadata and coordinates by their path from the group.
    """

    group: str
    name: str
    where: str
    retry: RetryPolicy = field(repr=False)
    layout: Layout
    documents: Mapping[str, bytes] = field(repr=False)

    def read(self, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.generic]:
        """Return some rows and columns, each from the first to before the last; missing chunks have the fill value.

        Raises:
            ReadError: A server fails, or a chunk cannot be decoded.
        """
        with JsonReader(Connection(policy=self.retry)) as reader:
            names = self.layout.names((rows, cols))
            chunks = _existing(reader, self.group, self.name, names, where=self.where)
        with self.open(chunks) as file:
            pixels: NDArray[np.generic] = file.read(1, window=(rows, cols))
            return pixels

    @contextmanager
    def open(self, chunks: Mapping[str, bytes]) -> Iterator[DatasetReader]:
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
            text, shown = str(error.__cause__ or error).replace(folder, ""), redact(self.group + self.name)
            raise DamagedError(
                f"{self.where} ({shown}) is not a Zarr array that GDAL can decode: {text[:200]}"
            ) from error


def open_array(href: str, *, where: str, retry: RetryPolicy) -> ZarrArray:
    """Read the metadata and coordinates of an array.

    Raises:
        BandNotFoundError: The array does not exist.
        UnsupportedItemError: It is not a two-dimensional array.
        ReadError: Its server fails.
    """
    head, slash, name = href.rpartition("/")
    group = head + slash
    with JsonReader(Connection(policy=retry)) as reader:
        existing = partial(_existing, reader, group, where=where)
        documents = existing(name, METADATA)
        if f"{name}/.zarray" not in documents:
            raise BandNotFoundError(f"{where}: there is no Zarr array (of format 2) at {redact(href)}")
        layout = _layout(documents, name, where)
        shape, chunks = layout.shape, layout.chunks
        if len(shape) != 2 or len(chunks) != 2 or min(*shape, *chunks) < 1:  # noqa: PLR2004
            raise UnsupportedItemError(
                f"{where} is a Zarr array of {shape} in chunks of {chunks}; one of rows and columns is needed"
            )
        for axis in map(str, layout.attributes.get("_ARRAY_DIMENSIONS", [])):
            coordinates = existing(axis, METADATA) if re.fullmatch(r"\w+", axis) else {}
            if f"{axis}/.zarray" in coordinates:
                along = _layout(coordinates, axis, where)
                documents |= coordinates | existing(axis, along.names((0, side) for side in along.shape))
    return ZarrArray(group=group, name=name, where=where, retry=retry, layout=layout, documents=documents)


def _layout(documents: Mapping[str, bytes], name: str, where: str) -> Layout:
    try:
        array = json_object(documents[f"{name}/.zarray"], where)
        stated = json_object(documents.get(f"{name}/.zattrs", b"{}"), where)
        shape, chunks = (tuple(int(side) for side in array[key]) for key in ("shape", "chunks"))
        own = stated.get("_eopf_attrs")
        attributes = {**(own if isinstance(own, Mapping) else {}), **stated}
        return Layout(shape, chunks, str(array.get("dimension_separator", ".")), attributes)
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedItemError(f"{where}: metadata of Zarr array {name!r} are broken: {error!r}") from None


def _existing(reader: JsonReader, group: str, array: str, names: Iterable[str], *, where: str) -> dict[str, bytes]:
    """Return the existing files of an array, by their path from its group; errors name the asset."""
    found = {}
    for path in (f"{array}/{name}" for name in names):
        try:
            found[path] = reader.fetch(group + path)
        except MissingError:
            continue
        except ReadError as error:
            error.args = (f"{where}: {error}",)
            raise
    return found
