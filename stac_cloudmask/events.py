"""What pipelines hand over: payloads, items and messages about items, brought into the form of a payload."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.errors import UnsupportedItemError
from stac_cloudmask.stac.collection import ITEM_TYPE
from stac_cloudmask.stac.documents import Documents
from stac_cloudmask.stac.hrefs import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Json = dict[str, Any]

ENVELOPE: Final = "https://message.invalid/"
"""Where the items of a message count as coming from: remote, so that they cannot name files of this machine."""


def payload_of(event: Json) -> tuple[Json, str | None]:
    """A payload with ``features``, and where its items count as coming from; None is the user's own word.

    Args:
        event: A payload, an item, an item collection, ``{"href": ...}`` or ``{"url": ...}`` of one of these; or a
            message of SNS or SQS (``Records``, ``Message``) with any of them inside, one or many.

    Raises:
        UnsupportedItemError: It is none of these, or several messages ask for different processes.
        ReadError: What it leads to cannot be read.
    """
    if not _is_envelope(event):
        return _as_payload(_followed(event, base=None)), None
    return _merged([_as_payload(_followed(body, base=ENVELOPE)) for body in _contents(event)]), ENVELOPE


def _is_envelope(body: object) -> bool:
    return isinstance(body, dict) and ("Records" in body or ("Message" in body and "features" not in body))


def _contents(envelope: Json) -> Iterator[Json]:
    """What is inside, however it is wrapped: SNS in SQS, SNS alone, raw delivery."""
    records = envelope.get("Records", [{"body": envelope.get("Message")}])
    if not isinstance(records, list):
        raise UnsupportedItemError("the message's 'Records' are no list")
    for record in records:
        inner = record.get("Sns", record) if isinstance(record, dict) else {}
        body = _parsed(inner.get("Message", inner.get("body")))
        yield from _contents(body) if _is_envelope(body) else [body]


def _parsed(text: object) -> Json:
    try:
        body = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise UnsupportedItemError("a record of the message has no JSON object as its body or Message")
    return body


def _followed(body: Json, *, base: str | None) -> Json:
    """The document that a mere reference leads to; an item in it lives there, unless it says otherwise."""
    href = body.get("href", body.get("url"))
    if href is None or "type" in body:
        return body
    if base is not None and not is_remote(str(href)):
        raise UnsupportedItemError("href is refused: a message may lead to a URL, not to files of this machine")
    with Documents() as documents:
        found, where = documents.read(str(href), base=base)
    links = found.get("links", [])
    if found.get("type") != "Feature" or not isinstance(links, list):
        return found
    if any(isinstance(link, dict) and link.get("rel") == "self" for link in links):
        return found
    return found | {"links": [*links, {"rel": "self", "href": where, "type": ITEM_TYPE}]}


def _as_payload(body: Json) -> Json:
    if body.get("type") == "Feature":
        return {"type": "FeatureCollection", "features": [body]}
    if isinstance(body.get("features"), list):
        return body
    found = ", ".join(sorted(body))[:200] or "nothing"
    raise UnsupportedItemError(f"the input is no item, item collection, payload or message; it has {found}")


def _merged(payloads: Sequence[Json]) -> Json:
    """One payload with the items of all; what each asks for must be the same."""
    if not payloads:
        raise UnsupportedItemError("the message has no records")
    first = payloads[0]
    if any(payload.get("process") != first.get("process") for payload in payloads):
        raise UnsupportedItemError("the messages of this batch ask for different processes; set the batch size to 1")
    return first | {"features": [feature for payload in payloads for feature in payload["features"]]}
