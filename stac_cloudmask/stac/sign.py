"""Signing of hrefs, at the moment they are read; a signed href is never kept."""

from __future__ import annotations

from stac_cloudmask.errors import ReadError
from stac_cloudmask.stac.hrefs import redact
from stac_cloudmask.stac.providers import store_of


def sign(href: str) -> str:
    """An absolute href as its store wants it; tokens are kept by the signing library until they are about to expire.

    Raises:
        ReadError: No token could be had.
    """
    store = store_of(href)
    return _planetary_computer(href) if store is not None and store.signing == "planetary-computer" else href


def _planetary_computer(href: str) -> str:
    import planetary_computer  # noqa: PLC0415  (reads a settings file of the user's)
    import requests  # noqa: PLC0415

    try:
        signed: str = planetary_computer.sign_url(href)
    except (requests.RequestException, ValueError, TypeError) as error:
        raise ReadError(f"no Planetary Computer token for {redact(href)}: {redact(str(error))}") from None
    return signed
