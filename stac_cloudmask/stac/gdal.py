"""How GDAL opens rasters: environment, retries, drivers, and what its errors mean."""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx
import numpy as np
import rasterio
from rasterio.errors import CRSError, RasterioError, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from stac_cloudmask.errors import BandNotFoundError, ReadError, StacCloudmaskError, UnsupportedItemError
from stac_cloudmask.stac.hrefs import HrefRule, check_addresses, check_href, is_remote, redact, split
from stac_cloudmask.stac.providers import store_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stac_cloudmask.stac.bands import BandSource

DRIVERS: Final = ("GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID")
"""Formats that hold pixels themselves; others, VRT first of all, can lead to any other file."""


@contextmanager
def open_image(href: str, env: Mapping[str, str], *, where: str) -> Iterator[DatasetReader]:
    """A GeoTIFF or JPEG 2000 that holds all of its pixels itself.

    Args:
        href: Allowed by the rule of ``hrefs``, and signed.
        env: GDAL settings, see ``transport.gdal_env``.
        where: How messages name it.

    Raises:
        UnsupportedItemError: Its metadata lead to another file, or are broken.
        RasterioError: GDAL's.
    """
    try:
        with rasterio.Env(**env), DatasetReader(href, driver=list(DRIVERS), sharing=False) as file:
            if file.tags(ns="OVERVIEWS"):  # GDAL would open what OVERVIEW_FILE names, of any format and at any place
                raise UnsupportedItemError(f"{where} keeps its overviews in another file; they must be in its own")
            yield file
    except (UnicodeError, CRSError) as error:
        raise UnsupportedItemError(f"{where} has a broken header: {str(error)[:200]}") from None


def is_file(path: str) -> bool:
    """Whether there is a local file."""
    try:
        return Path(path).is_file()
    except OSError:  # a name that no file can have
        return False


logger = logging.getLogger(__name__)
Value = TypeVar("Value")
Given_co = TypeVar("Given_co", covariant=True)

RETRIED: Final = "408,429,500,502,503,504"
ALL_REMOTE: Final = "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/"
MAX_REDIRECTS: Final = 5
PORTS: Final = {"http": 80, "https": 443}
CONNECT_SECONDS: Final = 20
"""How long a host may take to accept a connection."""
LOADERS: Final = ("odc.loader._rio", "rasterio._env", "rasterio._err", "rasterio._io", "stackstac.rio_reader")
"""Loggers that write hrefs, signatures included."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a read bears with a server that fails.

    Attributes:
        retries: Of a single request, by GDAL.
        delay: Seconds before the first of them, about doubled before each further one.
        attempts: Of a whole strip; from the second on nothing cached is believed, and hrefs are signed anew.
        timeout: Seconds for a single request.
    """

    retries: int = 6
    delay: float = 0.5
    attempts: int = 3
    timeout: int = 300


def gdal_env(hrefs: Iterable[str], *, patience: Patience, fresh: bool) -> dict[str, str]:
    """GDAL settings for reading absolute, unsigned hrefs.

    Args:
        hrefs: What will be read.
        patience: With failing servers.
        fresh: Whether to ask again for what GDAL remembers; it remembers failures for as long as the process lives.
    """
    stores = [store for store in map(store_of, hrefs) if store is not None]
    signed = any(store.signing for store in stores)
    settings = {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # 2 requests per open instead of 10
        "GDAL_HTTP_MAX_RETRY": str(patience.retries),
        "GDAL_HTTP_RETRY_DELAY": str(patience.delay),
        # some stores answer 403 when overloaded; where the href is signed, 403 means that the signature has expired
        "GDAL_HTTP_RETRY_CODES": RETRIED if signed else f"403,{RETRIED}",
        "GDAL_HTTP_MULTIRANGE": "SERIAL",  # the default path has no retry before GDAL 3.13 (OSGeo/gdal issue 12933)
        "GDAL_HTTP_CONNECTTIMEOUT": str(CONNECT_SECONDS),
        "GDAL_HTTP_TIMEOUT": str(patience.timeout),
        "GDAL_HTTP_LOW_SPEED_TIME": "60",
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    }
    if fresh:
        settings["CPL_VSIL_CURL_NON_CACHED"] = ALL_REMOTE
    for store in stores:
        settings.update(store.gdal)
    return settings


class Attempt(Protocol[Given_co]):
    """A read that may fail; ``fresh``: whether caches are to be left aside."""

    def __call__(self, *, fresh: bool) -> Given_co:
        """What was read."""
        ...


def persist(read: Attempt[Value], *, source: BandSource, patience: Patience, first: int = 1) -> Value:
    """What ``read`` gives, tried again while the infrastructure fails.

    Args:
        read: Reads from ``source``.
        source: For messages.
        patience: How often, and how long between.
        first: Number of the first attempt, if others were made elsewhere.

    Raises:
        BandNotFoundError: The file does not exist.
        ReadError: It cannot be read; ``retryable`` where that may change.
    """
    for attempt in range(min(first, patience.attempts), patience.attempts + 1):
        try:
            if attempt > 1:
                require_answer(source)
            return read(fresh=attempt > 1)
        except (RasterioError, RuntimeError, OSError) as error:
            failure = explain(error, source)
        remembered = attempt == 1 and is_remote(source.href)  # then even "does not exist" may be GDAL's memory
        if attempt == patience.attempts or not (failure.retryable or remembered):
            raise failure
        logger.info("%s; attempt %d of %d", failure, attempt, patience.attempts)
        time.sleep(patience.delay * 2**attempt if failure.retryable else 0)
    raise AssertionError("unreachable")


def require_answer(source: BandSource) -> None:
    """Find out whether the host of a URL takes connections at all, which GDAL would try for a minute each time.

    Where there is a proxy, only that one knows.

    Raises:
        ReadError: It does not.
    """
    url = split(source.href)
    host = url.hostname or ""
    if url.scheme not in PORTS or (getproxies().keys() - {"no"} and not proxy_bypass(host)):
        return
    try:
        socket.create_connection((host, url.port or PORTS[url.scheme]), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ReadError(f"{source.where} ({redact(source.href)}): its host cannot be reached: {error}") from error


def explain(error: Exception, source: BandSource) -> StacCloudmaskError:
    """What an error of GDAL or of a loader means, without secrets.

    Raises:
        Exception: The error itself, if it is none of theirs.
    """
    if isinstance(error, StacCloudmaskError):
        return error
    chain = list(_chain(error))
    if not any(isinstance(link, RasterioError) for link in chain):
        raise error
    text = redact("; ".join(dict.fromkeys(str(link) for link in chain)))
    code = re.search(r"HTTP response code: (\d{3})", text)
    where = f"{source.where} ({redact(source.href)})"
    if (code and code[1] in {"404", "410"}) or "No such file" in text or "NoSuch" in text:
        return BandNotFoundError(
            f"{where} does not exist ({code[0] if code else 'no such file'}); is the item up to date?"
        )
    if code and code[1] in {"401", "403"}:
        return ReadError(f"{where} may not be read ({code[0]}); it needs credentials or a signature that are not there")
    if is_remote(source.href):
        return ReadError(f"{where} could not be read, its server fails or its file is damaged: {text[:300]}")
    return damaged(where, text)


def damaged(where: str, text: str) -> ReadError:
    """An error that the same file will give again."""
    failure = ReadError(f"{where} is damaged, truncated or no image: {text[:300]}; fetch it again")
    failure.retryable = False
    return failure


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def check_redirects(href: str, *, base: str | None, rule: HrefRule) -> None:
    """Follow an href's redirects and host names as far as the rule of ``hrefs`` lets them be read.

    GDAL follows redirects wherever they lead, so a remote item's http hrefs are asked for one byte first. A server
    that fails here is left to the read itself.

    Raises:
        UnsupportedItemError: A redirect that the rule refuses, or a public name with a loopback or link-local address.
    """
    if base is None or not is_remote(base) or not href.startswith(("http://", "https://")):
        return
    with httpx.Client(follow_redirects=False, timeout=20.0, headers={"Range": "bytes=0-0"}) as client:
        for _ in range(MAX_REDIRECTS):
            check_addresses(href, base=base, rule=rule)
            target = _redirect(client, href)
            if target is None:
                return
            href = check_href(target, base=base, rule=rule)
    raise UnsupportedItemError(f"href {redact(href)!r} redirects more than {MAX_REDIRECTS} times")


def _redirect(client: httpx.Client, href: str) -> str | None:
    try:
        with client.stream("GET", href) as answer:
            return str(answer.url.join(answer.headers["location"])) if answer.has_redirect_location else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None


class _Redacting(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


_REDACTING: Final = _Redacting()


def quiet_loaders() -> None:
    """Keep signatures out of what the loaders log."""
    for name in LOADERS:
        logging.getLogger(name).addFilter(_REDACTING)


@dataclass(frozen=True)
class Raster:
    """An open raster.

    Attributes:
        path: Where it is.
        shape: ``(band, y, x)``.
        nodata: The value that marks a pixel without data, in every band; None if the file names none.
        crs: Coordinate reference system as WKT; None if the file has none.
        transform: Affine coefficients in rasterio's order.
        rows: ``(row_off, height)`` -> digital numbers ``(band, height, x)`` uint16.
    """

    path: Path
    shape: tuple[int, int, int]
    nodata: float | None
    crs: str | None
    transform: tuple[float, float, float, float, float, float]
    rows: Callable[[int, int], NDArray[np.uint16]]


@contextmanager
def open_raster(path: str | Path, *, in_memory: bool = False) -> Iterator[Raster]:
    """A GeoTIFF or JPEG 2000 of unsigned integers of at most 16 bits; read whole first where ``in_memory``.

    Raises:
        ReadError: It cannot be opened or read, as rasters of other formats cannot.
        UnsupportedItemError: It holds other numbers, or its metadata lead to another file.
    """
    try:
        with open_image(str(path), {}, where=str(path)) as source:
            if any(dtype not in ("uint8", "uint16") for dtype in source.dtypes):
                found = ", ".join(sorted(set(source.dtypes)))
                raise UnsupportedItemError(f"{path}: holds {found}; digital numbers (uint16 or uint8) are expected")
            yield Raster(
                path=Path(path),
                shape=(source.count, source.height, source.width),
                nodata=source.nodata,
                crs=source.crs.to_wkt() if source.crs else None,
                transform=tuple(source.transform)[:6],
                rows=_whole(source) if in_memory else _by_window(source),
            )
    except RasterioIOError as error:
        raise ReadError(f"{path}: cannot be read as a GeoTIFF or JPEG 2000: {error}") from error


def _by_window(source: Any) -> Callable[[int, int], NDArray[np.uint16]]:  # noqa: ANN401  (rasterio has no types)
    def rows(row_off: int, height: int) -> NDArray[np.uint16]:
        window = Window(0, row_off, source.width, height)
        return np.asarray(source.read(window=window, out_dtype="uint16"))

    return rows


def _whole(source: Any) -> Callable[[int, int], NDArray[np.uint16]]:  # noqa: ANN401
    scene = np.asarray(source.read(out_dtype="uint16"))
    return lambda row_off, height: scene[:, row_off : row_off + height]
