"""Bodies: inflated within a limit, strict JSON, and each event with its own text."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldinstrument.devserver.events.bodies import (
    DEEPEST,
    is_event,
    parse_array,
    parse_object,
    split_array,
    unpacked,
)
from ldinstrument.devserver.events.parsing import ParsedEvent
from ldinstrument.devserver.responses import RefusedRequest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(items=st.lists(JSON, max_size=5), spaces=st.sampled_from(["", " ", "\n\t "]))
def test_the_texts_of_an_array_are_its_items(items, spaces):
    """With any whitespace between them."""
    texts = f"{spaces},{spaces}".join(json.dumps(item) for item in items)
    found = split_array(f"{spaces}[{spaces}{texts}{spaces}]{spaces}".encode())
    assert [item for item, _ in found] == items
    assert [json.loads(text) for _, text in found] == items


@given(items=st.lists(st.dictionaries(st.sampled_from(["kind", "key", "x"]), JSON), max_size=4))
def test_both_readers_say_the_same(items):
    """The quick one, and the one that takes what the quick one refuses."""
    quick = parse_array(json.dumps(items).encode())
    slow = parse_array(json.dumps([*items, 1]).encode())
    assert quick == slow[:-1]
    assert all(isinstance(event, ParsedEvent) for event in quick)


@pytest.mark.parametrize("body", [b"", b"  ", b"{}", b"[", b"[NaN]", b'["\xff"]', b"null", b"[1,]"])
def test_what_is_no_array_is_refused(body):
    """With 400."""
    with pytest.raises(RefusedRequest) as refused:
        parse_array(body)
    assert refused.value.status == 400


def test_a_diagnostic_is_one_object():
    """Neither empty nor a list nor with a number that overflows."""
    assert parse_object(b'{"kind": "diagnostic"}') == {"kind": "diagnostic"}
    for body in (b"", b"[]", b"{", b'{"x": 1e999}'):
        with pytest.raises(RefusedRequest):
            parse_object(body)


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"x" * 101, "", 413),
        (gzip.compress(b"x" * 101), "gzip", 413),
        (gzip.compress(b"[]")[:-4], "gzip", 400),
        (b"[]", "gzip", 400),
        (b"[]", "br", 400),
        (b"[" * (DEEPEST // 2) + b"]" * (DEEPEST // 2), "", 0),
    ],
    ids=["long", "inflated long", "cut off", "not gzip", "another encoding", "deep"],
)
def test_a_body_is_inflated_up_to_its_limit(body, encoding, status):
    """What is larger, broken or in another encoding is refused."""
    if not status:
        assert unpacked(body, encoding, 100) == body
        return
    with pytest.raises(RefusedRequest) as refused:
        unpacked(body, encoding, 100)
    assert refused.value.status == status


def test_nesting_that_would_stop_a_reader_is_refused_and_brackets_in_text_are_none():
    """Before it is parsed."""
    with pytest.raises(RefusedRequest, match="nested"):
        unpacked(b"[" * 200 + b"]" * 200, "", 10_000)
    text = json.dumps(["[" * 500, '"[{' * 100]).encode()
    assert unpacked(text, "identity", 10_000) == text


def test_an_event_is_an_object_with_a_kind():
    """The kind is text."""
    assert is_event({"kind": "custom"})
    assert not any(map(is_event, [{}, {"kind": 3}, [], None, "custom"]))
