"""The faults that delivery must survive, each with a real server on loopback and the real SDK.

`scale` stretches the waits: 1 for the test suite, more for the table in docs/reliability.md. What
is not dropped by an announced bound arrives, once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ldclient import Config, Context, LDClient
from ldclient.config import HTTPConfig

from ldinstrument.delivery import EventProcessor, FlushReport, Plugin, flush
from ldinstrument.delivery.worker import worker_of
from ldinstrument.diagnostics import diagnostics
from ldinstrument.ledger import ledger

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from event_server import EventServer  # noqa: E402 - a plain module beside this one

CONTEXT = Context.builder("u-1").name("Ana").build()
FAST = {"first_pause": 0.1, "longest_pause": 0.5}


@dataclass
class Row:
    """One line of the table."""

    fault: str
    sent: int
    arrived: int
    posts: int
    most_posts: int
    duplicates: int
    dropped: dict[str, int]
    seconds: float
    note: str = ""
    pending: int = 0
    same_bytes: bool = True

    @property
    def adds_up(self) -> bool:
        """Everything arrived once, or was dropped by name."""
        return (
            self.arrived + sum(self.dropped.values()) == self.sent
            and not self.duplicates
            and not self.pending
            and self.same_bytes
        )

    def __str__(self) -> str:
        return (
            f"{self.fault}: sent {self.sent}, arrived {self.arrived}, posts {self.posts}, "
            f"most posts per payload id {self.most_posts}, duplicates {self.duplicates}, "
            f"dropped {self.dropped or 'none'}, {self.seconds:.1f} s"
            f"{'; ' + self.note if self.note else ''}"
        )


@dataclass
class Run:
    """A client that sends to *server*, and what it recorded."""

    server: EventServer
    client: LDClient
    sent: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    notes: list[str] = field(default_factory=list)

    def track(self, count: int, data: Any = None) -> None:
        """Record *count* events, each with its own key."""
        for _ in range(count):
            self.sent.append(f"e.{len(self.sent)}")
            self.client.track(self.sent[-1], CONTEXT, data, 1.0)

    def flush_within(self, timeout: float) -> FlushReport:
        """Flush, and note how far the deadline was missed."""
        began = time.monotonic()
        report = flush(timeout)
        over = time.monotonic() - began - timeout
        self.notes.append(
            f"flush({timeout:g}) returned {'early' if over < 0 else f'{over * 1000:.0f} ms late'}"
        )
        return report

    def until_delivered(self, seconds: float = 60.0) -> None:
        """Flush until nothing is left."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            report = flush(1.0)
            if not (report.failed or report.pending):
                return
            time.sleep(0.02)

    def row(self, fault: str) -> Row:
        """The figures."""
        return row_of(fault, self.server, self.sent, self.began, "; ".join(self.notes))


def row_of(fault: str, server: EventServer, sent: list[str], began: float, note: str = "") -> Row:
    """The figures of *server* for the events *sent*."""
    keys = server.keys()
    events = ledger.stats().events
    assert events.emitted == events.delivered + events.pending + events.unconfirmed + sum(
        events.dropped.values()
    )
    untold = set(keys) - set(sent)  # recorded by a process that was killed before it could tell
    assert len(untold) <= 10
    for key in untold:
        del keys[key]
    posts = server.posts_per_payload()
    return Row(
        fault,
        len(sent),
        len(keys),
        sum(posts.values()),
        max(posts.values(), default=0),
        sum(count - 1 for count in keys.values()),
        dict(events.dropped),
        time.monotonic() - began,
        note,
        events.pending,
        server.same_bytes(),
    )


def config(
    url: str,
    *,
    key: str = "sdk-good",
    read_timeout: float = 5.0,
    pending: int = 10_000,
    **options: Any,
) -> Config:
    """A configuration for *url* with fast retries."""
    return Config(
        key,
        base_uri=url,
        events_uri=url,
        stream_uri=url,
        use_ldd=True,
        events_max_pending=pending,
        flush_interval=options.pop("flush_interval", 0.5),
        http=HTTPConfig(connect_timeout=1.0, read_timeout=read_timeout),
        plugins=[Plugin()],
        event_processor_class=partial(EventProcessor, **{**FAST, **options}),
    )


def close(client: LDClient) -> None:
    """Close *client*, and wait for the last of its threads: on a busy machine `close()` does
    not.
    """
    client.close()
    worker = worker_of(client)
    assert worker is not None
    worker.wait_for_end(60.0)


@contextmanager
def running(**how: Any) -> Iterator[Run]:
    """A fresh server, a fresh client, an empty ledger."""
    ledger.clear()
    diagnostics.clear()
    with EventServer() as server:
        client = LDClient(config(server.url, **how))
        try:
            yield Run(server, client)
        finally:
            client.close()


# -- the server fails ------------------------------------------------------------------------------


def answers_503(scale: float = 1.0) -> Row:
    """503 for a while, with events coming all the time."""
    with running() as run:
        run.server.answer(status=503)
        run.track(100)
        assert run.flush_within(0.2).failed + flush(0).pending >= 0
        _meanwhile(run, 1.0 * scale)
        run.server.behave()
        run.until_delivered()
        return run.row(f"503 for {scale:g} s")


def answers_429(scale: float = 1.0) -> Row:
    """429 with `Retry-After`: nothing may come before it is over."""
    with running() as run:
        pause = max(1, round(scale))
        run.server.answer(status=429, headers={"Retry-After": str(pause)}, times=1)
        run.track(100)
        began = time.monotonic()
        flush(0.3)
        run.until_delivered()
        waited = time.monotonic() - began
        assert waited >= pause
        run.notes.append(f"Retry-After {pause} s, sent again after {waited:.2f} s")
        return run.row("429 with Retry-After")


def answers_413(scale: float = 1.0) -> Row:
    """413 for more than ten events: split until it fits."""
    with running() as run:
        run.server.answer(largest=10)
        run.track(100)
        run.until_delivered()
        return run.row("413 above 10 events")


def answers_413_to_one(scale: float = 1.0) -> Row:
    """413 for whatever is sent: each event is dropped and named."""
    with running() as run:
        run.server.answer(status=413)
        run.track(4)
        run.until_delivered()
        return run.row("413 for single events")


def answers_401(scale: float = 1.0) -> Row:
    """401, then a client with the good key takes the place of the first, as `ldclient.set_config`
    does it.
    """
    with running(key="sdk-bad") as run:
        run.server.answer(good_key="sdk-good")
        run.track(50)
        report = run.flush_within(30.0)
        assert (report.failed, report.timed_out) == (50, False)
        run.track(50)
        flush(0.2)
        refused = len(run.server.posts)
        second = LDClient(config(run.server.url))
        run.client.close()
        run.until_delivered()
        second.close()
        run.notes.append(f"{refused} posts with the bad key")
        return run.row("401, then a good key")


def never_answers(scale: float = 1.0) -> Row:
    """Accepts and never answers, nor counts; then it is well again."""
    with running(read_timeout=0.5 * scale) as run:
        run.server.answer(stall=True, counts=False)
        run.track(100)
        run.flush_within(0.3)
        run.track(100)
        run.flush_within(0.3)
        run.server.behave()
        run.until_delivered()
        return run.row("accepts, never answers")


def answers_late(scale: float = 1.0) -> Row:
    """Takes the events and answers after the read time-out: the payload id lets it drop the second
    copy.
    """
    with running(read_timeout=0.3 * scale) as run:
        run.server.answer(late=0.6 * scale, times=2)
        run.track(100)
        run.until_delivered()
        return run.row("answers after the read time-out")


def resets(scale: float = 1.0) -> Row:
    """Cuts the connection in the middle of the body."""
    with running() as run:
        run.server.answer(reset=True, times=3)
        run.track(200, {"text": "x" * 2000})
        run.until_delivered()
        return run.row("resets mid-body")


def refuses(scale: float = 1.0) -> Row:
    """Refuses connections from the start, then comes."""
    with running() as run:
        run.server.vanish()
        run.track(100)
        run.flush_within(0.3)
        time.sleep(0.5 * scale)
        run.server.listen()
        run.until_delivered()
        return run.row("refuses")


def vanishes(scale: float = 1.0) -> Row:
    """Vanishes for minutes while events come, and returns."""
    with running() as run:
        run.track(50)
        flush(1.0)
        run.server.vanish()
        _meanwhile(run, 2.0 * scale)
        run.server.listen()
        run.until_delivered()
        return run.row(f"vanishes for {2 * scale:g} s, returns")


def burst(scale: float = 1.0) -> Row:
    """100,000 events as fast as `track` takes them, against a queue of 10,000."""
    with running() as run:
        began = time.monotonic()
        run.track(100_000)
        seconds = time.monotonic() - began
        run.notes.append(f"{seconds * 10:.1f} us per track")
        run.until_delivered()
        return run.row("burst of 100,000, queue of 10,000")


def burst_with_patience(scale: float = 1.0) -> Row:
    """The same with the bounded wait that a caller may opt into."""
    with running(wait_when_full=2.0) as run:
        run.track(100_000)
        run.until_delivered()
        return run.row("the same, wait_when_full=2")


def clock_set_back(scale: float = 1.0) -> Row:
    """The wall clock jumps back an hour while payloads wait."""
    real = time.time
    with running() as run:
        try:
            run.server.answer(status=503)
            run.track(50)
            flush(0.2)
            time.time = lambda: real() - 3600
            run.track(50)
            flush(0.2)
            run.server.behave()
            run.until_delivered()
        finally:
            time.time = real
        return run.row("clock set back an hour")


def _meanwhile(run: Run, seconds: float) -> None:
    """Events keep coming."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run.track(5)
        time.sleep(0.02)


# -- the process ends or splits --------------------------------------------------------------------


def killed(scale: float = 1.0, rounds: int = 6) -> Row:
    """`kill -9` at random moments with a spool, while the server fails now and then; a last process
    delivers.

    What was in a file when its process died must arrive. What was not yet (it is some 20 ms after
    `track`) may be lost.
    """
    ledger.clear()
    diagnostics.clear()
    began = time.monotonic()
    with EventServer() as server, tempfile.TemporaryDirectory() as folder:
        for how in ({"status": 503}, {"late": 0.2}, {}, {"reset": True}):
            server.answer(times=2, **how)
        ages: dict[str, float] = {}
        safe: set[str] = set()
        for number in range(rounds):
            ages |= _killed_once(
                server.url, folder, f"r{number}", 0.2 + 0.4 * scale * (number * 0.618 % 1)
            )
            safe |= _on_disk(folder) | set(server.keys())
        client = LDClient(config(server.url, spool=folder))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            flush(1.0)
            if safe <= set(server.keys()) and len(list(Path(folder).glob("*.events"))) <= 1:
                break
            time.sleep(0.05)
        time.sleep(0.2)  # what was just taken over from a dead process's file
        flush(30.0)
        client.close()
        keys = server.keys()
        lost = [age for key, age in ages.items() if key not in keys]
        note = (
            f"youngest {len(lost)} of them lost, at most {max(lost, default=0) * 1000:.0f} ms old; "
        )
        note += f"{len(list(Path(folder).iterdir()))} files left"
        row = row_of(f"kill -9, {rounds} times, with a spool", server, list(ages), began, note)
        assert safe & ages.keys(), "nothing came as far as the disk"
        young = sum(key not in keys and key not in safe for key in ages)
        row.dropped = {"not on disk yet": young} if young else {}
        return row


def _on_disk(folder: str) -> set[str]:
    """The keys of the events that the files of dead processes hold."""
    found: set[str] = set()
    with tempfile.TemporaryDirectory() as copies:
        for path in Path(folder).iterdir():
            shutil.copy(path, copies)
        for path in Path(copies).glob("*.events"):
            with closing(sqlite3.connect(path)) as file:
                try:
                    texts = [text for (text,) in file.execute("SELECT text FROM drafts")]
                    bodies = [body for (body,) in file.execute("SELECT body FROM payloads")]
                except sqlite3.OperationalError:  # killed before it had made its tables
                    continue
            events = [event for text in texts for event in json.loads(f"[{text}]")] + [
                event for body in bodies for event in json.loads(body)
            ]
            found |= {event["key"] for event in events if event["kind"] == "custom"}
    return found


def _killed_once(url: str, folder: str, name: str, life: float) -> dict[str, float]:
    """Let a process record events, kill it; how old each event was when it died."""
    program = [sys.executable, str(HERE / "spooling_program.py"), "track", url, folder, name]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, env=_environment(), text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        time.sleep(life)
        died = time.monotonic()
        process.send_signal(signal.SIGKILL)
        lines = [line.split() for line in process.stdout.read().splitlines() if line.endswith(".")]
        process.wait()
    return {key: died - float(at) for key, at, _ in lines}


def exits(scale: float = 1.0) -> Row:
    """The interpreter exits while the network is dead, with a spool; the next process delivers."""
    ledger.clear()
    diagnostics.clear()
    began = time.monotonic()
    with EventServer() as server, tempfile.TemporaryDirectory() as folder:
        server.answer(stall=True, counts=False)
        program = [
            sys.executable,
            str(HERE / "spooling_program.py"),
            "exit",
            server.url,
            folder,
            "x",
        ]
        done = subprocess.run(
            program, capture_output=True, env=_environment(), text=True, timeout=100, check=True
        )
        assert done.stderr == "", done.stderr
        seconds = float(done.stdout.split()[-1])
        took = time.time() - seconds
        server.behave()
        client = LDClient(config(server.url, spool=folder))
        run = Run(server, client, [f"x.{number}" for number in range(100)], began)
        deadline = time.monotonic() + 60
        while (
            len(server.keys()) < 100 or ledger.stats().events.pending
        ) and time.monotonic() < deadline:
            flush(0.5)
            time.sleep(0.05)
        run.notes.append(f"exit took {took:.2f} s, silent")
        try:
            row = run.row("interpreter exit, dead network, spool")
            row.dropped = {}
            return row
        finally:
            client.close()


def forks(scale: float = 1.0) -> Row:
    """A fork in the middle of a flush: the child delivers its own events, the parent's are not sent
    twice.
    """
    with running() as run:
        run.server.answer(late=0.3, times=1)
        run.track(50)
        run.client.flush()
        time.sleep(0.1)
        run.track(50)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for number in range(50):
                    run.client.track(f"c.{number}", CONTEXT)
                code = 0 if flush(30.0).delivered == 50 else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        run.until_delivered()
        run.sent += [f"c.{number}" for number in range(50)]
        return run.row("fork in the middle of a flush")


def _environment() -> dict[str, str]:
    root = str(HERE.parent.parent)
    return {**os.environ, "PYTHONPATH": root, "no_proxy": "*"}


FAULTS: list[Callable[..., Row]] = [
    answers_503,
    answers_429,
    answers_413,
    answers_413_to_one,
    answers_401,
    never_answers,
    answers_late,
    resets,
    refuses,
    vanishes,
    burst,
    burst_with_patience,
    clock_set_back,
    killed,
    exits,
    forks,
]
