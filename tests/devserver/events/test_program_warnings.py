"""What running programs say of themselves: kept, bounded, and listed for the doctor."""

from __future__ import annotations

import pytest

from ldinstrument.delivery.program_warnings import ASKED_BY
from ldinstrument.devserver.events import program_warnings
from ldinstrument.devserver.events.program_warnings import MOST_BYTES

TOLD = {"id": "p-1", "pid": 7, "warnings": [["rate_limited", "cart.value", 3]]}


@pytest.fixture(name="place")
def _place(http):
    """Where an answer to events says that programs post."""
    return http("POST", "/bulk", json=[]).headers[ASKED_BY]


def test_what_a_program_says_last_is_what_is_known_of_it(http, place):
    """Nothing else of its body is kept; the server dates it."""
    assert http("POST", place, json={**TOLD, "secret": "x"}).status_code == 202
    assert http("POST", place, json={**TOLD, "warnings": []}).status_code == 202
    (found,) = http("GET", "/dev/programs").json()
    assert (found["id"], found["pid"], found["warnings"]) == ("p-1", 7, [])
    assert set(found) == {"id", "pid", "received", "warnings"}


def test_texts_are_cut(http, place):
    """A program may say anything."""
    told = {"id": "i" * 100, "pid": "7", "warnings": [["c" * 300, 5, "2"]]}
    assert http("POST", place, json=told).status_code == 202
    (found,) = http("GET", "/dev/programs").json()
    assert (len(found["id"]), found["pid"]) == (64, 7)
    assert found["warnings"] == [["c" * 200, "5", 2]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"id": "x", "pid": 7}',
        b'{"id": "x", "pid": "seven", "warnings": []}',
        b'{"id": "x", "pid": 7, "warnings": [["a", "b"]]}',
        b'{"id": "x", "pid": 7, "warnings": {"a": 1}}',
        b'{"id": "x", "pid": 7, "warnings": [["a", "b", null]]}',
        b'{"id": "x", "pid": 1e999, "warnings": []}',
    ],
)
def test_anything_else_is_refused(http, place, body):
    """With what is expected; nothing is kept of it."""
    answer = http("POST", place, data=body)
    assert (answer.status_code, answer.json()["message"]) == (400, "expected id, pid and warnings")
    assert http("GET", "/dev/programs").json() == []


def test_a_program_without_a_key_or_with_too_much_is_refused(http, place):
    """As its events are."""
    assert http("POST", place, json=TOLD, headers={"Authorization": ""}).status_code == 401
    assert http("POST", place, data=b" " * (MOST_BYTES + 1)).status_code == 413


def test_only_the_newest_programs_are_known(http, place, monkeypatch):
    """One that is restarted all day is many."""
    monkeypatch.setattr(program_warnings, "MOST_PROGRAMS", 2)
    for number in range(4):
        http("POST", place, json={**TOLD, "id": f"p-{number}"})
    assert len(http("GET", "/dev/programs").json()) == 2
