"""Experiments over REST: one per flag that randomizes, with its iterations and results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...analysis import result_document
from ..database import Database, Document
from ..flags.environment import Flags
from ..flags.flags import randomization_kinds
from ..readout.iterations import Iteration
from ..readout.readout_reader import ReadoutReader, weights_of
from ..responses import invalid, not_found
from .metrics_api import Metrics
from .projects import link
from .rest_call import RestCalls, is_semantic, semantic_patch_expected

STARTING = ("startIteration", "saveAndStartNewIteration")


class ExperimentRoutes:
    """The REST routes about experiments.

    An experiment runs while its flag is on and its iteration was not stopped, in any environment.
    """

    def __init__(self, calls: RestCalls, metrics: Metrics, flags: Flags, reader: ReadoutReader):
        self.calls = calls
        self.metrics = metrics
        self.flags = flags
        self.reader = reader
        self.database: Database = metrics.database

    def routes(self) -> list[Route]:
        """Return the routes of the list, of one experiment, and of its results."""
        base = "/api/v2/projects/{project}/environments/{environment}/experiments"
        answer = partial(self.calls.answer, long=True)
        return [
            Route(base, answer(self._list), methods=["GET"]),
            Route(f"{base}/{{key}}", answer(self._get), methods=["GET"]),
            Route(f"{base}/{{key}}", answer(self._patch), methods=["PATCH"]),
            Route(f"{base}/{{key}}/metrics/{{metric}}/results", answer(self._results)),
        ]

    def _list(self, request: Request, body: Any) -> Response:
        project = self.metrics.projects.require(request.path_params["project"])
        environment = request.path_params["environment"]
        flags = (flag for flag in self.flags.all() if self._kinds(flag))
        items = [self._rep(project, environment, flag) for flag in flags]
        links = {"self": link(_path(project, environment))}
        return JSONResponse({"items": items, "_links": links, "total_count": len(items)})

    def _get(self, request: Request, body: Any) -> Response:
        return JSONResponse(self._rep(*self._named(request)))

    def _patch(self, request: Request, body: Any) -> Response:
        """Start and stop iterations, by LaunchDarkly's semantic patch."""
        named = self._named(request)
        if not is_semantic(request):
            raise semantic_patch_expected()
        instructions = body.get("instructions") if isinstance(body, dict) else None
        if not isinstance(instructions, list):
            raise invalid("instructions is required")
        changes: Mapping[Any, Callable[[str], Iteration | None]] = {
            **dict.fromkeys(STARTING, self.reader.start_iteration),
            "stopIteration": self.reader.stop_iteration,
        }
        kinds = [each.get("kind") if isinstance(each, dict) else None for each in instructions]
        if not all(isinstance(kind, str) and kind in changes for kind in kinds):
            raise invalid(f"instructions: only {', '.join(STARTING)} and stopIteration work here")
        for kind in kinds:
            changes[kind](named[2])
        return JSONResponse(self._rep(*named))

    def _results(self, request: Request, body: Any) -> Response:
        project, _, flag = self._named(request)
        metric = self.metrics.get(project, request.path_params["metric"])
        for experiment in self.reader.read(project).experiments:
            for found in experiment.metrics:
                if experiment.flag == flag and found.metric["key"] == metric["key"]:
                    if found.result is not None:
                        last_seen = self.metrics.traffic.arrivals.last_seen(metric["eventKey"])
                        return JSONResponse(result_document(found.result, last_seen))
                    raise not_found(found.reason)
        raise not_found("nobody was exposed yet")

    def _named(self, request: Request) -> tuple[str, str, str]:
        project = self.metrics.projects.require(request.path_params["project"])
        flag = request.path_params["key"]
        if not self._kinds(flag):
            raise not_found()
        return project, request.path_params["environment"], flag

    def _kinds(self, flag: str) -> list[str]:
        """Return the kinds by which a flag randomizes; empty when it is no experiment."""
        found = self.database.document("flag", "", flag)
        return [] if found is None or found.get("deleted") else randomization_kinds(found)

    def _rep(self, project: str, environment: str, flag: str) -> Document:
        document = self.database.document("flag", "", flag) or {}
        iterations = self.reader.iterations.of(flag)
        current = iterations[-1] if iterations else None
        earlier = iterations[:-1]
        return {
            "_id": flag,
            "key": flag,
            "name": flag,
            "_maintainerId": "local",
            "_creationDate": 0,
            "environmentKey": environment,
            "_links": {"self": link(f"{_path(project, environment)}/{flag}")},
            "currentIteration": self._iteration(project, document, current),
            "previousIterations": [self._iteration(project, document, each) for each in earlier],
        }

    def _iteration(self, project: str, flag: Document, iteration: Iteration | None) -> Document:
        counted = list(self._counted(project, flag))
        key = flag["key"]
        running = bool(flag.get("on")) and (iteration is None or iteration.running)
        started = iteration.started if iteration else 0
        stopped = {"endedAt": iteration.stopped} if iteration and iteration.stopped else {}
        return {
            "hypothesis": "",
            "status": "running" if running else "stopped",
            "createdAt": started,
            "startedAt": started,
            **stopped,
            "randomizationUnit": randomization_kinds(flag)[0],
            "flags": {key: {"_links": {"self": link(f"/api/v2/flags/{project}/{key}")}}},
            "treatments": _treatments(flag),
            "metrics": counted,
            **({"primaryMetric": counted[0]} if counted else {}),
        }

    def _counted(self, project: str, flag: Document) -> Iterator[Document]:
        for key in flag.get("experimentMetrics", ()):
            metric = self.database.document("metric", project, key)
            if metric is not None:
                kept = {name: metric[name] for name in ("key", "name", "kind", "_versionId")}
                links = {"self": link(f"/api/v2/metrics/{project}/{key}")}
                yield {**kept, "isGroup": False, "_links": links}


def _path(project: str, environment: str) -> str:
    return f"/api/v2/projects/{project}/environments/{environment}/experiments"


def _treatments(flag: Document) -> list[Document]:
    """Return the variations that get a share, the control marked."""
    weights = weights_of(flag)
    total = sum(weights.values()) or 1.0
    values = flag.get("variations") or []
    return [
        {
            "_id": str(index),
            "name": str(values[index]) if index < len(values) else str(index),
            "allocationPercent": f"{weight / total * 100:g}",
            "baseline": index == flag.get("experimentControl", 0),
        }
        for index, weight in weights.items()
    ]
