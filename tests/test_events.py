from __future__ import annotations

import json

import pytest

from stac_cloudmask.errors import ReadError, UnsupportedItemError
from stac_cloudmask.task import payload_of

ITEM = {"type": "Feature", "id": "a", "properties": {}, "links": [], "assets": {}}
PAYLOAD = {"type": "FeatureCollection", "features": [ITEM], "process": [{"workflow": "masks"}]}


def sns(body):
    return {"Type": "Notification", "TopicArn": "arn:aws:sns:us-west-2:1:topic", "Message": json.dumps(body)}


def sqs(*bodies):
    return {"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": json.dumps(body)} for body in bodies]}


def from_lambda(*bodies):
    return {"Records": [{"EventSource": "aws:sns", "Sns": sns(body)} for body in bodies]}


@pytest.mark.parametrize("body", [ITEM, PAYLOAD, {"type": "FeatureCollection", "features": [ITEM]}])
def test_items_collections_and_payloads_become_payloads(body):
    payload, base = payload_of(body)
    assert payload["features"] == [ITEM]
    assert payload.get("process") == body.get("process")
    assert base is None


@pytest.mark.parametrize("wrap", [sns, sqs, from_lambda, lambda body: sqs(sns(body))])
@pytest.mark.parametrize("body", [ITEM, PAYLOAD])
def test_every_envelope_is_opened_and_its_items_count_as_remote(wrap, body):
    payload, base = payload_of(wrap(body))
    assert payload["features"] == [ITEM]
    assert base.startswith("https://")


def test_a_batch_becomes_one_payload():
    others = [ITEM | {"id": name} for name in "bcd"]
    payload, _ = payload_of(sqs(sns(others[0]), others[1], sns(others[2])))
    assert [item["id"] for item in payload["features"]] == ["b", "c", "d"]


def test_a_batch_with_different_processes_is_refused():
    with pytest.raises(UnsupportedItemError, match="batch size to 1"):
        payload_of(sqs(PAYLOAD, PAYLOAD | {"process": []}))


@pytest.mark.parametrize("key", ["href", "url"])
def test_a_reference_is_followed(tmp_path, key):
    path = tmp_path / "payload.json"
    path.write_text(json.dumps(PAYLOAD))
    assert payload_of({key: str(path)})[0] == PAYLOAD


def test_an_item_that_is_referred_to_lives_where_it_was_found(tmp_path):
    path = tmp_path / "item.json"
    path.write_text(json.dumps(ITEM))
    (item,) = payload_of({"href": str(path)})[0]["features"]
    assert [(link["rel"], link["href"]) for link in item["links"]] == [("self", str(path))]
    elsewhere = {"rel": "self", "href": "https://example.org/a"}
    path.write_text(json.dumps(ITEM | {"links": [elsewhere]}))
    assert payload_of({"href": str(path)})[0]["features"][0]["links"] == [elsewhere]


def test_a_message_cannot_lead_to_files_of_this_machine(tmp_path):
    path = tmp_path / "payload.json"
    path.write_text(json.dumps(PAYLOAD))
    for href in (str(path), f"file://{path}", "http://169.254.169.254/latest", "http://127.0.0.1:1/x"):
        with pytest.raises(UnsupportedItemError, match="refused"):
            payload_of(sns({"href": href}))


def test_a_reference_to_nothing_is_a_read_error(tmp_path):
    with pytest.raises(ReadError):
        payload_of({"href": str(tmp_path / "no.json")})


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": "Collection", "id": "x"},
        {"features": "none"},
        {"Records": []},
        {"Records": 3},
        {"Records": [None]},
        {"Records": [{"body": "no json"}]},
        {"Records": [{"body": "[1]"}]},
        {"Records": [{"s3": {"object": {"key": "x"}}}]},
        {"Message": "{"},
        sns({"hello": "world"}),
    ],
)
def test_anything_else_is_refused(event):
    with pytest.raises(UnsupportedItemError):
        payload_of(event)
