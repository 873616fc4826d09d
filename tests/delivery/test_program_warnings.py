"""What the local LaunchDarkly is told of this process: its warnings, when it asks, and only there."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from ldinstrument.delivery.program_warnings import ASKED_BY, MOST_WARNINGS, SECONDS, ProgramWarnings
from ldinstrument.diagnostics import warn_once
from ldinstrument.ledger import ledger

LOCAL = "http://127.0.0.1:5100/bulk"
ASKING = {ASKED_BY: "/ldinstrument/programs"}


class Pool:
    """Writes down what would be posted."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, str, dict[str, Any]]] = []

    def request(self, method: str, url: str, **options: Any) -> None:
        self.posts.append((method, url, options))

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(options["body"]) for _, _, options in self.posts]


@pytest.fixture(name="pool")
def _pool() -> Pool:
    return Pool()


def test_new_warnings_are_told_where_the_answer_asks_for_them(pool):
    """With the SDK key of the events, no retry, no redirect, and a second at most."""
    warn_once("spool", "full", "there is no room")
    ProgramWarnings(pool, LOCAL).tell(ASKING, {"Authorization": "sdk-key"})
    ((method, url, options),) = pool.posts
    assert (method, url) == ("POST", "http://127.0.0.1:5100/ldinstrument/programs")
    assert options["headers"] == {"Authorization": "sdk-key"}
    assert (options["retries"], options["redirect"], options["timeout"]) == (False, False, SECONDS)
    (told,) = pool.told()
    assert told["pid"] == os.getpid()
    assert told["warnings"] == [["spool", "full", 1]]


def test_runs_that_were_suspended_are_told(pool):
    """By task: they are in no metric, which nobody but the program knows."""
    ledger.suspended("job.retry", 3)
    ProgramWarnings(pool, LOCAL).tell(ASKING, {})
    (told,) = pool.told()
    assert told["warnings"] == [["suspended", "job.retry", 3]]


@pytest.mark.parametrize("uri", ["https://events.launchdarkly.com/bulk", "http://relay.test/bulk"])
def test_nobody_else_is_told(pool, uri):
    """Also where the answer asks: the warnings are for this machine."""
    warn_once("spool", "full", "there is no room")
    ProgramWarnings(pool, uri).tell(ASKING, {})
    assert pool.posts == []


def test_without_a_question_or_a_warning_nothing_is_told(pool):
    """A healthy program posts events only."""
    report = ProgramWarnings(pool, LOCAL)
    report.tell(ASKING, {})
    warn_once("spool", "full", "there is no room")
    report.tell({}, {})
    assert pool.posts == []


def test_the_server_names_a_path_and_no_other_host(pool):
    """The key goes where the events go."""
    warn_once("spool", "full", "there is no room")
    answer = {ASKED_BY: "http://example.test/ldinstrument/programs?x=1"}
    ProgramWarnings(pool, LOCAL).tell(answer, {"Authorization": "sdk-key"})
    assert pool.posts[0][1] == "http://127.0.0.1:5100/ldinstrument/programs"


def test_the_same_warnings_are_told_again_when_they_have_doubled(pool):
    """Not with each POST; the program keeps its id."""
    report = ProgramWarnings(pool, LOCAL)
    counts = []
    for number in range(1, 9):
        warn_once("spool", "full", "there is no room")
        report.tell(ASKING, {})
        counts.append((number, len(pool.posts)))
    assert [number for number, posts in counts if posts > dict(counts).get(number - 1, 0)] == [
        1,
        2,
        4,
        8,
    ]
    assert len({told["id"] for told in pool.told()}) == 1
    assert pool.told()[-1]["warnings"] == [["spool", "full", 8]]


def test_a_flood_of_warnings_is_bounded(pool):
    """The first ones say what is wrong."""
    for number in range(MOST_WARNINGS + 5):
        warn_once("metric", f"m-{number}", "is not defined")
    ProgramWarnings(pool, LOCAL).tell(ASKING, {})
    (told,) = pool.told()
    assert len(told["warnings"]) == MOST_WARNINGS
    assert told["warnings"][0] == ["metric", "m-0", 1]
