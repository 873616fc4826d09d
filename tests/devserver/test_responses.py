"""Error documents and strict JSON: what could not be written again is not read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldinstrument.devserver.responses import (
    RefusedRequest,
    decode,
    invalid,
    not_found,
    now_ms,
    too_large,
)

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, st.booleans())
def test_json_is_read_as_it_was_written(found, ascii):
    """With or without escapes; half a surrogate pair cannot be written, so it cannot come."""
    text = json.dumps(found, ensure_ascii=ascii)
    try:
        body = text.encode()
    except UnicodeEncodeError:
        return
    try:
        assert decode(body) == found
    except ValueError:
        assert "\\ud" in text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b'{"a": [1, -1e999]}',
        b"\xff",
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b"[" * 100_000,
        b"1 2",
    ],
)
def test_what_could_not_be_written_again_is_no_json(body):
    """One kind of error, however it is wrong."""
    with pytest.raises(ValueError):
        decode(body)


def test_a_whole_surrogate_pair_is_a_character():
    """As every JSON writer makes of it."""
    assert decode(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize(
    ("refused", "status", "code"),
    [
        (invalid("no key"), 400, "invalid_request"),
        (not_found(), 404, "not_found"),
        (too_large(), 413, "payload_too_large"),
        (
            RefusedRequest(429, "rate_limited", "slow down", {"Retry-After": "1"}),
            429,
            "rate_limited",
        ),
    ],
)
def test_a_refusal_is_a_document(refused, status, code):
    """Code, message and an id of its own each time."""
    first, second = refused.body(), refused.body()
    assert (refused.status, first["code"], first["message"]) == (status, code, str(refused))
    assert first["id"] != second["id"]
    assert set(first) == {"code", "message", "id"}


def test_dates_are_in_milliseconds():
    """Since the epoch, as LaunchDarkly's."""
    assert 1_700_000_000_000 < now_ms() < 10_000_000_000_000
