"""Providers: their bands, their stores, and signing of reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Final

from rasterio.env import get_gdal_config

from stac_cloudmask.errors import ReadError
from stac_cloudmask.retry import DEFAULT_POLICY, RetryPolicy
from stac_cloudmask.stac.connection import Connection, read_json
from stac_cloudmask.stac.hrefs import unsigned


@dataclass(frozen=True, kw_only=True)
class Band:
    """A spectral band of Sentinel-2: ESA's name, pixel size at which it is measured (m) and mean wavelength (um)."""

    esa: str
    gsd: int
    wavelength: float


BANDS: Final[Mapping[str, Band]] = {
    "coastal": Band(esa="B01", gsd=60, wavelength=0.443),
    "blue": Band(esa="B02", gsd=10, wavelength=0.492),
    "green": Band(esa="B03", gsd=10, wavelength=0.560),
    "red": Band(esa="B04", gsd=10, wavelength=0.665),
    "rededge1": Band(esa="B05", gsd=20, wavelength=0.704),
    "rededge2": Band(esa="B06", gsd=20, wavelength=0.740),
    "rededge3": Band(esa="B07", gsd=20, wavelength=0.783),
    "nir": Band(esa="B08", gsd=10, wavelength=0.837),
    "nir08": Band(esa="B8A", gsd=20, wavelength=0.865),
    "nir09": Band(esa="B09", gsd=60, wavelength=0.945),
    "swir16": Band(esa="B11", gsd=20, wavelength=1.613),
    "swir22": Band(esa="B12", gsd=20, wavelength=2.195),
}
"""Bands by Earth Search's common names, which the whole package uses."""

SCL: Final = "scl"
LAYERS: Final[Mapping[str, Band]] = {**BANDS, SCL: Band(esa="SCL", gsd=20, wavelength=float("nan"))}
"""The bands, and the scene classification."""


AWS: Final = (
    "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_NO_SIGN_REQUEST",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip
BEARER: Final = ("GDAL_HTTP_BEARER", "GDAL_HTTP_HEADERS", "GDAL_HTTP_HEADER_FILE")
"""GDAL settings, in the environment or ``rasterio.Env``, any of which provides credentials."""
AWS_FILE: Final = Path("~/.aws/credentials")


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store of pixels, and the requirements for reading hrefs with its prefix.

    Attributes:
        prefix: Prefix of its hrefs.
        name: Name of its operator, for messages.
        needs: Requirements to state if a read is denied; empty for a public store.
        gdal: GDAL settings for it.
        credentials: See ``AWS``; empty where none are needed.
        tokens: URL that issues signatures for its hrefs; None if they need none.
    """

    prefix: str
    name: str
    needs: str = ""
    gdal: Mapping[str, str] = field(default_factory=dict)
    credentials: tuple[str, ...] = ()
    tokens: str | None = None


CDSE_KEYS: Final = (
    "S3 keys of https://eodata-s3keysmanager.dataspace.copernicus.eu as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
STORES: Final = (
    Store(
        prefix="s3://sentinel-s2-l2a/",
        name="AWS (requester pays)",
        needs="the credentials of an AWS account, which pays",
        gdal={"AWS_REQUEST_PAYER": "requester"},
        credentials=AWS,
    ),
    Store(
        prefix="s3://eodata/",
        name="CDSE",
        needs=CDSE_KEYS,
        gdal={"AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu", "AWS_VIRTUAL_HOSTING": "FALSE"},
        credentials=AWS,
    ),
    *(
        Store(
            prefix=f"https://{host}.dataspace.copernicus.eu/",
            name="CDSE",
            needs=f"{CDSE_KEYS}, or an access token as GDAL_HTTP_HEADERS='Authorization: Bearer ...'",
            credentials=BEARER,
        )
        for host in ("download", "zipper", "catalogue")
    ),
    Store(
        prefix="https://sentinel2l2a01.blob.core.windows.net/",
        name="Planetary Computer",
        tokens="https://planetarycomputer.microsoft.com/api/sas/v1/token/sentinel2l2a01/sentinel2-l2",
    ),
    Store(prefix="https://sentinel-cogs.s3.us-west-2.amazonaws.com/", name="Earth Search"),
    Store(prefix="https://e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com/", name="Earth Search"),
    Store(
        prefix="s3://", name="S3", needs="AWS credentials, or AWS_NO_SIGN_REQUEST=YES if it is public", credentials=AWS
    ),
)
"""Stores are found by href, not by provider: copied items are read the same way, and no other bucket is billed."""


def store_of(href: str) -> Store | None:
    """Return the store of an absolute href; None if unknown."""
    return next((store for store in STORES if href.startswith(store.prefix)), None)


def choose_href(hrefs: Sequence[str]) -> str:
    """Return the first of an asset's hrefs that is readable with the available credentials; otherwise the first."""
    return next(filter(has_credentials, hrefs), hrefs[0])


def has_credentials(href: str) -> bool:
    """Return whether the credentials for an absolute href are in GDAL's settings or the user's files."""
    store = store_of(href)
    if store is None or not store.credentials or any(get_gdal_config(name) for name in store.credentials):
        return True
    return store.credentials is AWS and AWS_FILE.expanduser().is_file()


TOKEN_MINUTES: Final = 15
"""Minimum remaining lifetime of a token: the time to read one item."""
_tokens: Final[dict[str, tuple[str, datetime]]] = {}
_asking: Final = Lock()


def sign(href: str, *, retry: RetryPolicy = DEFAULT_POLICY) -> str:
    """Return an absolute href, signed if its store requires it; a token is kept until it is about to expire.

    Raises:
        ReadError: No token could be obtained.
    """
    store = store_of(href)
    if store is None or store.tokens is None:
        return href
    return f"{unsigned(href)}?{_token(store.name, store.tokens, retry)}"


def _token(name: str, url: str, retry: RetryPolicy) -> str:
    with _asking:
        token, expiry = _tokens.get(url, ("", datetime.min.replace(tzinfo=UTC)))
        if expiry - datetime.now(UTC) < timedelta(minutes=TOKEN_MINUTES):
            try:
                body, _ = read_json(url, connection=Connection(policy=retry))
                token, expiry = str(body["token"]), datetime.fromisoformat(body["msft:expiry"])
            except (ReadError, KeyError, ValueError, TypeError) as error:
                raise ReadError(
                    f"no token of {name}, without which its pixels cannot be read: {error}; is this machine "
                    "offline, or does it need a proxy (HTTPS_PROXY)?"
                ) from None
            _tokens[url] = token, expiry
        return token
