"""Kill workers at random, and compare what LaunchDarkly received with what the clients did.

    python tests/stores/killing.py [--store sqlite redis valkey] [--seconds 20] [--seed 1]

Workers are processes with an HTTP server, the real SDK, a session store and a sweeper; clients
speak HTTP to them. While they do, workers are killed (`kill -9`) and replaced, Redis is killed,
restarted and stopped, LaunchDarkly answers with errors, late, or takes a payload and cuts the
answer off; the clocks of the workers differ by minutes.

Each request of a visitor records a power of two of its own, so the sum that LaunchDarkly holds for
a visitor shows which requests are in it; that the number of interactions equals the number of its
binary ones shows that none is in it twice.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IDLE, LEASE, INTERVAL, OPERATIONS, MOST_SKEW = 0.6, 1.5, 0.15, 50, 600


# -- a worker --------------------------------------------------------------------------------------


def worker(address: str, events: str, skew: float) -> None:
    """Serve visits until killed; the clock of this process is off by *skew* seconds."""
    true_time = time.time
    time.time = lambda: true_time() + skew
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from ldclient import LDClient
    from ldclient.config import Config, HTTPConfig

    from ldinstrument.delivery import Plugin
    from ldinstrument.sessions.scopes import open_session
    from ldinstrument.stores import end_request, end_session, open_store

    client = LDClient(
        Config(
            "sdk-test",
            base_uri=events,
            events_uri=events,
            stream_uri=events,
            use_ldd=True,
            diagnostic_opt_out=True,
            plugins=[Plugin()],
            http=HTTPConfig(connect_timeout=1, read_timeout=1),
        )
    )
    store = open_store(address, idle=IDLE, interval=INTERVAL, lease=LEASE, client=client)

    _linger(store.store)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.strip("/").split("/")
            if parts[0] == "waiting":
                self.answer({"waiting": store.waiting})
            elif parts[0] == "logout":
                ended = end_session(store, parts[1])
                self.answer({"ended": ended is not None and ended.session_id})
            else:
                self.answer(self.visit(parts[1], int(parts[2]), parts[3] == "1"))

        def visit(self, visitor: str, number: int, success: bool) -> dict[str, Any]:
            opened = open_session(f"user-{visitor}", client=client)
            opened.interaction(success)
            opened.revenue(2.0**number)
            ref = end_request(opened, store, visitor)
            return {
                "stored": ref.stored,
                "session": ref.session_id,
                "previous": ref.previous_id,
                "opened": ref.opened,
            }

        def answer(self, body: dict[str, Any]) -> None:
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


def _linger(store: Any) -> None:
    """Rest now and then at the places where it matters who is killed: before sealing, and before
    acknowledging.
    """
    store.seal, store.acknowledge = _slowly(store.seal), _slowly(store.acknowledge)


def _slowly(verb: Any) -> Any:
    def later(*arguments: Any) -> Any:
        time.sleep(random.choice((0.0, 0.0, 0.2)))
        return verb(*arguments)

    return later


class Worker:
    """A worker process and the port that it serves."""

    def __init__(self, address: str, events: str, skew: float) -> None:
        command = [sys.executable, __file__, "--worker", address, events, str(skew)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def ask(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


# -- what the clients did --------------------------------------------------------------------------


@dataclass
class Journal:
    """Requests by what the client knows of them, per visitor as a mask of their numbers."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stored: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    requests: int = 0
    logouts: int = 0

    def note(self, fate: str, visitor: str, number: int, session: str = "") -> None:
        with self.lock:
            self.requests += 1
            masks = getattr(self, fate)
            masks[visitor] = masks.get(visitor, 0) | 1 << number
            if session:
                self.sessions.add(session)


class Load:
    """Clients: each thread has visitors of its own, who come, pause, log out and come again."""

    def __init__(self, workers: list[Worker], seed: int) -> None:
        self.journal = Journal()
        self._workers = workers
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, seed)) for number in range(6)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int, seed: int) -> None:
        dice, turn = random.Random(seed * 100 + number), 0
        asked: dict[str, int] = {}
        while not self._stop.is_set():
            turn += 1
            visitor = f"{number}-{turn // 200}-{dice.randrange(12)}"
            used = asked.get(visitor, 0)
            if used >= OPERATIONS:
                continue
            asked[visitor] = used + 1
            self._visit(visitor, used, dice)
            if dice.random() < 0.04:
                self._logout(visitor, dice)
            time.sleep(dice.random() * 0.01)

    def _visit(self, visitor: str, number: int, dice: random.Random) -> None:
        worker = dice.choice(self._workers)
        try:
            answer = worker.ask(f"/visit/{visitor}/{number}/{int(dice.random() < 0.8)}")
        except ConnectionRefusedError:  # nobody there: no request was made
            return
        except (OSError, http.client.HTTPException, ValueError):
            self.journal.note("unknown", visitor, number)
            return
        if answer["stored"]:
            self.journal.note("stored", visitor, number, answer["session"])
        else:
            self.journal.note("waiting", visitor, number)

    def _logout(self, visitor: str, dice: random.Random) -> None:
        with suppress(OSError, http.client.HTTPException, ValueError):
            dice.choice(self._workers).ask(f"/logout/{visitor}")
            self.journal.logouts += 1


# -- one run ---------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What a run showed; `wrong()` names what must not be."""

    store: str
    seconds: float
    requests: int = 0
    unknown: int = 0
    lost_with_worker: int = 0
    kills: int = 0
    disturbances: int = 0
    faults: int = 0
    sessions: int = 0
    missing_sessions: int = 0
    sessions_twice: int = 0
    missing: int = 0
    twice: int = 0
    unasked: int = 0
    posts: int = 0
    payloads: int = 0
    most_posts: int = 0
    misdated: int = 0
    mismeasured: int = 0
    left: str = ""

    def wrong(self) -> dict[str, Any]:
        names = (
            "missing_sessions",
            "sessions_twice",
            "missing",
            "twice",
            "unasked",
            "misdated",
            "mismeasured",
            "left",
        )
        return {name: getattr(self, name) for name in names if getattr(self, name)}


def run(store: str, seconds: float, seed: int = 1, workers: int = 4) -> Verdict:
    """Load, kill, disturb for *seconds*, let everything come to rest, and compare."""
    sys.path.insert(0, str(Path(__file__).parent))
    import servers

    from ldinstrument.devserver import LocalLaunchDarkly

    dice, began = random.Random(seed), time.time()
    verdict = Verdict(store, seconds)
    with tempfile.TemporaryDirectory() as name, LocalLaunchDarkly() as ld:
        logging.getLogger("uvicorn.error").setLevel(
            logging.CRITICAL
        )  # connections are cut on purpose
        redis = None
        if store in ("redis", "valkey"):
            binary = servers.redis_binary() if store == "redis" else servers.valkey_binary()
            assert binary is not None, f"no {store}-server here"
            redis = servers.RedisServer(binary, Path(name), durable=True)
        address = (
            f"{redis.url}?timeout=0.3" if redis is not None else f"sqlite:///{name}/sessions.db"
        )
        crew: list[Worker] = []
        try:
            skews = [dice.uniform(-MOST_SKEW, MOST_SKEW) for _ in range(workers)]
            crew += [Worker(address, ld.url, skew) for skew in skews]
            load = Load(crew, seed)
            load.start()
            deadline = time.monotonic() + seconds
            # On a slow machine longer: until there is something to compare.
            while (
                time.monotonic() < deadline or verdict.kills < 3 or len(load.journal.sessions) < 40
            ):
                time.sleep(dice.uniform(0.1, 0.5))
                _disturb(dice, ld, redis, verdict)
                victim = dice.randrange(workers)
                crew[victim].kill()
                verdict.kills += 1
                crew[victim] = Worker(address, ld.url, dice.uniform(-MOST_SKEW, MOST_SKEW))
            load.stop()
            ld.clear_faults()
            _come_to_rest(address, crew, verdict)
        finally:
            for worker in crew:
                worker.kill()
            if redis is not None:
                redis.stop()
        _compare(load.journal, ld, verdict, began)
    return verdict


def _disturb(dice: random.Random, ld: Any, redis: Any, verdict: Verdict) -> None:
    kind = dice.randrange(4)
    verdict.faults += 1
    if kind == 0:
        ld.fault("/bulk", status=503, times=2)
    elif kind == 1:
        ld.fault("/bulk", status=202, drop=True, after=True, times=2)
    elif kind == 2:
        ld.fault("/bulk", delay=0.3, times=4)
    else:
        ld.fault("/bulk", drop=True, times=2)
    if redis is None or dice.random() < 0.6:
        return
    verdict.disturbances += 1
    if dice.random() < 0.5:
        redis.signal(signal.SIGSTOP)
        time.sleep(0.6)
        redis.signal(signal.SIGCONT)
    else:
        redis.stop()
        time.sleep(0.2)
        redis.start()


def _come_to_rest(
    address: str, crew: list[Worker], verdict: Verdict, seconds: float = 150.0
) -> None:
    """Wait until nothing waits in a worker, and the store is empty: everything has been reported by
    the workers.
    """
    from ldinstrument.stores import open_store

    deadline = time.monotonic() + seconds
    with open_store(address.replace("timeout=0.3", "timeout=5"), idle=IDLE, sweep=False) as store:
        while time.monotonic() < deadline:
            held = store.holdings()
            waiting = sum(worker.ask("/waiting")["waiting"] for worker in crew)
            if not (held.open or held.ended or held.sealed or waiting):
                return
            time.sleep(0.1)
        verdict.left = f"{held}, {waiting} waiting"


def _compare(journal: Journal, ld: Any, verdict: Verdict, began: float) -> None:
    sums: Counter[str] = Counter()
    interactions: Counter[str] = Counter()
    reports: Counter[str] = Counter()
    for event in ld.custom_events():
        visitor = event["context"]["key"].removeprefix("user-")
        if event["key"] == "revenue.impact":
            sums[visitor] += int(event["metricValue"])
        elif event["key"] == "session.interactions":
            interactions[visitor] += int(event["metricValue"])
            reports[event["data"]["sessionId"]] += 1
        # By the clock of the worker that recorded it; what it lasted, by the store's.
        earliest, latest = began - MOST_SKEW - 2, time.time() + MOST_SKEW + 2
        if not earliest * 1000 <= event["creationDate"] <= latest * 1000:
            verdict.misdated += 1
        if event["key"] == "session.duration":
            verdict.mismeasured += not 0 <= event["metricValue"] <= (time.time() - began) * 1000
    verdict.requests = journal.requests
    visitors = {*sums, *interactions, *journal.stored, *journal.waiting, *journal.unknown}
    for visitor in visitors:
        stored, waiting = journal.stored.get(visitor, 0), journal.waiting.get(visitor, 0)
        unknown, seen = journal.unknown.get(visitor, 0), sums[visitor]
        verdict.missing += _ones(stored & ~seen)
        verdict.lost_with_worker += _ones(waiting & ~seen)
        verdict.unknown += _ones(unknown)
        verdict.unasked += _ones(seen & ~(stored | waiting | unknown))
        verdict.twice += abs(interactions[visitor] - _ones(seen))
    verdict.sessions = len(reports)
    verdict.sessions_twice = sum(count > 1 for count in reports.values())
    verdict.missing_sessions = len(journal.sessions - reports.keys())
    posts = Counter(post.payload_id for post in ld.posts())
    verdict.posts, verdict.payloads = sum(posts.values()), len(posts)
    verdict.most_posts = max(posts.values(), default=0)


def _ones(mask: int) -> int:
    return bin(mask).count("1")


# -- the table -------------------------------------------------------------------------------------

ROWS = {
    "requests": "requests",
    "kills": "workers killed (`kill -9`)",
    "disturbances": "store killed and restarted, or stopped",
    "faults": "faults of LaunchDarkly (503, cut, late, taken but not answered)",
    "unknown": "requests cut off by a kill (either way is right)",
    "lost_with_worker": "requests that waited for the store in a worker that was killed (lost)",
    "sessions": "sessions reported",
    "missing_sessions": "**sessions missing**",
    "sessions_twice": "**sessions twice**",
    "missing": "**acknowledged requests missing**",
    "twice": "**requests twice**",
    "unasked": "**requests that nobody made**",
    "misdated": "**events dated outside the run** (but for workers' clocks, off by up to 10 min)",
    "mismeasured": "**durations longer than the run**",
    "posts": "POSTs",
    "payloads": "payload ids",
    "most_posts": "most POSTs of one payload id",
}


def table(verdicts: list[Verdict]) -> str:
    lines = [
        "| | "
        + " | ".join(f"{verdict.store}, {verdict.seconds:g} s" for verdict in verdicts)
        + " |"
    ]
    lines.append("|---|" + "---:|" * len(verdicts))
    lines += [
        f"| {text} | " + " | ".join(str(getattr(verdict, name)) for verdict in verdicts) + " |"
        for name, text in ROWS.items()
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", nargs=3, metavar=("ADDRESS", "EVENTS", "SKEW"))
    parser.add_argument(
        "--store", nargs="+", default=["sqlite", "redis"], choices=["sqlite", "redis", "valkey"]
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        os.environ.pop(name, None)
    if arguments.worker:
        address, events, skew = arguments.worker
        worker(address, events, float(skew))
        return 0
    verdicts = [run(store, arguments.seconds, arguments.seed) for store in arguments.store]
    print(table(verdicts))
    wrong = {verdict.store: verdict.wrong() for verdict in verdicts if verdict.wrong()}
    if wrong:
        print("WRONG:", wrong)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
