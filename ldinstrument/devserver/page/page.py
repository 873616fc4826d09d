"""The page: rendered here, so that it can be read without script, and changed by forms.

The script only fetches the page again when something has changed, and puts what is new in place.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ...diagnostics import one_line
from ..api.experiment_rules import begun
from ..database import Document
from ..database_thread import DatabaseThread
from ..events.program_warnings import COLLECTION as PROGRAMS
from ..faults import InjectedFaults
from ..flags.environment import availability
from ..readout.health import HealthCheck
from ..readout.readout_reader import ReadoutReader
from ..request_body import read_body
from ..responses import RefusedRequest, invalid, not_found
from . import charts
from .fault_switches import FaultSwitches
from .findings import findings, of_check
from .flag_form import Form, saved, shown
from .page_api import GUARDS, Local, payload_counts
from .page_tables import activity, exposed_units, health_words
from .timelines import LOOKED_AT, timelines
from .view import ExperimentViews

FOLDER = Path(__file__).with_name("templates")
FILES = {"page.css": "text/css", "page.js": "text/javascript"}
PATIENCE_SECONDS = 0.5
COSTLY_SECONDS = 0.1
RESTS = 20
"""Health checks that take long are made so seldom that they cost a twentieth of the time."""
FEED = 30
SEARCHED = 10_000
LARGEST_FORM = 64 * 1024


class Visits(Protocol):
    """The open visits of a session store, where the server was given one."""

    def open(self) -> int:
        """Return how many visits are open, or ended and not reported yet."""

    def end(self) -> int:
        """End them now and report them; return how many."""


class Shown(Local, Protocol):
    """What the page shows and changes."""

    reader: ReadoutReader
    faults: InjectedFaults
    visits: Visits | None


class PageRoutes:
    """The page, its two files, and the forms in it."""

    def __init__(self, database_thread: DatabaseThread, local: Shown):
        self.database_thread = database_thread
        self.local = local
        self.switches = FaultSwitches(local.faults)
        self.views = ExperimentViews(local.database, local.reader)
        self.template = _template()
        self._checks: tuple[int, list[HealthCheck]] = (-1, [])
        self._next_checks = 0.0

    def routes(self) -> list[Route]:
        """Return the page at `/`, its files and forms under `/dev`."""
        files = [Route(f"/dev/{name}", _file(name)) for name in FILES]
        forms: Mapping[str, Callable[[Form], None]] = {
            "/dev/forms/flag": self._save_flag,
            "/dev/forms/flag/delete": self._delete_flag,
            "/dev/forms/iteration": self._change_iteration,
            "/dev/forms/fault": self._switch_fault,
            "/dev/forms/visits": self._end_visits,
            "/dev/forms/reset": lambda form: self.local.reset(),
        }
        changes = [Route(path, self._form(do), methods=["POST"]) for path, do in forms.items()]
        details = Route("/projects/{project}/metrics/{key}/details", self._metric)
        return [Route("/", self._page), *files, *changes, details]

    async def _metric(self, request: Request) -> Response:
        """Lead a link to a metric's details, as LaunchDarkly's are, to the metric in the page."""
        return RedirectResponse(f"/#m-{request.path_params['key']}")

    async def _page(self, request: Request) -> Response:
        content = await self.database_thread.read(self.render, request.query_params)
        text = content.encode("utf-8", "replace")  # half surrogate pairs cannot be sent
        return Response(text, media_type="text/html", headers=GUARDS)

    def render(self, asked: Mapping[str, str]) -> str:
        """Return the whole page.

        Args:
            asked: the query: `q` searches events, `who` contexts, `all` names the flag of the
                experiment whose metrics are all shown in full.
        """
        local, search = self.local, asked.get("q", "")
        readout = local.reader.current(seconds=PATIENCE_SECONDS)
        texts = local.event_log.reader.newest(LOOKED_AT)
        checks = self._health(readout.pending)
        failed = [of_check(check) for check in checks if not check.ok or check.warning]
        programs = local.database.documents(PROGRAMS)
        payloads = payload_counts(local.database)
        return self.template.render(
            experiments=self.views.of(readout, asked.get("all", "")),
            pending=readout.pending,
            health=health_words(payloads, len(failed), readout.pending),
            failed=failed,
            findings=findings(failed, programs, local.reader.metrics()),
            payloads=payloads,
            sessions=timelines([text for _, text, _, _ in texts]),
            visits=None if local.visits is None else _open_visits(local.visits),
            units=exposed_units(local.database, asked.get("who", "")),
            who=asked.get("who", ""),
            feed=_feed(local.event_log.reader.newest(SEARCHED) if search else texts, search),
            search=search,
            totals=readout.totals,
            metrics=self._metrics(),
            flags=[self._flag(flag) for flag in self._flags()],
            switches=self.switches.all(),
            faults=local.faults.active(),
        )

    def _health(self, pending: int) -> list[HealthCheck]:
        """Return the checks, made once for each state, and not while there is much to count.

        Where they take long, those of some seconds ago are shown.
        """
        revision, began = self.local.database.revision, time.monotonic()
        if self._checks[0] != revision and not pending and began >= self._next_checks:
            self._checks = revision, self.local.health()
            took = time.monotonic() - began
            self._next_checks = began + (took * RESTS if took > COSTLY_SECONDS else 0.0)
        return self._checks[1]

    def _metrics(self) -> list[Document]:
        local, counts = self.local, activity(self.local.database)
        return [
            {
                **metric,
                "project": project,
                "last_seen": local.event_log.reader.last_seen(metric["eventKey"]),
                "spark": charts.sparkline(
                    counts.get(metric["eventKey"], ()), f"events of {metric['eventKey']}"
                ),
            }
            for project, metric in local.reader.metrics()
        ]

    def _flags(self) -> list[Document]:
        found = self.local.database.documents("flag")
        return [flag for flag in found if not flag.get("deleted")]

    def _flag(self, flag: Document) -> Document:
        iterations = self.local.reader.iterations.of(flag["key"])
        return {
            **shown(flag),
            "key": flag["key"],
            "version": flag["version"],
            "rules": len(flag.get("rules") or ()) + len(flag.get("targets") or ()),
            "browser": availability(flag)["usingEnvironmentId"],
            "running": bool(iterations and iterations[-1].running),
            "iterations": len(iterations),
        }

    # -- forms -----------------------------------------------------------------------------------

    def _form(self, do: Callable[[Form], None]) -> Callable[[Request], Any]:
        """Return an endpoint that reads a form, does what it says, and leads back to the page."""

        async def endpoint(request: Request) -> Response:
            form: Form = {}
            try:
                form = await _read_form(request)
                # What takes long, such as a new iteration, must not make a POST of events wait.
                await self.database_thread.read(do, form)
            except RefusedRequest as refused:
                return _refusal(refused, form.get("back", ""))
            return RedirectResponse(f"/#{form.get('back', '')}", status_code=303)

        return endpoint

    def _save_flag(self, form: Form) -> None:
        key = form.get("key", "").strip()
        if not key:
            raise invalid("a flag needs a key")
        known = self.local.database.document("flag", "", key) or {}
        known = {} if known.get("deleted") else known
        self.local.set_flag(saved(key, form, known))

    def _delete_flag(self, form: Form) -> None:
        self.local.delete_flag(form.get("key", ""))

    def _change_iteration(self, form: Form) -> None:
        flag = form.get("key", "")
        known = self.local.database.document("flag", "", flag)
        if known is None:
            raise not_found()
        if form.get("do") == "stop":
            self.local.reader.stop_iteration(flag)
            return
        if begun(known) is not known:
            self.local.set_flag(begun(known))  # an experiment that was drafted over REST
        self.local.reader.start_iteration(flag)

    def _switch_fault(self, form: Form) -> None:
        self.switches.switch(form.get("name", ""), on=form.get("do") == "on")

    def _end_visits(self, form: Form) -> None:
        if self.local.visits is None:
            return
        try:
            self.local.visits.end()
        except Exception as error:
            raise RefusedRequest(503, "unavailable", one_line(str(error))) from error


def _open_visits(visits: Visits) -> int | str:
    """Return how many visits are open, or why the store does not tell: the page goes on."""
    try:
        return visits.open()
    except Exception as error:
        return f"The store does not answer: {one_line(str(error))}"


def _feed(texts: list[tuple[int, str, str, int]], search: str) -> list[Document]:
    """Return the newest events, newest first, or those with the searched text in them."""
    wanted = search.lower()
    found = [
        (id, json.loads(text), received)
        for id, text, _, received in reversed(texts)
        if wanted in text.lower()
    ][:FEED]
    return [
        {"id": id, "received": received, **_event_words(event)} for id, event, received in found
    ]


def _event_words(event: Document) -> Document:
    parts = []
    if event.get("metricValue") is not None:
        parts.append(f"value {_value_word(event['metricValue'])}")
    if event.get("variation") is not None:
        parts.append(f"variation {event['variation']} = {json.dumps(event.get('value'))}")
    reason = event.get("reason")
    if isinstance(reason, dict) and reason.get("inExperiment"):
        parts.append("in experiment")
    if event.get("data") is not None:
        parts.append(json.dumps(event["data"], ensure_ascii=False))
    if isinstance(event.get("features"), dict):
        parts.append(", ".join(event["features"]))
    return {
        "kind": event["kind"],
        "key": str(event.get("key", "")),
        "who": _who(event.get("context"))[:120],
        "about": "  ".join(parts)[:400],
    }


def _value_word(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)


def _who(context: Any) -> str:
    if not isinstance(context, dict):
        return ""
    if context.get("kind") != "multi":
        return f"{context.get('kind', 'user')}:{context.get('key')}"
    parts = [(kind, part) for kind, part in context.items() if isinstance(part, dict)]
    return " ".join(f"{kind}:{part.get('key')}" for kind, part in parts)


REFUSAL = Markup(
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Not saved</title>'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<link rel="stylesheet" href="/dev/page.css"></head><body><main><section><h1>Not saved</h1>'
    '<p class="bad" role="alert">{}</p><p><a href="/#{}">Back to the page</a></p>'
    "</section></main></body></html>"
)


def _refusal(refused: RefusedRequest, back: str) -> Response:
    """Say in a page of its own why a form was refused; the browser's way back keeps its fields."""
    content = REFUSAL.format(refused.message, back).encode("utf-8", "replace")
    return Response(content, refused.status, media_type="text/html", headers=GUARDS)


async def _read_form(request: Request) -> dict[str, str]:
    body = await read_body(request, LARGEST_FORM)
    try:
        found = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise invalid("not a form") from None
    return {name: values[-1] for name, values in found.items()}


def _file(name: str) -> Callable[[Request], Any]:
    content = (FOLDER / name).read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=FILES[name], headers=GUARDS)

    return endpoint


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "clock": _clock,
        "counted": charts.counted,
        "number": charts.number,
        "timeline": charts.timeline,
    }
    environment.globals |= {"asdict": asdict}
    return environment.get_template("page.html")


def _clock(milliseconds: int | None) -> str:
    if not milliseconds:
        return "never"
    try:
        return time.strftime("%H:%M:%S", time.localtime(milliseconds / 1000))
    except (OverflowError, ValueError, OSError):
        return "at no time"
