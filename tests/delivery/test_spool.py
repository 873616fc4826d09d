"""The spool: on disk before it is sent, never corrupt, delivered by whoever comes next."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import faults
import pytest
from ldclient import Context, LDClient

from ldinstrument.delivery import flush
from ldinstrument.delivery.event_json import Payload, join
from ldinstrument.delivery.memory_spool import origin_of
from ldinstrument.delivery.spool import Spool
from ldinstrument.ledger import ledger

CONTEXT = Context.create("u-1")
TEXT = '{"kind":"custom","key":"a"}'


def _taken(spool: Spool, *args: Any, **options: Any) -> list[Payload]:
    """What *spool* takes over and is not too old."""
    return spool.take_over(*args, **options)[0]


def _left_behind(
    folder: Path, *payloads: Payload, drafts: list[str] | None = None, origin: str = "here"
) -> None:
    """What a dead process would leave."""
    spool = Spool(folder, origin)
    if payloads:
        spool.seal(payloads)
    if drafts:
        spool.draft([("p-1", text) for text in drafts])
    spool.end()


def test_sealed_payloads_keep_bytes_and_id(tmp_path):
    """Whoever delivers it later sends the same."""
    payload = join([TEXT, TEXT], zipped=True)
    _left_behind(tmp_path, payload)
    (found,) = _taken(Spool(tmp_path, "here"), 10**6, 60)
    assert (found.id, found.body, found.events, found.custom, found.zipped) == (
        payload.id,
        payload.body,
        2,
        2,
        True,
    )


def test_drafts_are_sealed_by_whoever_comes_next(tmp_path):
    """Events that had not been sealed become one payload, once."""
    _left_behind(tmp_path, drafts=[TEXT, TEXT, TEXT])
    heir = Spool(tmp_path, "here")
    (found,) = _taken(heir, 10**6, 60)
    assert found.custom == 3
    assert _taken(heir, 10**6, 60) == []
    heir.end()
    assert [payload.id for payload in _taken(Spool(tmp_path, "here"), 10**6, 60)] == [found.id]


def test_what_is_settled_is_forgotten(tmp_path):
    """An empty spool leaves no file."""
    spool = Spool(tmp_path, "here")
    payload = join([TEXT], zipped=False)
    spool.draft([(payload.id, TEXT)])
    spool.seal([payload])
    spool.forget([payload])
    spool.end()
    assert list(tmp_path.iterdir()) == []


def test_a_split_payload_is_replaced_in_one_step(tmp_path):
    """After a 413, its halves are on disk and it is not."""
    spool = Spool(tmp_path, "here")
    payload = join([TEXT, TEXT], zipped=False)
    spool.seal([payload])
    halves = payload.halves()
    spool.replace(payload, halves)
    spool.end()
    found = _taken(Spool(tmp_path, "here"), 10**6, 60)
    assert sorted(payload.id for payload in found) == sorted(heir.id for heir in halves)


def test_a_living_process_keeps_its_own(tmp_path):
    """Two spools in one folder, one process each: nobody takes from the living."""
    spool = Spool(tmp_path, "here")
    spool.seal([join([TEXT], zipped=False)])
    assert _taken(Spool(tmp_path, "here"), 10**6, 60) == []
    spool.end()


def test_no_connection_is_carried_over_a_fork(tmp_path):
    """SQLite forbids it: it is closed before, and opened again by whoever writes next."""
    spool = Spool(tmp_path, "here")
    spool.seal([join([TEXT], zipped=False)])
    spool.pause()
    assert spool._open is None
    spool.resume()
    spool.seal([join([TEXT], zipped=False)])
    spool.end()
    assert len(_taken(Spool(tmp_path, "here"), 10**6, 60)) == 2


def test_another_environment_is_left_alone(tmp_path):
    """Another key's events stay where they are, until LaunchDarkly has refused that key."""
    _left_behind(tmp_path, join([TEXT], zipped=False), origin="elsewhere")
    assert _taken(Spool(tmp_path, "here"), 10**6, 60) == []
    spool = Spool(tmp_path, "elsewhere")
    spool.take_over(10**6, 60)
    spool.refused()
    spool.end()
    assert len(_taken(Spool(tmp_path, "here"), 10**6, 60)) == 1


def test_the_room_bounds_what_is_taken_over(tmp_path):
    """What does not fit stays on disk for later."""
    payloads = [join([TEXT], zipped=False) for _ in range(3)]
    _left_behind(tmp_path, *payloads)
    heir = Spool(tmp_path, "here")
    assert len(_taken(heir, 3 * len(payloads[0].body) - 1, 60)) == 2
    assert len(_taken(heir, 10**6, 60)) == 1
    heir.end()


def test_age_is_bounded_and_a_clock_set_back_does_not_matter(tmp_path):
    """Too old goes; from the future counts as new."""
    old, future = join([TEXT], zipped=False), join([TEXT], zipped=False)
    old.sealed_at, future.sealed_at = time.time() - 100, time.time() + 3600
    _left_behind(tmp_path, old, future)
    (found,) = _taken(Spool(tmp_path, "here"), 10**6, 60)
    assert found.id == future.id
    assert found.age_from <= time.monotonic()


def test_what_is_no_database_is_put_aside(tmp_path):
    """A file that nobody can read is renamed, once, and trips nobody again."""
    (tmp_path / "left-1.events").write_bytes(b"not a database, " * 100)
    assert _taken(Spool(tmp_path, "here"), 10**6, 60) == []
    assert [path.name for path in tmp_path.iterdir()] == ["left-1.broken"]


def test_files_of_others_in_the_folder_stay(tmp_path):
    """Whatever they are called that is not one of our names."""
    theirs = ("audit.events", "2025.events-backup", "app-1.events", "1.events-wal")
    for name in theirs:
        (tmp_path / name).write_text("mine")
    assert _taken(Spool(tmp_path, "here"), 10**6, 60) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(theirs)


def test_only_the_owner_may_read_the_folder_and_no_key_is_inside(server, tmp_path):
    """Events are personal data, and the SDK key is nobody's business."""
    folder = tmp_path / "spool"
    server.answer(status=503)
    client = LDClient(
        faults.config(server.url, spool=folder, key="sdk-secret-7", close_timeout=0.2)
    )
    client.track("a", CONTEXT)
    deadline = time.monotonic() + 30
    while not folder.exists() and time.monotonic() < deadline:
        flush(0.2, client)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    faults.close(client)
    deadline = time.monotonic() + 30
    while (
        ledger.stats().events.pending and time.monotonic() < deadline
    ):  # it may have been under way just then
        time.sleep(0.01)
    assert ledger.stats().events.dropped == {"spooled": 1}
    (path,) = folder.iterdir()
    assert b"sdk-secret" not in path.read_bytes()
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_unusable_spool_is_said_and_memory_still_works(server, tmp_path, caplog):
    """A folder that cannot be made costs the spool, not the events."""
    (tmp_path / "file").write_text("in the way")
    client = LDClient(faults.config(server.url, spool=tmp_path / "file" / "spool"))
    client.track("a", CONTEXT)
    assert flush(30.0, client).delivered == 1
    assert "cannot be used" in caplog.text
    client.close()


def test_what_a_refused_key_left_leaves_with_the_next_one(server, tmp_path):
    """A process whose key was revoked, and its successor with a new key: the folder is what they
    share.
    """
    server.answer(good_key="sdk-new")
    first = LDClient(
        faults.config(server.url, key="sdk-revoked", spool=tmp_path, close_timeout=0.1)
    )
    first.track("a", CONTEXT)
    while not flush(0.5, first).failed:
        pass
    first.close()
    second = LDClient(faults.config(server.url, key="sdk-new", spool=tmp_path))
    deadline = time.monotonic() + 30
    while not server.keys() and time.monotonic() < deadline:
        flush(0.2, second)
    faults.close(second)
    assert server.keys() == {"a": 1}
    assert list(tmp_path.iterdir()) == []


def test_halves_keep_their_ids_for_whoever_comes_next(server, tmp_path):
    """After a 413 the halves are what is on disk: the next processor sends them under the ids they
    were tried with.
    """
    server.answer(largest=1, times=1)
    server.answer(status=503)
    first = LDClient(
        faults.config(server.url, spool=tmp_path, flush_interval=3600, close_timeout=0.1)
    )
    first.track("a", CONTEXT)
    first.track("b", CONTEXT)
    while len(tried := set(server.posts_per_payload())) < 3:  # the whole, and both halves
        flush(0.2, first)
    first.close()
    server.behave()
    second = LDClient(faults.config(server.url, spool=tmp_path, flush_interval=3600))
    while sum(server.keys().values()) < 2:
        flush(0.2, second)
    faults.close(second)
    assert server.keys() == {"a": 1, "b": 1}
    assert {post.payload_id for post in server.posts if post.status == 202} == tried - {
        server.posts[0].payload_id
    }
    assert list(tmp_path.iterdir()) == []


def test_several_processes_share_one_folder(server, tmp_path):
    """Four at once, each killed or ended in its own way; everything arrives once."""
    program = [sys.executable, str(faults.HERE / "spooling_program.py"), "exit", server.url]
    programs = [
        subprocess.Popen(
            [*program, tmp_path, f"p{number}"],
            env=faults._environment(),
            stdout=subprocess.DEVNULL,
        )
        for number in range(4)
    ]
    assert [program.wait(100) for program in programs] == [0, 0, 0, 0]
    client = LDClient(
        faults.config(server.url, spool=tmp_path)
    )  # what an exit had no time for is the next one's
    flush(30.0, client)
    faults.close(client)
    assert server.keys() == {
        f"p{program}.{number}": 1 for program in range(4) for number in range(100)
    }
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_fork_leaves_the_parents_file_to_the_parent(server, tmp_path):
    """A child writes a file of its own, and its end does not touch the parent's."""
    client = LDClient(faults.config(server.url, spool=tmp_path, flush_interval=3600))
    client.track("parent", CONTEXT)
    time.sleep(0.2)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            client.track("child", CONTEXT)
            code = 0 if flush(30.0, client).delivered == 1 else 2
            client.close()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    client.track("parent again", CONTEXT)
    assert flush(30.0, client).delivered == 2
    faults.close(client)
    assert server.keys() == {"parent": 1, "parent again": 1, "child": 1}
    assert list(tmp_path.iterdir()) == []


def test_every_event_is_on_disk_soon_whatever_came_before(server, tmp_path):
    """With a flush interval of an hour: each event is in the file moments after `track`, also after
    a failure.
    """
    server.answer(status=503, headers={"Retry-After": "60"})
    client = LDClient(
        faults.config(server.url, spool=tmp_path, flush_interval=3600, close_timeout=0.1)
    )
    for number in range(3):
        client.track(f"e.{number}", CONTEXT)
        deadline = time.monotonic() + 100
        while not _mentions(tmp_path, f'"e.{number}"') and time.monotonic() < deadline:
            time.sleep(0.01)
        assert _mentions(tmp_path, f'"e.{number}"')
        flush(0.2, client)
    client.close()


def _mentions(folder: Path, text: str) -> bool:
    try:
        return any(text.encode() in path.read_bytes() for path in folder.iterdir())
    except FileNotFoundError:  # SQLite has removed a log meanwhile
        return False


def test_what_the_disk_did_not_take_is_not_called_spooled(server, tmp_path):
    """A folder that cannot be made: the next client of the process delivers it, as without a
    spool.
    """
    (tmp_path / "file").write_text("in the way")
    server.answer(status=503, times=1, headers={"Retry-After": "60"})
    options = {"spool": tmp_path / "file" / "spool", "flush_interval": 3600}
    first = LDClient(faults.config(server.url, close_timeout=0.1, **options))
    first.track("a", CONTEXT)
    flush(0.5, first)
    first.close()
    assert ledger.stats().events.dropped == {}
    second = LDClient(faults.config(server.url, **options))
    deadline = time.monotonic() + 30
    while not server.keys() and time.monotonic() < deadline:
        flush(1.0, second)
    assert server.keys() == {"a": 1}
    second.close()


def test_a_payload_that_does_not_fit_does_not_hold_up_the_others(tmp_path):
    """It waits for room; when nothing else is left and nothing waits, it is taken all the same."""
    large, small = join([TEXT] * 50, zipped=False), join([TEXT], zipped=False)
    large.sealed_at = small.sealed_at - 1
    _left_behind(tmp_path, large, small)
    heir = Spool(tmp_path, "here")
    assert [payload.id for payload in _taken(heir, len(small.body), 60)] == [small.id]
    assert _taken(heir, len(small.body), 60) == []
    assert [payload.id for payload in _taken(heir, len(small.body), 60, one_at_least=True)] == [
        large.id
    ]
    heir.end()


def test_a_file_that_nobody_can_read_is_put_aside_and_named(tmp_path, caplog):
    """Its events are lost, and that is said once, with where it is now."""
    (tmp_path / "1-0-dead.events").write_bytes(b"not a database at all" * 100)
    heir = Spool(tmp_path, "here")
    for _ in range(2):
        assert _taken(heir, 10**6, 60) == []
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "1-0-dead.broken" in said[0]
    assert (tmp_path / "1-0-dead.broken").exists()


def test_a_damaged_body_is_dropped_by_name(server, tmp_path, make):
    """Too large for LaunchDarkly, and no JSON that could be split: it does not stay pending for
    ever.
    """
    damaged = Payload(b"\0" * 100, 20, 20)
    _left_behind(tmp_path, damaged, origin=faults_origin(server.url))
    server.answer(status=413, times=1)
    client = make(flush_interval=3600, spool=tmp_path)
    deadline = time.monotonic() + 30
    while not ledger.stats().events.dropped and time.monotonic() < deadline:
        flush(0.5, client)
    stats = ledger.stats().events
    assert (stats.dropped, stats.pending) == ({"not_json": 20}, 0)


def faults_origin(url: str) -> str:
    """The origin of a client that `faults.config` makes."""
    config = faults.config(url)
    return origin_of(config.events_uri, config.sdk_key)


FULL = """
import resource, signal, sys
sys.path[:0] = [{here!r}]
import faults
from ldinstrument.delivery.event_json import join
from ldinstrument.delivery.spool import Spool

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool({folder!r}, "here")
texts = ['{{"kind":"custom","key":"a.%d"}}' % number for number in range(200)]
for text in texts:
    spool.seal([join([text], zipped=False)])
size = max(path.stat().st_size for path in __import__("pathlib").Path({folder!r}).iterdir())
main = min(path.stat().st_size for path in __import__("pathlib").Path({folder!r}).glob("*.events"))
resource.setrlimit(resource.RLIMIT_FSIZE, (main, main))  # no file grows any more: a full disk
try:
    spool.end()
except Exception as error:
    print(type(error).__name__)
"""


def test_a_disk_that_is_full_at_the_end_keeps_what_was_on_it(tmp_path):
    """SQLite cannot fold its log into the file: both stay together, and the next process finds
    every payload.
    """
    folder = tmp_path / "spool"
    folder.mkdir()
    program = FULL.format(here=str(faults.HERE), folder=str(folder))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=faults._environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    heir = Spool(folder, "here")
    assert len(_taken(heir, 10**7, 3600)) == 200
    heir.end()
    assert not [path.name for path in folder.iterdir() if not path.name.startswith("left-")]


def test_a_log_without_its_file_is_removed(tmp_path):
    """Nobody can read it any more."""
    (tmp_path / "1-0-dead.events-wal").write_bytes(b"x" * 1000)
    assert _taken(Spool(tmp_path, "here"), 10**6, 60) == []
    assert list(tmp_path.iterdir()) == []


_FULL_LATER = """
import os, resource, signal, sys
sys.path[:0] = [{here!r}]
import faults
from ldinstrument.delivery import flush
from ldclient import LDClient
from pathlib import Path

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
client = LDClient(faults.config({url!r}, spool={folder!r}, flush_interval=3600))
for number in range(50):
    client.track("e.%d" % number, faults.CONTEXT)
def written():
    try:
        return any(b'"e.49"' in path.read_bytes() for path in Path({folder!r}).iterdir())
    except FileNotFoundError:  # SQLite has removed a log meanwhile
        return False

while not written():
    pass
# From now on nothing is written: the drafts are on disk, and their payload will not be.
resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
while flush(1.0, client).pending:
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_full_disk_sends_nothing_under_two_ids(server, tmp_path):
    """Drafts carry the id of their payload: who finds them on disk sends them under that one."""
    pytest.importorskip("resource")
    folder = tmp_path / "spool"
    folder.mkdir()
    program = _FULL_LATER.format(here=str(faults.HERE), url=server.url, folder=str(folder))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=faults._environment(),
        timeout=100,
        stderr=subprocess.DEVNULL,
    )
    assert done.returncode == -signal.SIGKILL
    posts = len(server.posts)
    assert posts > 0
    client = LDClient(faults.config(server.url, spool=folder))
    deadline = time.monotonic() + 30
    while len(server.posts) == posts and time.monotonic() < deadline:
        flush(0.2, client)
    faults.close(client)
    assert len(server.posts) > posts  # they were on disk, and sent again
    assert server.keys() == {f"e.{number}": 1 for number in range(50)}


def test_what_is_too_old_in_a_file_is_counted_and_said(server, tmp_path, make, caplog):
    """Entries older than `max_age` are dropped by name, as in memory."""
    old = join([TEXT, TEXT], zipped=False)
    old.sealed_at = time.time() - 100
    _left_behind(tmp_path, old, origin=faults_origin(server.url))
    client = make(flush_interval=3600, spool=tmp_path, max_age=60)
    deadline = time.monotonic() + 30
    while not ledger.stats().events.dropped and time.monotonic() < deadline:
        flush(0.5, client)
    events = ledger.stats().events
    assert (events.emitted, events.dropped, events.pending) == (2, {"too_old": 2}, 0)
    assert "max_age" in caplog.text
    assert server.keys() == {}


def test_another_container_takes_nothing_from_the_living(tmp_path, monkeypatch):
    """It does not see the process by its number, and a fork closes the file for a moment."""
    spool = Spool(tmp_path, "here")
    spool.seal([join([TEXT], zipped=False)])
    monkeypatch.setattr("ldinstrument.delivery.spool._started", lambda pid: "")
    elsewhere = Spool(tmp_path, "here")
    assert _taken(elsewhere, 10**6, 60) == []
    spool.pause()
    assert _taken(elsewhere, 10**6, 60) == []
    spool.resume()
    spool.end()
    assert len(_taken(elsewhere, 10**6, 60)) == 1
    elsewhere.end()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_child_that_lives_on_does_not_keep_its_parents_file(tmp_path, server):
    """The lock is the parent's alone: when it dies, its file is taken over."""
    program = f"""
import os, sys, time
sys.path[:0] = [{str(faults.HERE)!r}]
import faults
from ldinstrument.delivery import flush
from ldclient import LDClient
client = LDClient(faults.config("http://127.0.0.1:9", spool={str(tmp_path)!r}, flush_interval=3600))
client.track("parent", faults.CONTEXT)
flush(0.3, client)
child = os.fork()
if not child:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=faults._environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=100,
    )
    try:
        origin = origin_of("http://127.0.0.1:9/bulk", "sdk-good")
        heir = Spool(tmp_path, origin)
        assert [payload.custom for payload in _taken(heir, 10**6, 60)] == [1]
        heir.end()
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)


def test_nobody_else_may_read_a_file(tmp_path):
    """Whatever the folder's owner had made of the folder: events are personal data."""
    folder = tmp_path / "open"
    folder.mkdir(mode=0o777)
    spool = Spool(folder, "here")
    spool.seal([join([TEXT], zipped=False)])
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert len(list(folder.iterdir())) > 2  # the log, too
    spool.end()
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]


def test_a_file_of_before_drafts_had_ids_is_read(tmp_path):
    """Its drafts become a payload, once."""
    with closing(sqlite3.connect(tmp_path / "left-1.events")) as file, file:
        file.execute("CREATE TABLE drafts (place INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        file.execute("INSERT INTO drafts (text) VALUES (?)", (TEXT,))
    heir = Spool(tmp_path, "here")
    assert [payload.custom for payload in _taken(heir, 10**6, 60)] == [1]
    assert _taken(heir, 10**6, 60) == []
    heir.end()
