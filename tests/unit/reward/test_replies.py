"""Answers of a runner as foreign code could forge them."""

import json
import math
import sys
from typing import Any

import pytest

from quatrain.reward.backends.replies import BadReply, Failed, Loaded, Returned, read_loaded, read_returned

RETURNED: dict[str, Any] = {"status": "returned", "terms": [[None, [1.0, None]]], "logged": {}, "metrics": {}}
LOADED: dict[str, Any] = {"status": "loaded", "code_digest": "0" * 64, "enforced": {"user": True}}
FAILED: dict[str, Any] = {"status": "failed", "message": "raised ValueError", "sample": None}


def returned(**changes: Any) -> Returned | Failed:
    return read_returned(json.dumps({**RETURNED, **changes}).encode(), samples=2)


def test_what_a_function_returned_is_read_with_nan_and_infinity() -> None:
    logged = {"seen": [{"odd": math.nan, "half": "\ud800"}, [math.inf]]}

    reply = returned(terms=[["a", [math.nan, -math.inf]]], logged=logged, metrics={"share": [0.5, math.nan]})

    assert isinstance(reply, Returned)
    ((name, (first, second)),) = reply.terms
    assert (name, second) == ("a", -math.inf)
    assert first is not None
    assert math.isnan(first)
    assert reply.logged == {"seen": ({"odd": "nan", "half": "\ud800"}, ["inf"])}
    assert reply.metrics["share"][0] == 0.5


@pytest.mark.parametrize(
    "changes",
    [
        {"terms": "none"},
        {"terms": []},
        {"terms": {"a": [1.0, 2.0]}},
        {"terms": [["a", [1.0]]]},
        {"terms": [["a", [1.0, 2.0], 3]]},
        {"terms": [["a", {"0": 1.0, "1": 2.0}]]},
        {"terms": [["a", [1.0, 2]]]},
        {"terms": [["a", [1.0, 10**400]]]},
        {"terms": [["a", [1.0, True]]]},
        {"terms": [["a", [1.0, "2.0"]]]},
        {"terms": [[1, [1.0, 2.0]]]},
        {"terms": [["\ud800", [1.0, 2.0]]]},
        {"terms": [["ä" * 101, [1.0, 2.0]]]},
        {"logged": []},
        {"logged": {"seen": [1]}},
        {"logged": {"seen": "ab"}},
        {"logged": {"\udfff": [1, 2]}},
        {"logged": {"x" * 201: [1, 2]}},
        {"logged": {str(number): [1, 2] for number in range(10_001)}},
        {"metrics": {"share": 0.5}},
        {"metrics": {"share": [None]}},
        {"metrics": {"share": [1]}},
        {"metrics": {"x" * 201: []}},
        {"status": "loaded"},
        {"status": ["returned"]},
        {"status": None},
    ],
)
def test_what_no_runner_returns_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadReply, match=r"does not have the fields|is not about the 2 samples"):
        returned(**changes)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b'{"status": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(BadReply, match="it is not JSON"):
        read_returned(body, samples=2)


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"returned"', b"{}"])
def test_json_that_is_no_reply_is_refused(body: bytes) -> None:
    for read in (read_loaded, lambda body: read_returned(body, samples=2)):
        with pytest.raises(BadReply, match="does not have the fields"):
            read(body)


def test_logged_values_nested_deeper_than_can_be_written_are_refused() -> None:
    depth = sys.getrecursionlimit() + 100
    seen = "[" * depth + "]" * depth
    body = json.dumps(RETURNED).replace('"logged": {}', f'"logged": {{"seen": [{seen}, 1]}}').encode()

    with pytest.raises(BadReply, match="RecursionError"):
        read_returned(body, samples=2)


def test_a_failure_is_read_with_its_message_cut_and_made_printable() -> None:
    reply = returned(status="failed", message="\ud800" + "x" * 10**6, sample=1)

    assert isinstance(reply, Failed)
    assert (reply.message[:3], len(reply.message), reply.sample) == ("?xx", 2000, 1)


@pytest.mark.parametrize("changes", [{"sample": 2}, {"sample": -1}, {"sample": True}, {"sample": 0.0}, {"message": 1}])
def test_a_failure_of_no_sample_of_the_call_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadReply):
        read_returned(json.dumps({**FAILED, **changes}).encode(), samples=2)


def test_the_answer_to_a_load_is_read() -> None:
    loaded, failed = (read_loaded(json.dumps(reply).encode()) for reply in (LOADED, FAILED))

    assert loaded == Loaded(status="loaded", code_digest="0" * 64, enforced={"user": True})
    assert failed == Failed(status="failed", message="raised ValueError")


@pytest.mark.parametrize(
    "reply",
    [
        RETURNED,
        {**FAILED, "sample": 0},
        {**LOADED, "code_digest": "\ud800"},
        {**LOADED, "enforced": []},
        {**LOADED, "enforced": {"user": 1}},
    ],
)
def test_what_no_runner_says_after_a_load_is_refused(reply: dict[str, Any]) -> None:
    with pytest.raises(BadReply):
        read_loaded(json.dumps(reply).encode())
