"""One run of the server: uvicorn in a thread, ended promptly even with streams open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn

from .app import build
from .client_side import BrowserDelivery
from .experiments import ExperimentsAPI
from .faults import FaultMiddleware
from .flag_delivery import Delivery, Hub
from .flags import Flags
from .intake import Intake, faulted_post, is_intake
from .metrics_api import Metrics, MetricsAPI
from .page import Page
from .projects import Projects, ProjectsAPI
from .rest_call import RestCalls
from .store import Document
from .work import Work

if TYPE_CHECKING:
    from .server import LocalLaunchDarkly


class Running:
    """The application of a `LocalLaunchDarkly` and the thread that serves it."""

    def __init__(self, local: LocalLaunchDarkly, listener: socket.socket):
        self.listener = listener
        self.work = Work(local.store)
        intake = Intake(self.work, local)
        self.delivery = Delivery(self.work, Flags(local.store), intake)
        self.browser = BrowserDelivery(self.work, Flags(local.store), intake)
        self.page = Page(self.work, local)
        calls = RestCalls(self.work, local, local.rate_limit)
        projects = Projects(local.store, local.projects, local.context_kinds)
        metrics = Metrics(local.store, projects)
        routes = [
            *intake.routes(),
            *self.delivery.routes(),
            *MetricsAPI(calls, metrics).routes(),
            *ExperimentsAPI(calls, metrics).routes(),
            *ProjectsAPI(calls, projects).routes(),
            *self.browser.routes(),
            *self.page.routes(),
        ]
        self.faults = FaultMiddleware(
            build(routes, local.allowed_hosts), local._faults, self._record_fault
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
        self.work.open()
        self._thread.start()
        if not self.server.up.wait(timeout) or self._failure is not None:
            self.stop()
            raise RuntimeError("the local LaunchDarkly did not start") from self._failure

    def stop(self) -> None:
        """End the streams, the connections, the loop, the threads."""
        self.server.end()
        self._thread.join()
        self.work.close()
        self.browser.evaluations.close()
        self.listener.close()

    def publish(self, verb: str, change: Document) -> None:
        """Tell the open streams of a flag change."""
        if self.delivery.hub is not None:
            self.delivery.hub.publish(verb, change)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self.server.up.set()

    async def _serve(self) -> None:
        self.delivery.hub = self.browser.hub = Hub()
        self.faults.stopping = self.page.stopping = asyncio.Event()
        await self.server.serve(sockets=[self.listener])

    def _end_streams(self) -> None:
        if self.delivery.hub is not None:
            self.delivery.hub.close()
        if self.faults.stopping is not None:
            self.faults.stopping.set()

    async def _record_fault(
        self, path: str, headers: dict[str, str], body: bytes, status: int, label: str
    ) -> None:
        if is_intake(path):
            await self.work.run(self._keep_fault, path, headers, body, status, label)

    def _keep_fault(
        self, path: str, headers: dict[str, str], body: bytes, status: int, label: str
    ) -> None:
        self.work.store.record(faulted_post(path, headers, body, status, label))


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
        timeout_keep_alive=75,  # uvicorn's 5 s would meet the SDK's flush interval, and cut a POST in two
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
