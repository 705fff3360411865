"""Open rasters with GDAL: drivers, settings for remote files, and translation of errors."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader

from stac_cloudmask.errors import BandNotFoundError, ConfigError, ReadError, UnsupportedItemError, redact
from stac_cloudmask.retry import DEFAULT_POLICY, RETRY_STATUSES, RetryPolicy, Value, retrying
from stac_cloudmask.stac.hrefs import is_file, is_remote
from stac_cloudmask.stac.providers import has_credentials, sign, store_of

DRIVERS: Final = ("GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID")
"""Drivers whose files contain their own pixels; others, above all VRT, can refer to any other file."""
REACH_SECONDS: Final = 3
"""Timeout for connecting to a host; GDAL retries this like any other failure."""
SILENCE_SECONDS: Final = 20
"""Timeout for a server that sends almost nothing."""
REQUEST_SECONDS: Final = 300
"""Timeout for one request."""
CUT_SHORT: Final = ("IReadBlock", "Read error", "TIFFRead", "TIFFFetch", "opj_")
NOT_BEGUN: Final = "got 0 bytes"
"""Messages about a truncated body, which GDAL does not retry; it does retry requests that returned no bytes."""
NO_LOGIN: Final = re.compile(
    r"HTTP response code: (401|403|409)|InvalidCredentials|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|AWS_NO_SIGN_REQUEST"
)
ABSENT: Final = re.compile(r"HTTP response code: (404|410)|No such file|NoSuch|does not exist")
LOGGERS: Final = ("odc.loader._rio", "rasterio._env", "rasterio._err", "rasterio._io", "stackstac.rio_reader")
"""Loggers that write hrefs, signatures included."""
_failed: Final[set[str]] = set()
"""Hrefs that could not be read, a failure that GDAL caches."""


def gdal_env(href: str, *, retry: RetryPolicy, fresh: bool) -> dict[str, str]:
    """Return GDAL settings for reading an absolute, unsigned href.

    Args:
        href: The href to read.
        retry: Retry settings for failing servers; requests for pixels are repeated by GDAL only.
        fresh: Whether to bypass GDAL's cache, which keeps failures for the lifetime of the process. There are fewer
            retries then, because each driver requests an unavailable file separately.
    """
    store = store_of(href)
    retry = replace(retry, seconds=retry.seconds / 4) if fresh else retry
    codes = sorted(RETRY_STATUSES if store is not None and store.tokens else {403, *RETRY_STATUSES})
    settings = {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # 2 requests per open instead of 10
        # any last character of a name, as the user's environment may restrict extensions; none would allow no file
        "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ",".join("abcdefghijklmnopqrstuvwxyz0123456789=_-/"),
        "GDAL_HTTP_MAX_RETRY": str(retry.repetitions),
        "GDAL_HTTP_RETRY_DELAY": str(retry.pause),
        # some stores answer 403 when overloaded; for a signed href, 403 means that the signature has expired
        "GDAL_HTTP_RETRY_CODES": ",".join(map(str, codes)),
        "GDAL_HTTP_MULTIRANGE": "SERIAL",  # the default path has no retry before GDAL 3.13 (OSGeo/gdal issue 12933)
        "GDAL_HTTP_CONNECTTIMEOUT": str(REACH_SECONDS),
        "GDAL_HTTP_TIMEOUT": str(REQUEST_SECONDS),
        "GDAL_HTTP_LOW_SPEED_TIME": str(SILENCE_SECONDS),
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    }
    if fresh:
        settings["CPL_VSIL_CURL_NON_CACHED"] = "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/"
    return settings if store is None else settings | dict(store.gdal)


@contextmanager
def reading(href: str, *, where: str, retry: RetryPolicy) -> Iterator[None]:
    """Configure GDAL for an href, and turn errors of GDAL and libraries based on it into errors of this package.

    Args:
        href: Absolute, unsigned href.
        where: Name for messages.
        retry: See ``gdal_env``; requests that failed before are repeated.

    Raises:
        BandNotFoundError: The file does not exist.
        UnsupportedItemError: Its header is broken.
        ReadError: It cannot be read; ``retryable`` if the failure may be temporary.
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
    """Open a file of a format that contains its own pixels, or one of its overviews by GDAL's number."""
    options = {} if level is None else {"overview_level": level}
    return DatasetReader(href, driver=list(DRIVERS), sharing=False, **options)


@contextmanager
def open_raster(
    href: str, *, where: str | None = None, retry: RetryPolicy = DEFAULT_POLICY, level: int | None = None
) -> Iterator[DatasetReader]:
    """Open a GeoTIFF or JPEG 2000 that contains all its pixels, or one of its overviews; sign the href if necessary.

    Args:
        href: Absolute, unsigned, allowed by the rule of ``hrefs``.
        where: Name of the file in messages; None for its href.
        retry: Retry settings for failing servers.
        level: GDAL's number of the overview; None for the raster itself.

    Raises:
        BandNotFoundError: The file of an item does not exist; for other files, this is a ReadError.
        UnsupportedItemError: Its metadata refer to another file, or are broken.
        ReadError: It cannot be read, or has another format.
    """
    if not is_remote(href) and not is_file(href):
        if where is None:
            raise DamagedError(f"there is no file {href}")
        raise BandNotFoundError(f"{where}: there is no file {href}; is the item up to date?")
    where = where or redact(href)
    if not has_credentials(href):  # GDAL asks the cloud's metadata service for some, which must not be retried
        retry = replace(retry, seconds=0)
    with reading(href, where=where, retry=retry), dataset(sign(href, retry=retry), level) as file:
        if file.tags(ns="OVERVIEWS"):  # GDAL would open any file that OVERVIEW_FILE names
            raise UnsupportedItemError(f"{where} keeps its overviews in another file; they must be in its own")
        yield file


class DamagedError(ReadError):
    """A file cannot be read, and reading it again will not help."""

    retryable = False


class CutShortError(ReadError):
    """A server sent less of a file than announced."""


def whole(read: Callable[[], Value], *, retry: RetryPolicy) -> Value:
    """Return the result of ``read``; it is repeated after a truncated response, which GDAL itself does not retry.

    Raises:
        ReadError: See ``reading``.
    """
    return retrying(read, policy=retry, when=lambda error: isinstance(error, CutShortError))


def read_error(error: Exception, href: str, where: str) -> ReadError | BandNotFoundError:
    """Return an error of GDAL, or of a library based on it, as an error of this package, without secrets.

    Raises:
        Exception: The error itself, if it is not one of theirs.
    """
    if isinstance(error, ReadError):
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
    """Check that PROJ finds its database.

    Raises:
        ConfigError: PROJ knows no CRS; the message gives the most likely reason.
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
    """Keep signatures out of the log records of the reading libraries."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_redacted)
