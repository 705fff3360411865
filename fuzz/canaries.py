"""Secrets planted where careless providers leave them; none may come out again."""

from __future__ import annotations

import copy
import traceback
from typing import TYPE_CHECKING, Any, Final

from fuzz.spoil import somewhere

if TYPE_CHECKING:
    import random

CANARY: Final = "cAnArY7731"
TEXTS: Final = (
    f"token={CANARY}",
    f"https://me:{CANARY}@data.example.com/a.tif",
    f"https://data.example.com/a.tif?sv=1&sig={CANARY}",
    f"https://data.example.com/a.tif?X-Amz-Signature={CANARY}#x",
    f"Authorization: Bearer {CANARY}",
    f"s3://me:{CANARY}@bucket/a.tif",
)
"""What may stand where a text is expected: an id, a title."""
URLS: Final = tuple(text for text in TEXTS if "://" in text)
"""What may stand where an href is expected: any other text would be the name of a file there."""


def sign_hrefs(body: dict[str, Any]) -> dict[str, Any]:
    """A copy whose remote asset and link hrefs are signed, as tools that save signed items leave them."""
    signed = copy.deepcopy(body)
    assets = signed.get("assets")
    for holder in [*(assets.values() if isinstance(assets, dict) else ()), *signed.get("links", ())]:
        if "://" in holder["href"]:
            holder["href"] += f"?sv=1&sig={CANARY}"
    return signed


def plant(body: dict[str, Any], chance: random.Random) -> None:
    """Put a secret into one of a document's texts, or into its id."""
    place, last = (body, "id") if chance.random() < 0.1 else somewhere(body, chance)
    if place is not None and isinstance(place.get(last) if isinstance(place, dict) else place[last], str):
        place[last] = chance.choice(URLS if last == "href" else TEXTS)


def check(text: str, where: str) -> None:
    """Raise if a secret is in a text."""
    if CANARY in text:
        start = text.index(CANARY)
        raise LeakError(f"a secret is in the {where}: ...{text[max(start - 80, 0) : start + 10]!r}")


def check_error(error: BaseException) -> None:
    """Raise if a secret is in an error or in the traceback that Python would print of it."""
    check("".join(traceback.format_exception(error)), f"{type(error).__name__} or its traceback")


class LeakError(AssertionError):
    """A secret came out."""
