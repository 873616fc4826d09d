"""The local LaunchDarkly as an object: start it on a free port, look into it, stop it."""

from __future__ import annotations

import secrets
import socket
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import missing_extra
from ..settings import is_loopback
from .database import Database, Document
from .events.event_log import SCHEMA as TRAFFIC
from .events.event_log import EventLog
from .events.filtered_series import SCHEMA as SERIES
from .events.measurement_log import SCHEMA as LOG
from .events.received import Post, ReceivedEvent
from .faults import InjectedFault, InjectedFaults
from .flags.environment import Flags, is_archived
from .flags.flags import FlagList, read_flags
from .readout.health import HealthCheck, health_checks
from .readout.iterations import SCHEMA as ITERATIONS
from .readout.iterations import Iteration
from .readout.readout import Readout
from .readout.readout_reader import ReadoutReader
from .readout.unit_values import SCHEMA as AGGREGATION

if TYPE_CHECKING:
    from .page.page import Visits
    from .server_run import ServerRun


SCHEMA = TRAFFIC + LOG + SERIES + ITERATIONS + AGGREGATION
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
"""Addresses that mean every interface, with the one by which this machine reaches itself."""
START_SECONDS = 20.0


class LocalLaunchDarkly:
    """A LaunchDarkly in this process, on loopback: metrics API, event intake, flag delivery,
    read-out and page.

    A context manager: `with LocalLaunchDarkly() as ld:` starts it in a thread and stops it at the
    end. What it has received can still be read afterwards, and `start()` brings it back on the same
    port with everything it knew.

    Args:
        port: 0 takes a free one, which then stays the same over restarts.
        db: a path for the SQLite database; None keeps everything in memory.
        flags: flags in LaunchDarkly's SDK format (`experiment_flag` builds one), or the path of a
            JSON file with flags and segments.
        sdk_keys: the SDK keys and client-side ids that are accepted; None accepts all that are not
            empty.
        tokens: the REST tokens that are accepted; None accepts all that are neither SDK keys nor
            carry `Bearer`.
        faults: faults from the start, see `fault`.
        projects: the projects that exist; None lets every key exist.
        context_kinds: the context kinds of each project, the default randomization unit first.
        rate_limit: REST calls in 10 s before 429.
        max_payload_bytes: a larger event payload, inflated or not, is answered with 413.
        host: the address to bind. Beyond loopback the page and REST ask other machines for the
            token in `page_url`.
        allowed_hosts: names accepted in the `Host` header; by default the loopback names on
            loopback, else all.
        segments: segments in LaunchDarkly's SDK format, beside those of a file.
        visits: the open visits of a session store, which the page shows and ends.
    """

    def __init__(
        self,
        port: int = 0,
        db: str | Path | None = None,
        flags: Iterable[Document] | str | Path = (),
        sdk_keys: Collection[str] | None = None,
        tokens: Collection[str] | None = None,
        faults: Iterable[InjectedFault] = (),
        *,
        projects: Collection[str] | None = None,
        context_kinds: Collection[str] = ("user", "request"),
        rate_limit: int = 100_000,
        max_payload_bytes: int = 32 * 1024 * 1024,
        host: str = "127.0.0.1",
        allowed_hosts: Collection[str] | None = None,
        segments: Iterable[Document] = (),
        visits: Visits | None = None,
    ):
        self.host = host
        self.port = port
        self.sdk_keys = sdk_keys
        self.tokens = tokens
        self.projects = projects
        self.context_kinds = context_kinds
        self.rate_limit = rate_limit
        self.max_payload_bytes = max_payload_bytes
        local = is_loopback(host)
        if allowed_hosts is None and local:
            allowed_hosts = (*LOOPBACK, host.lower())
        self.allowed_hosts = allowed_hosts
        self.visits = visits
        self.token = None if local else secrets.token_urlsafe(16)
        self._given = given_flags(flags, segments)
        self.database = Database(str(db) if db is not None else None, SCHEMA)
        self._finalizer = weakref.finalize(self, self.database.close)
        self._finalizer.atexit = False  # a forked child may have inherited the database's lock
        self.event_log = EventLog(self.database)
        self.reader = ReadoutReader(self.database, self.event_log)
        self.flags = Flags(self.database)
        self.flags.add_missing(self._given)
        self.flags.add_missing(self._given.segments, "segment")
        self.faults = InjectedFaults()
        for fault in faults:
            self.faults.add(fault)
        self._running: ServerRun | None = None

    # -- life --------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Return where this machine reaches it, such as `http://127.0.0.1:8030`: base, stream and
        events URI of every SDK, and of REST.
        """
        host = ANY_ADDRESS.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def page_url(self) -> str:
        """Return the address of the page, with the token that other machines need."""
        return f"{self.url}/" + (f"?token={self.token}" if self.token else "")

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._running is not None

    def start(self) -> LocalLaunchDarkly:
        """Listen, and return once requests are answered.

        Raises:
            MissingExtra: starlette or uvicorn is not installed.
            OSError: the port is taken, or the address is not this machine's.
        """
        if self._running is None:
            running = _server_run_class()(self, self._bind())
            running.start(START_SECONDS)
            self._running = running
        return self

    def stop(self) -> None:
        """End every stream and connection, and the thread; harmless twice. What was received stays
        readable.
        """
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    def close(self) -> None:
        """Stop, and close the database: nothing can be read any more."""
        self.stop()
        self._finalizer()

    def __enter__(self) -> LocalLaunchDarkly:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # Only with the protocol named does asyncio switch Nagle's algorithm off; else each answer
        # takes 40 ms longer.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            reason = f"{self.host}:{self.port}: {error.strerror or error}"
            raise OSError(error.errno, reason) from error
        self.port = int(listener.getsockname()[1])
        return listener

    # -- what it received --------------------------------------------------------------------------

    def events(self, kind: str | None = None) -> list[ReceivedEvent]:
        """Every event that was accepted, in the order of arrival, as it was sent.

        Each is a dict with `payload_id` and `received` (epoch milliseconds) as attributes. Repeated
        payloads count once; diagnostics are no events.
        """
        return [
            event
            for event in self.event_log.reader.events(kind=kind)
            if not str(event["kind"]).startswith("diagnostic")
        ]

    def custom_events(self, key: str | None = None) -> list[ReceivedEvent]:
        """Return the `track` events, of one event key or of all."""
        return self.event_log.reader.events(kind="custom", key=key)

    def count(self, kind: str | None = "custom", key: str | None = None) -> int:
        """How many events were accepted, without reading them: of one kind (None: of all) and one
        event key.
        """
        return self.event_log.reader.count(kind, key)

    def diagnostics(self) -> list[ReceivedEvent]:
        """Return what SDKs said about themselves."""
        return [
            event
            for event in self.event_log.reader.events()
            if str(event["kind"]).startswith("diagnostic")
        ]

    def posts(self, route: str | None = None) -> list[Post]:
        """Return the POSTs that carried events, refused, spoilt and repeated ones included, in the
        order of arrival.

        Args:
            route: a path with wildcards; without it all but diagnostics.
        """
        wanted = self.event_log.reader.posts()
        if route is None:
            return [post for post in wanted if "diagnostic" not in post.route]
        return [post for post in wanted if fnmatchcase(post.route, route)]

    def readout(self, project: str | None = None, iteration: int | None = None) -> Readout:
        """Return metrics by flag variation with their analysis, and totals by event key.

        Args:
            project: only the metrics of this project.
            iteration: the number of an experiment's iteration; the latest without.
        """
        return self.reader.read(project, iteration)

    def start_iteration(self, flag: str) -> Iteration:
        """Start a new iteration of the experiment on a flag; the one that runs stops."""
        return self.reader.start_iteration(flag)

    def stop_iteration(self, flag: str) -> Iteration | None:
        """Stop the iteration that runs; None when none does."""
        return self.reader.stop_iteration(flag)

    def health(self, project: str | None = None) -> list[HealthCheck]:
        """LaunchDarkly's metric health checks over what has arrived; see `health.health_checks`."""
        self.reader.unit_values.aggregate()
        return health_checks(self.database, project)

    def wait_for(self, predicate: Callable[[], Any], timeout: float = 30.0) -> Any:
        """Look until the predicate is true, and return what it said.

        Raises:
            TimeoutError: it never was; the message says what had arrived.
        """
        deadline = time.monotonic() + timeout
        while True:
            asked = time.monotonic()
            if found := predicate():
                return found
            if time.monotonic() > deadline:
                arrived = f"{len(self.posts())} posts, {self.count(kind=None)} events"
                raise TimeoutError(f"not within {timeout} s; {arrived} arrived")
            time.sleep(
                max(0.005, time.monotonic() - asked)
            )  # a costly question must not starve the server

    def reset(self) -> None:
        """Forget events, metrics, settings and faults; flags and segments become those of the
        start.
        """
        self.faults.clear()
        self.event_log.forget()
        self.reader.unit_values.forget()
        self.database.forget_documents(keep=("flag", "segment"))
        self._restore("flag", self.flags.all(), self._given)
        self._restore("segment", self.flags.segments(), self._given.segments)

    def _restore(self, kind: str, present: Iterable[str], given: Iterable[Document]) -> None:
        wanted = {document["key"]: document for document in given}
        for key in present:
            if key not in wanted:
                self._delete(kind, key)
        for document in wanted.values():
            if not self.flags.same(document, kind):
                self._set(kind, document)

    # -- what it does ----------------------------------------------------------------------------

    def set_flag(self, flag: Document) -> None:
        """Create or change a flag while SDKs are connected; the open streams hear of it at once."""
        self._set("flag", flag)

    def delete_flag(self, key: str) -> None:
        """Delete a flag; the open streams hear of it at once."""
        self._delete("flag", key)

    def set_segment(self, segment: Document) -> None:
        """Create or change a segment while SDKs are connected."""
        self._set("segment", segment)

    def delete_segment(self, key: str) -> None:
        """Delete a segment."""
        self._delete("segment", key)

    def _set(self, kind: str, document: Document) -> None:
        made = self.flags.set(document, kind)
        if is_archived(document):
            made = {"key": made["key"], "version": made["version"]}
            self._publish("delete", kind, made)
        else:
            self._publish("put", kind, made)

    def _delete(self, kind: str, key: str) -> None:
        version = self.flags.delete(key, kind)
        if version is not None:
            self._publish("delete", kind, {"key": key, "version": version})

    def _publish(self, verb: str, kind: str, document: Document) -> None:
        if self._running is not None:
            self._running.publish(verb, kind, document)

    def fault(
        self,
        route: str,
        *,
        status: int | None = None,
        times: int | None = 1,
        headers: Mapping[str, str] | None = None,
        body: bytes | str = b"",
        delay: float = 0.0,
        drop: bool | str = False,
        truncate: bool = False,
        after: bool = False,
        method: str | None = None,
        skip: int = 0,
        when: Callable[[str, str, Mapping[str, str], bytes], bool] | None = None,
    ) -> InjectedFault:
        """Spoil the next matching requests; the fields are those of `faults.InjectedFault`.

        Example: `ld.fault("/bulk", status=503, times=3, headers={"Retry-After": "1"})`.

        Returns:
            The fault; its `hits` counts, and `times = 0` ends it.
        """
        fault = InjectedFault(
            route,
            status,
            times,
            dict(headers or {}),
            body,
            delay,
            drop,
            truncate,
            after,
            method,
            skip,
            when,
        )
        return self.faults.add(fault)

    def clear_faults(self) -> None:
        """Behave again."""
        self.faults.clear()

    def __repr__(self) -> str:
        return f"<LocalLaunchDarkly {self.url} {'running' if self.running else 'stopped'}>"


def given_flags(flags: Iterable[Document] | str | Path, segments: Iterable[Document]) -> FlagList:
    """Return flags and segments, of a file where a path is given."""
    found = read_flags(flags) if isinstance(flags, (str, Path)) else flags
    return FlagList(found, [*getattr(found, "segments", ()), *segments])


def _server_run_class() -> type[ServerRun]:
    """Starlette and uvicorn load with the first start."""
    try:
        from .server_run import ServerRun
    except ImportError as error:
        if error.name and error.name.split(".")[0] in (
            "starlette",
            "uvicorn",
            "jsonpatch",
            "jsonpointer",
            "jinja2",
            "pydantic",
            "pydantic_core",
        ):
            raise missing_extra("dev", error.name.split(".")[0]) from error
        raise
    return ServerRun
