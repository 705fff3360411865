"""Masks of many dates of one place, seen together: a surface that is bright on all of them is no cloud.

Each date is masked by itself first. Then, where the cloud model votes cloud and the product does not, and does so on
many of the dates around, the pixel falls back to what the product says. All that this needs is in the published votes.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pystac

from stac_cloudmask.attempts import failed
from stac_cloudmask.core.evidence import Vote
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.core.merge import strips
from stac_cloudmask.core.temporal import extra_clouds, give_back, on_many_dates
from stac_cloudmask.errors import StacCloudmaskError
from stac_cloudmask.pipeline import cover_of
from stac_cloudmask.results import Result
from stac_cloudmask.stac.cog import write_bits_cog, write_class_cog
from stac_cloudmask.stac.facts import class_counts, file_facts
from stac_cloudmask.stac.hrefs import is_remote
from stac_cloudmask.stac.items import OWN, SUFFIX
from stac_cloudmask.stac.layout import own_files
from stac_cloudmask.stac.rasters import open_raster
from stac_cloudmask.stac.revised import Revision, revised, revision_of, single_date

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stac_cloudmask.stac.catalog import OutputCatalog

    Json = dict[str, Any]
    U8 = NDArray[np.uint8]

REACH: Final = 10
"""Dates to look back, and ahead."""
MAP, VOTES = "cloud_mask", "mask_votes"
MERGE: Final = f"{OWN}merge"


@dataclass(frozen=True)
class Date:
    """A mask among those of its place, and the href of its item."""

    href: str
    ids: tuple[str, str]
    body: Json

    @property
    def single(self) -> str:
        """Fingerprint of the mask as its own date gave it."""
        return single_date(self.body)

    @property
    def grid(self) -> Grid:
        """Of its maps."""
        stated = self.body["properties"]
        gsd, _, left, _, _, top = stated["proj:transform"][:6]
        height, width = stated["proj:shape"]
        epsg = int(stated["proj:code"].removeprefix("EPSG:"))
        return Grid(epsg=epsg, left=left, top=top, gsd=gsd, height=height, width=width)


def revise(catalog: OutputCatalog, hrefs: Iterable[str], *, most: int) -> Iterator[Result]:
    """Revise masks by the others of the same place; running it again changes nothing.

    Args:
        catalog: Where they are.
        hrefs: Of their items; those without votes are left alone.
        most: On more than this many of the dates around, a cloud that only the model sees is a bright surface.

    Yields:
        A result for every mask whose pixels change, and for every one that could not be revised.
    """
    for dates in _places(catalog, hrefs):
        try:
            yield from _revise_place(catalog, dates, most)
        except StacCloudmaskError as error:
            yield from (failed(_source_id(date), error) for date in dates)


def _places(catalog: OutputCatalog, hrefs: Iterable[str]) -> Iterator[list[Date]]:
    """Masks on one grid and of one collection, in order of time."""
    places: dict[tuple[str, Grid], list[Date]] = defaultdict(list)
    for href in hrefs:
        ids = catalog.ids(href)
        body = catalog.stored(*ids)
        if body is not None and VOTES in body["assets"]:
            date = Date(href, ids, body)
            places[ids[0], date.grid].append(date)
    for dates in places.values():
        yield sorted(dates, key=lambda date: (date.body["properties"]["datetime"] or "", date.ids))


def _revise_place(catalog: OutputCatalog, dates: Sequence[Date], most: int) -> Iterator[Result]:
    around = [_fingerprint(dates, number, most) for number in range(len(dates))]
    if all(revision_of(date.body).get("fingerprint") == wanted for date, wanted in zip(dates, around, strict=True)):
        return
    with ExitStack() as stack:
        work = stack.enter_context(catalog.workdir())
        bright = _bright([_fetched(catalog, date, VOTES, work) for date in dates], dates[0].grid, most)
        for number, date in enumerate(dates):
            seen = len(dates[max(number - REACH, 0) : number + REACH + 1])
            revision = Revision(single=date.single, around=around[number], dates=seen, most=most, pixels=0)
            result = _revise_date(catalog, date, bright[number], revision, work)
            if result is not None:
                yield result


def _fingerprint(dates: Sequence[Date], number: int, most: int) -> str:
    """Hash of a mask, of those around it, and of how they are looked at."""
    others = [date.single for date in dates[max(number - REACH, 0) : number + REACH + 1]]
    return hashlib.sha256(json.dumps([dates[number].single, others, REACH, most]).encode()).hexdigest()


def _bright(votes: Sequence[Path], grid: Grid, most: int) -> list[list[U8]]:
    """Where surfaces are bright, by date and strip, packed to bits: all dates of a whole tile fit into memory."""
    packed: list[list[U8]] = [[] for _ in votes]
    with ExitStack() as stack:
        rasters = [stack.enter_context(open_raster(path)) for path in votes]
        for start, stop in strips(grid.height):
            extra = np.stack([extra_clouds(raster.rows(start, stop - start)[0].astype(np.uint8)) for raster in rasters])
            for kept, found in zip(packed, on_many_dates(extra, reach=REACH, most=most), strict=True):
                kept.append(np.packbits(found, axis=1))
    return packed


def _revise_date(
    catalog: OutputCatalog, date: Date, bright: Sequence[U8], revision: Revision, work: Path
) -> Result | None:
    """Write a mask anew if its pixels change, else only what its item says; a result if they do."""
    grid, key_files = date.grid, {}
    class_map, votes = (_pixels(_fetched(catalog, date, key, work), grid) for key in (MAP, VOTES))
    before = class_map.copy()
    found = np.concatenate([np.unpackbits(strip, axis=1, count=grid.width) for strip in bright]).view(np.bool_)
    if found.any() or revision_of(date.body).get("pixels"):
        buffer = float(date.body["properties"][MERGE]["cloud_buffer"])
        give_back(class_map, votes, found, radius=buffer / grid.gsd)
    done = replace(revision, pixels=int(np.count_nonzero(votes & np.uint8(Vote.BRIGHT))))
    changed = not np.array_equal(before, class_map)
    counts = class_counts(class_map)
    if changed:
        key_files = {MAP: work / f"{MAP}.tif", VOTES: work / f"{VOTES}.tif"}
        write_class_cog(key_files[MAP], class_map, grid)
        write_bits_cog(key_files[VOTES], votes, grid)
    facts = {key: file_facts(path) for key, path in key_files.items()}
    body = revised(date.body, done, counts=counts, files=facts, now=datetime.now(UTC))
    kept = set(own_files(body)) - set(key_files)
    catalog.write_item(pystac.Item.from_dict(body, migrate=False), key_files, kept=kept)
    return _result(date, done, counts) if changed else None


def _result(date: Date, revision: Revision, counts: Mapping[int, int]) -> Result:
    told = f"{revision.pixels} pixels are no cloud, as on more than {revision.most} of {revision.dates} dates"
    return Result(item_id=_source_id(date), status="revised", output=date.href, cover=cover_of(counts), notes=(told,))


def _fetched(catalog: OutputCatalog, date: Date, key: str, work: Path) -> Path:
    """A file of an item on this machine: where it lies, or a copy."""
    name = own_files(date.body)[key]
    if not is_remote(date.href):
        return Path(date.href).with_name(name)
    target = work / f"{date.ids[1]}-{name}"
    if not target.exists():
        catalog.fetch(*date.ids, name, target)
    return target


def _pixels(path: Path, grid: Grid) -> U8:
    with open_raster(path) as raster:
        pixels: U8 = raster.rows(0, grid.height)[0].astype(np.uint8)
        return pixels


def _source_id(date: Date) -> str:
    return date.ids[1].removesuffix(f"_{SUFFIX}")
