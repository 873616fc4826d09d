"""The sessions that are open: which is joined, who observes, capped, ended at exit, begun afresh in
a forked child.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from ldclient import Context
from session_values import adds_up, value

import ldinstrument as ld
from ldinstrument.sessions import registry
from ldinstrument.sessions import session as sessions
from ldinstrument.sessions.current import current_session
from ldinstrument.sessions.registry import stats
from ldinstrument.sessions.scopes import observe_sessions, open_session
from ldinstrument.stores import end_request, open_store
from ldinstrument.testing import RecordingClient


def test_a_dropped_session_is_abandoned(ld_events: RecordingClient) -> None:
    """Counts only: a duration or rate would be censored."""
    dropped = open_session("u-1")
    dropped.interaction()
    del dropped
    gc.collect()
    stats()

    assert ["session.interactions"] == ld_events.keys()
    assert ld_events.only("session.interactions").data["endReason"] == "abandoned"
    assert ld_events.only("session.interactions").value == 1


def test_a_session_that_is_open_at_exit_is_abandoned() -> None:
    """Also for a client that is none of ours, and before it is closed; nobody hears a word."""
    program = (
        "import atexit, ldinstrument as ld\n"
        "class Client:\n"
        "    def track(self, key, context, data=None, value=None):\n"
        "        print(key, value, data['endReason'])\n"
        "    def close(self): print('closed')\n"
        "client = Client()\n"
        "atexit.register(client.close)\n"
        "held = ld.session('u-1', client=client).__enter__()\n"
        "held.interaction()\n"
        "nobodys = ld.session(client=client).__enter__()\n"
        "nobodys.identify(5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.splitlines() == ["session.interactions 1 abandoned", "closed"]
    assert done.stderr.count("\n") == 1  # of identify(5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_leaves_a_session_its_id(ld_events: RecordingClient) -> None:
    """Also one that nobody had asked for: parent and child tell their parts of one session."""
    opened = open_session("u-1")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, opened.id.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100).decode() == opened.id
    opened.end()
    assert ld_events.only("session.duration").data["sessionId"] == opened.id
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_waits_for_no_session(ld_events: RecordingClient) -> None:
    """Who holds the lock of one may wait for a lock that is held over the fork."""
    opened = open_session("u-1")
    held, forked = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def hold() -> None:
        with opened._lock:
            held.set()
            in_time.append(forked.wait(10))

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(0)
    forked.set()
    os.waitpid(child, 0)
    thread.join()
    opened.end()
    assert in_time == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("locked", ["ledger", "catalog"])
def test_a_fork_while_another_thread_holds_a_lock_hangs_nobody(locked: str) -> None:
    """The child gets locks of its own; the thread that held them is not in it."""
    lock = {"ledger": sessions.ledger.lock, "catalog": ld.catalog._lock}[locked]
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait(2)  # delivery, where it is loaded, waits for the ledger before it forks

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        stats()
        ld.catalog.add(value("area.child"))
        os._exit(7)
    release.set()
    thread.join()
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended != (0, 0)
    assert os.waitstatus_to_exitcode(ended[1]) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_leaves_the_parents_values_to_the_parent(ld_events: RecordingClient) -> None:
    """The child's copy of an open session emits only what the child recorded."""
    ld.catalog.add(value("r.sum", aggregation="sum"))
    reader, writer = os.pipe()
    with ld.session("u-1") as s:
        s.record("r.sum", 1)
        child = os.fork()
        if child == 0:
            ld_events.clear()
            s.record("r.sum", 10)
            s.end()
            os.write(writer, repr([(event.key, event.value) for event in ld_events]).encode())
            os._exit(0)
        os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == "[('r.sum', 10)]"
    assert [1] == ld_events.values("r.sum")


def test_open_sessions_are_known_until_they_end(ld_events: RecordingClient) -> None:
    """Oldest first; one that nobody holds is not kept alive."""
    first, second = open_session("u-1"), open_session("u-2")
    assert registry.open_sessions()[-2:] == [first, second]
    first.end()
    assert first not in registry.open_sessions()
    dropped = weakref.ref(open_session("u-3"))
    gc.collect()
    stats()  # ends what the collector found
    assert dropped() is None
    second.end()


def test_everything_that_is_open_can_be_ended(ld_events: RecordingClient) -> None:
    """For one reason; how many there were is told, and what they held has left."""
    held = []
    before = len(registry.open_sessions())
    for number in range(3):
        opened = open_session(f"u-{number}")
        opened.interaction()
        held.append(opened)
    assert registry.end_open_sessions("error") == before + 3
    assert registry.end_open_sessions() == 0
    assert [event.data["endReason"] for event in ld_events.of("session.interactions")] == [
        "error"
    ] * 3


def test_forgotten_sessions_say_nothing(ld_events: RecordingClient) -> None:
    """But for those that are to be kept."""
    kept, forgotten = open_session("u-1"), open_session("u-2")
    for opened in (kept, forgotten):
        opened.interaction()
    registry.forget_open_sessions(keeping=[kept])
    assert forgotten.ended
    assert registry.open_sessions() == [kept]
    forgotten.end()
    kept.end()
    assert {event.context.key for event in ld_events} == {"u-1"}


def test_the_ledger_is_read_with_what_is_open(ld_events: RecordingClient) -> None:
    """Values that a session holds are open, and the equations hold."""
    with ld.session("u-1") as s:
        s.revenue(1)
        s.revenue(2)
        assert stats().values.open == 2
        assert adds_up()
    assert stats().values.open == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("named", [True, False])
def test_a_forked_child_may_end_without_a_word(ld_events: RecordingClient, named: bool) -> None:
    """A block that joins the parent's session ends no session: what it recorded has left when it is
    over, the counts that add up too; duration and rate are the parent's to tell.
    """
    ld.catalog.add(value("r.sum", aggregation="sum"))
    reader, writer = os.pipe()
    with ld.session("u-1" if named else None) as s:
        s.interaction()
        child = os.fork()
        if child == 0:
            ld_events.clear()
            with ld.session("u-1"):
                ld.track_conversion(10)
                for succeeded in (True, False, True):
                    ld.current_session().interaction(succeeded)
                    s.record("r.sum", 4)
            os.write(writer, repr([(event.key, event.value) for event in ld_events]).encode())
            os._exit(0)
        os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == repr(
            [("business.conversion", 10), *[("r.sum", 4)] * 3, ("session.interactions", 3)]
        )
    if named:
        assert ld_events.values("session.interactions") == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_ends_no_visit_and_opens_none(
    ld_events: RecordingClient, tmp_path: Path
) -> None:
    """Which visitor a request is of, its boundary knows, and that is the parent's: the child's
    copy adds to the counts, and leaves the store alone.
    """
    reader, writer = os.pipe()
    with open_store(f"sqlite:///{tmp_path}/s.db", client=ld_events, sweep=False) as store:
        session = open_session("u-1", store=store)
        session.interaction()
        child = os.fork()
        if child == 0:
            ld_events.clear()
            session.interaction()
            session.end("abandoned")
            os.write(writer, repr([(event.key, event.value) for event in ld_events]).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert store.store.holdings().open == 0
        end_request(session, store, "visitor-1")
        assert store.store.holdings().open == 1
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == "[('session.interactions', 1)]"


def test_the_same_name_and_context_joins(ld_events: RecordingClient) -> None:
    """Inner blocks are part of the outer session and do not end it."""
    with ld.session("u-1") as outer, ld.session("u-1") as inner:
        assert inner is outer
    with ld.session("u-1") as outer:
        with ld.session() as inner:
            assert inner is outer
        assert not outer.ended

    assert len(ld_events.of("session.duration")) == 2


def test_another_kind_of_context_is_somebody_else(ld_events: RecordingClient) -> None:
    """An organisation's session inside a user's is not the user's, though they contradict each
    other nowhere.
    """
    with ld.session("u-1") as outer, ld.session(Context.create("acme", "org")) as inner:
        assert inner is not outer

    assert {"u-1", "org:acme"} == {
        event.context.fully_qualified_key for event in ld_events.of("session.duration")
    }


def test_another_id_or_client_is_independent(ld_events: RecordingClient) -> None:
    """Two conversations of one user are two sessions, and so are the same ones at two clients."""
    other = RecordingClient()
    with ld.session("u-1", id="s-1") as outer:
        with ld.session("u-1", id="s-2") as inner:
            assert (inner is outer, inner.id) == (False, "s-2")
        with ld.session("u-1", id="s-1") as inner:
            assert inner is outer
        with ld.session("u-1", client=other) as inner:
            assert inner is not outer
        with (
            ld.session("u-1", client=other) as one,
            ld.session("u-1", client=other) as two,
            ld.session("u-1") as three,
        ):
            assert one is two is three is not outer

    assert len(ld_events.of("session.duration")) == 4


def test_another_name_or_context_is_independent(ld_events: RecordingClient) -> None:
    """The innermost receives; afterwards the outer is current again."""
    ld.catalog.add(value("area.a"))
    with ld.session("u-1") as outer:
        with ld.session("u-2") as inner:
            assert current_session() is inner
            inner.record("area.a", 1)
        with ld.session("u-1", name="chat") as chat:
            assert chat is not outer
        assert current_session() is outer

    assert ld_events.only("area.a").context.key == "u-2"


def test_sessions_are_observed_from_now_on(ld_events: RecordingClient) -> None:
    """One observer for each that is opened; None ends it."""
    heard: list[tuple[str, str]] = []

    class Observer:
        def ended(self, session: Any, reason: str) -> None:
            heard.append((session.name, reason))

    before = open_session("u-1")
    observe_sessions(lambda session: Observer())  # type: ignore[arg-type,return-value]
    try:
        during = open_session("u-1", name="chat")
    finally:
        observe_sessions(None)
    after = open_session("u-1")
    for opened in (before, during, after):
        opened.end("error")
    assert heard == [("chat", "error")]
