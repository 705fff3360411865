"""Search of STAC APIs by pystac-client, which goes nowhere that the rule of ``hrefs`` does not let it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

import pystac
from pystac_client import Client
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.item_search import ItemSearch
from pystac_client.stac_api_io import StacApiIO
from urllib3 import Retry

from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskError
from stac_cloudmask.stac.documents import AGAIN, TRIES, broken
from stac_cloudmask.stac.filters import Filter, parse_interval
from stac_cloudmask.stac.hrefs import HrefRule, check_addresses, check_href, redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests import Response

    from stac_cloudmask.stac.documents import Json

BROKEN: Final = (
    ClientTypeError, pystac.STACError, pystac.STACTypeError, ValueError, TypeError, AttributeError, LookupError,
    RecursionError, NotImplementedError,
)  # fmt: skip
"""What pystac-client makes of documents that are not what the specification says."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an API is asked for; what it cannot filter by itself is left to the caller.

    Attributes:
        collection: Id of the only collection; None for all.
        wanted: Ids, bbox and cloud cover.
        datetime: In full, see ``in_full``.
        page: Items per page.
    """

    collection: str | None
    wanted: Filter
    datetime: str | None
    page: int


def features(href: str, asked: Asked, *, rule: HrefRule) -> Iterator[Json]:
    """Item dicts of the API whose landing page is at ``href``, page by page.

    Raises:
        ReadError: The API fails or refuses.
        UnsupportedItemError: It leads where the rule does not let it.
    """
    try:
        for feature in _pages(Client.open(href, stac_io=_GuardedIO(href, rule)), asked):
            if not isinstance(feature, dict):
                raise broken(f"{redact(href)} lists {str(feature)[:40]!r}, which is no item")
            yield feature
    except APIError as error:
        raise _failure(error, href) from None
    except StacCloudmaskError:
        raise
    except BROKEN as error:
        raise broken(f"{redact(href)} is no valid STAC API: {redact(str(error))[:200]}") from None


def _pages(client: Client, asked: Asked) -> Iterator[Json]:
    wanted = asked.wanted
    filters = wanted.max_cloud_cover is not None and client.conforms_to("QUERY")
    posts = any(link.extra_fields.get("method") == "POST" for link in client.get_links("search"))
    return client.search(
        method="POST" if posts else "GET",
        collections=None if asked.collection is None else [asked.collection],
        ids=None if wanted.ids is None else sorted(wanted.ids),
        bbox=wanted.bbox,
        datetime=asked.datetime,
        query={"eo:cloud_cover": {"lte": wanted.max_cloud_cover}} if filters else None,
        limit=asked.page,
    ).items_as_dicts()


def _failure(error: APIError, href: str) -> StacCloudmaskError:
    """What an error of pystac-client means: its own, or ours that it has wrapped."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StacCloudmaskError):
            return cause
        cause = cause.__cause__ or cause.__context__
    failure = ReadError(f"search of {redact(href)} failed: {redact(str(error))[:300]}")
    status = getattr(error, "status_code", None)  # set by some of its ways only
    failure.retryable = status is None or status in AGAIN
    return failure


class _GuardedIO(StacApiIO):
    """Asks failing servers again, and checks every href and redirect."""

    def __init__(self, base: str, rule: HrefRule) -> None:
        again = Retry(TRIES, backoff_factor=0.5, status_forcelist=AGAIN, allowed_methods=None, raise_on_status=False)
        super().__init__(timeout=60.0, max_retries=again)
        self._base, self._rule = base, rule
        self._asked: set[str] = set()
        self.session.hooks["response"].append(self._check)

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """As the base class, for hrefs that may be read; pages that lead around in circles end in an error."""
        asked = json.dumps([href, method, parameters], sort_keys=True)
        if method is not None and asked in self._asked:
            raise broken(f"{redact(href)} gives the same page again and again")
        self._asked.add(asked)
        allowed = check_href(href, base=self._base, rule=self._rule)
        check_addresses(allowed, base=self._base, rule=self._rule)
        return super().request(allowed, method, headers, parameters)

    def _check(self, answer: Response, **_: object) -> None:
        if answer.is_redirect:
            check_href(urljoin(answer.url, answer.headers["location"]), base=self._base, rule=self._rule)


def in_full(datetime: str | None) -> str | None:
    """A time or interval with every part: ``2023-08`` is from the first to the last second of the month.

    Raises:
        ConfigError: It is neither.
    """
    if datetime is None:
        return None
    try:
        stated = str(ItemSearch("https://unused.invalid", datetime=datetime).get_parameters()["datetime"])
        first, last = parse_interval(stated)
        fits = (first or last) and not (first and last and first > last)
    except Exception:  # noqa: BLE001  (that is what pystac-client raises)
        fits = False
    if not fits:
        raise ConfigError(
            f"datetime is a time, or A/B with open ends as '..', such as 2023-08 or 2023-08-01/.., got {datetime!r}"
        )
    return stated
