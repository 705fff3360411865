"""How GDAL opens rasters: drivers, settings for remote files, and what its errors mean."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from string import ascii_lowercase, digits
from typing import Final, TypeVar

import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader

from stac_cloudmask.errors import BandNotFoundError, ConfigError, ReadError, StacCloudmaskError, UnsupportedItemError
from stac_cloudmask.retry import DEFAULT_POLICY, PASSING, RetryPolicy, retrying
from stac_cloudmask.stac.hrefs import is_file, is_remote, redact
from stac_cloudmask.stac.providers import has_credentials, sign, store_of

Value = TypeVar("Value")

DRIVERS: Final = ("GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID")
"""Formats that hold pixels themselves; others, VRT first of all, can lead to any other file."""
ALL_REMOTE: Final = "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/"
ANY_ENDING: Final = ",".join(f"{ascii_lowercase}{digits}=_-/")
"""Each by itself counts as an extension; an empty list would allow none."""
CONNECT_SECONDS: Final = 3
"""How long a host may take to accept a connection; GDAL tries this as often as anything else."""
SILENCE_SECONDS: Final = 20
"""How long a server may send next to nothing."""
REQUEST_SECONDS: Final = 300
"""How long one request may take in all."""
CUT_SHORT: Final = ("IReadBlock", "Read error", "TIFFRead", "TIFFFetch", "opj_")
NOT_BEGUN: Final = "got 0 bytes"
"""Marks of a body that was cut short, which GDAL does not repeat; it did repeat what gave no byte at all."""
NO_LOGIN: Final = re.compile(
    r"HTTP response code: (401|403|409)|InvalidCredentials|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|AWS_NO_SIGN_REQUEST"
)
ABSENT: Final = re.compile(r"HTTP response code: (404|410)|No such file|NoSuch|does not exist")
LOGGERS: Final = ("odc.loader._rio", "rasterio._env", "rasterio._err", "rasterio._io", "stackstac.rio_reader")
"""Loggers that write hrefs, signatures included."""
_failed: Final[set[str]] = set()
"""Hrefs that could not be read, which GDAL remembers."""


def gdal_env(href: str, *, retry: RetryPolicy, fresh: bool) -> dict[str, str]:
    """GDAL settings for reading an absolute, unsigned href.

    Args:
        href: What will be read.
        retry: With failing servers; GDAL's own repetitions are the only ones of a request for pixels.
        fresh: Whether to ask again for what GDAL remembers; it remembers failures for as long as the process lives.
            With fewer repetitions, as each driver then asks by itself for a file that cannot be had.
    """
    store = store_of(href)
    retry = replace(retry, seconds=retry.seconds / 4) if fresh else retry
    codes = sorted(PASSING if store is not None and store.tokens else {403, *PASSING})
    settings = {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # 2 requests per open instead of 10
        "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ANY_ENDING,  # the user's environment may have a list that hides others
        "GDAL_HTTP_MAX_RETRY": str(retry.repetitions),
        "GDAL_HTTP_RETRY_DELAY": str(retry.pause),
        # some stores answer 403 when overloaded; where the href is signed, 403 means that the signature has expired
        "GDAL_HTTP_RETRY_CODES": ",".join(map(str, codes)),
        "GDAL_HTTP_MULTIRANGE": "SERIAL",  # the default path has no retry before GDAL 3.13 (OSGeo/gdal issue 12933)
        "GDAL_HTTP_CONNECTTIMEOUT": str(CONNECT_SECONDS),
        "GDAL_HTTP_TIMEOUT": str(REQUEST_SECONDS),
        "GDAL_HTTP_LOW_SPEED_TIME": str(SILENCE_SECONDS),
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    }
    if fresh:
        settings["CPL_VSIL_CURL_NON_CACHED"] = ALL_REMOTE
    return settings | dict(store.gdal if store is not None else {})


@contextmanager
def reading(href: str, *, where: str, retry: RetryPolicy) -> Iterator[None]:
    """GDAL as an href needs it; its errors, and those of the libraries on top of it, become errors of this package.

    Args:
        href: Absolute and unsigned.
        where: How messages name it.
        retry: See ``gdal_env``; what failed before is asked for again.

    Raises:
        BandNotFoundError: There is no such file.
        UnsupportedItemError: Its header is broken.
        ReadError: It cannot be read; ``retryable`` where that may change.
    """
    try:
        with rasterio.Env(**gdal_env(href, retry=retry, fresh=href in _failed)):
            yield
        _failed.discard(href)
    except (UnicodeError, CRSError) as error:
        check_proj()
        raise UnsupportedItemError(f"{where} has a broken header: {str(error)[:200]}") from None
    except (RasterioError, RuntimeError, OSError) as error:
        _failed.add(href)
        raise read_error(error, href, where) from error


def dataset(href: str, level: int | None) -> DatasetReader:
    """Return a file of a format that holds its pixels itself, or an overview of it by GDAL's number."""
    options = {} if level is None else {"overview_level": level}
    return DatasetReader(href, driver=list(DRIVERS), sharing=False, **options)


@contextmanager
def open_raster(
    href: str, *, where: str | None = None, retry: RetryPolicy = DEFAULT_POLICY, level: int | None = None
) -> Iterator[DatasetReader]:
    """Open a GeoTIFF or JPEG 2000 that holds all of its pixels itself, or an overview of it; signed as its store wants.

    Args:
        href: Absolute, unsigned, allowed by the rule of ``hrefs``.
        where: How messages name it; None for its href.
        retry: With failing servers.
        level: GDAL's number of the overview; None for the raster itself.

    Raises:
        BandNotFoundError: There is no such file; a ReadError where it is not an item's.
        UnsupportedItemError: Its metadata lead to another file, or are broken.
        ReadError: It cannot be read, as rasters of other formats cannot.
    """
    if not is_remote(href) and not is_file(href):
        if where is None:
            raise DamagedError(f"there is no file {href}")
        raise BandNotFoundError(f"{where}: there is no file {href}; is the item up to date?")
    where = where or redact(href)
    if not has_credentials(href):  # GDAL asks this machine's cloud for some, which is not to be repeated
        retry = replace(retry, seconds=0)
    with (
        reading(href, where=where, retry=retry),
        dataset(sign(href, retry=retry), level) as file,
    ):
        if file.tags(ns="OVERVIEWS"):  # GDAL would open what OVERVIEW_FILE names, of any format and at any place
            raise UnsupportedItemError(f"{where} keeps its overviews in another file; they must be in its own")
        yield file


class DamagedError(ReadError):
    """A file cannot be read and never will be."""

    retryable = False


class CutShortError(ReadError):
    """A server sent less of a file than it had announced."""


def whole(read: Callable[[], Value], *, retry: RetryPolicy) -> Value:
    """Return what ``read`` does; it is called again where an answer was cut short, which GDAL itself does not repeat.

    Raises:
        StacCloudmaskError: See ``reading``.
    """
    return retrying(read, policy=retry, when=lambda error: isinstance(error, CutShortError))


def read_error(error: Exception, href: str, where: str) -> StacCloudmaskError:
    """What an error of GDAL or of a library on top of it means, without secrets.

    Raises:
        Exception: The error itself, if it is none of theirs.
    """
    if isinstance(error, StacCloudmaskError):
        return error
    chain = list(_chain(error))
    if not any(isinstance(link, RasterioError) for link in chain):
        raise error
    text = redact("; ".join(dict.fromkeys(str(link) for link in chain)))
    shown = f"{where} ({redact(href)})"
    store = store_of(href)
    keeper = "its server" if store is None else store.name
    if found := ABSENT.search(text):
        return BandNotFoundError(f"{shown} does not exist ({found[0]}); is the item up to date?")
    if found := NO_LOGIN.search(text):
        needed = store.needs if store is not None and store.needs else "credentials that are not there"
        return ReadError(f"{shown} may not be read from {keeper} ({found[0]}); it needs {needed}")
    if not is_remote(href):
        return DamagedError(f"{shown} is damaged, truncated or not an image: {text[:300]}; fetch it again")
    if "CURL error" in text:
        return ReadError(
            f"{shown} could not be read, {keeper} fails or cannot be reached: {text[:300]}; is this machine "
            "offline, or does it need a proxy (HTTPS_PROXY)?"
        )
    kind = CutShortError if NOT_BEGUN not in text and any(mark in text for mark in CUT_SHORT) else ReadError
    return kind(f"{shown} could not be read, {keeper} fails or the file is damaged: {text[:300]}")


def check_proj() -> None:
    """Refuse a PROJ that knows no CRS.

    Raises:
        ConfigError: Saying why, most likely.
    """
    try:
        CRS.from_epsg(4326)
    except CRSError:
        raise ConfigError(
            "no CRS can be read, as PROJ's database is not found or belongs to another installation such as QGIS or "
            "PostGIS: unset the environment variables PROJ_LIB and PROJ_DATA"
        ) from None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _redacted(record: logging.LogRecord) -> bool:
    record.msg, record.args = redact(record.getMessage()), ()
    return True


def quiet_loggers() -> None:
    """Keep signatures out of what the libraries that read log."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_redacted)
