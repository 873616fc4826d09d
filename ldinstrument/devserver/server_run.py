"""One run of the server: uvicorn in a thread, ended promptly even with streams open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Collection
from typing import Any, Protocol

import uvicorn

from .api.experiments import ExperimentRoutes
from .api.flags_api import FlagRestRoutes
from .api.metric_groups import MetricGroupRoutes
from .api.metrics_api import MetricRoutes, Metrics
from .api.projects import Projects
from .api.projects_api import ProjectRoutes
from .api.rest_call import RestCalls
from .app import build
from .database import Database, Document
from .database_thread import DatabaseThread
from .events.intake import IntakeRoutes, faulted_post, is_intake
from .events.program_warnings import ProgramRoutes
from .faults import FaultMiddleware
from .flags.client_side import ClientSideRoutes
from .flags.environment import Flags
from .flags.flag_changes import FlagChange, FlagChanges
from .flags.flag_delivery import FlagRoutes
from .page.page import PageRoutes, Shown
from .page.page_api import PageDataRoutes
from .readout.aggregation_thread import AggregationThread
from .tokens import Access


class Served(Access, Shown, Protocol):
    """What one run of the server needs to know of the `LocalLaunchDarkly` that it serves."""

    database: Database
    flags: Flags
    token: str | None
    projects: Collection[str] | None
    context_kinds: Collection[str]
    rate_limit: int
    allowed_hosts: Collection[str] | None


class ServerRun:
    """The application of a `LocalLaunchDarkly` and the thread that serves it."""

    def __init__(self, local: Served, listener: socket.socket):
        self.listener = listener
        self.event_log = local.event_log
        self.database_thread = DatabaseThread()
        intake = IntakeRoutes(self.database_thread, local.event_log, local)
        self.delivery = FlagRoutes(self.database_thread, local.flags, intake)
        self.browser = ClientSideRoutes(self.database_thread, local.flags, intake)
        page = PageRoutes(self.database_thread, local)
        self.data = PageDataRoutes(self.database_thread, local)
        self.unit_values = local.reader.unit_values
        self.aggregation = AggregationThread(local.reader.keep_up)
        intake.receiving = self.aggregation.post
        calls = RestCalls(self.database_thread, local, local.rate_limit)
        projects = Projects(local.database, local.projects, local.context_kinds)
        metrics = Metrics(local.database, projects, local.event_log)
        routes = [
            *intake.routes(),
            *self.delivery.routes(),
            *MetricRoutes(calls, metrics).routes(),
            *MetricGroupRoutes(calls, metrics).routes(),
            *ExperimentRoutes(calls, metrics, local, local.reader).routes(),
            *FlagRestRoutes(calls, projects, local).routes(),
            *ProjectRoutes(calls, projects).routes(),
            *self.browser.routes(),
            *page.routes(),
            *self.data.routes(),
            *ProgramRoutes(self.database_thread, local.database, intake).routes(),
        ]
        self.faults = FaultMiddleware(
            build(routes, local.allowed_hosts, local.token), local.faults, self._record_fault
        )
        self.server = _Server(_config(self.faults))
        self.server.before_shutdown = self._end_streams
        self._failure: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, name="ldinstrument-devserver", daemon=True
        )

    def start(self, timeout: float) -> None:
        """Serve in the thread; return when connections are accepted.

        Raises:
            RuntimeError: it did not come up.
        """
        self.database_thread.open()
        self._thread.start()
        self.unit_values.give_way = self.aggregation.give_way
        self.aggregation.start()
        if not self.server.up.wait(timeout) or self._failure is not None:
            self.stop()
            raise RuntimeError("the local LaunchDarkly did not start") from self._failure

    def stop(self) -> None:
        """End the streams, the connections, the loop, the threads."""
        self.server.end()
        self._thread.join()
        self.aggregation.stop()
        self.unit_values.give_way = lambda: None
        self.database_thread.close()
        self.browser.evaluations.close()
        self.listener.close()

    def publish(self, verb: str, kind: str, document: Document) -> None:
        """Tell the open streams of a change of a flag or segment."""
        if self.delivery.changes is not None:
            self.delivery.changes.publish(FlagChange(verb, kind, document))

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self.server.up.set()

    async def _serve(self) -> None:
        self.delivery.changes = self.browser.changes = FlagChanges()
        self.faults.stopping = self.data.stopping = asyncio.Event()
        await self.server.serve(sockets=[self.listener])

    def _end_streams(self) -> None:
        if self.delivery.changes is not None:
            self.delivery.changes.close()
        if self.faults.stopping is not None:
            self.faults.stopping.set()

    async def _record_fault(
        self, path: str, headers: dict[str, str], body: bytes, status: int, label: str
    ) -> None:
        if is_intake(path):
            await self.database_thread.run(self._keep_fault, path, headers, body, status, label)

    def _keep_fault(
        self, path: str, headers: dict[str, str], body: bytes, status: int, label: str
    ) -> None:
        self.event_log.record(faulted_post(path, headers, body, status, label))


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=1,
        # uvicorn's 5 s would meet the SDK's flush interval, and cut a POST in two.
        timeout_keep_alive=75,
        backlog=2048,
    )


class _Server(uvicorn.Server):
    """uvicorn that says when it is up, hears at once when it is to end, and ends the streams before
    it waits.
    """

    def __init__(self, config: uvicorn.Config):
        super().__init__(config)
        self.up = threading.Event()
        self.before_shutdown: Callable[[], None] = lambda: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None

    def end(self) -> None:
        """Ask for the end, from any thread."""
        self.should_exit = True
        if self._loop is not None and self._ended is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself in between
                self._loop.call_soon_threadsafe(self._ended.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        await super().startup(sockets)
        self.up.set()

    async def main_loop(self) -> None:
        """As uvicorn's, but an end is heard at once instead of at the next tick."""
        assert self._ended is not None
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % 864_000
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 0.1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.before_shutdown()
        await super().shutdown(sockets)
