"""Experiments over REST: one per flag that randomizes, with its iterations and results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...analysis import result_document
from ..database import Database, Document
from ..flags.environment import REST, is_archived
from ..flags.flags import randomization_kinds
from ..readout.iterations import Iteration
from ..readout.readout_reader import ReadoutReader, weights_of
from ..responses import RefusedRequest, invalid, not_found
from .experiment_rules import begun, drafted, experiment_key, flag_of
from .flag_representation import variations_of
from .flags_api import FlagKeeper
from .metrics_api import Metrics
from .projects import link
from .rest_call import RestCalls, is_semantic, semantic_patch_expected

STARTING = ("startIteration", "saveAndStartNewIteration")
NAMING = ("treatmentId", "fromTreatmentId")


class ExperimentRoutes:
    """The REST routes about experiments.

    An experiment runs while its flag is on and its iteration was not stopped, in any environment.
    """

    def __init__(
        self, calls: RestCalls, metrics: Metrics, keeper: FlagKeeper, reader: ReadoutReader
    ):
        self.calls = calls
        self.metrics = metrics
        self.keeper = keeper
        self.reader = reader
        self.database: Database = metrics.database

    def routes(self) -> list[Route]:
        """Return the routes of the list, of one experiment, and of its results."""
        base = "/api/v2/projects/{project}/environments/{environment}/experiments"
        answer = partial(self.calls.answer, long=True)
        return [
            Route(base, answer(self._list), methods=["GET"]),
            Route(base, answer(self._create), methods=["POST"]),
            Route(f"{base}/{{key}}", answer(self._get), methods=["GET"]),
            Route(f"{base}/{{key}}", answer(self._patch), methods=["PATCH"]),
            Route(f"{base}/{{key}}/metrics/{{metric}}/results", answer(self._results)),
        ]

    def _list(self, request: Request, body: Any) -> Response:
        project = self.metrics.projects.require(request.path_params["project"])
        environment = request.path_params["environment"]
        items = [self._rep(project, environment, flag) for flag in self._experiments()]
        links = {"self": link(_path(project, environment))}
        return JSONResponse({"items": items, "_links": links, "total_count": len(items)})

    def _create(self, request: Request, body: Any) -> Response:
        """Draft an experiment on a flag; an iteration that is started serves it."""
        project = self.metrics.projects.require(request.path_params["project"])
        with self.database.locked():
            flag = self._living(flag_of(body))
            if flag is None:
                raise invalid("iteration.flags: there is no such flag")
            made = drafted(body, flag)
            for key in made[REST]["experiment"]["draft"]["experimentMetrics"]:
                if self.database.document("metric", project, key) is None:
                    raise invalid(f"iteration.metrics: there is no metric {key!r}")
            if any(experiment_key(each) == body["key"] for each in self._experiments()):
                message = f"An experiment with the key {body['key']} already exists"
                raise RefusedRequest(409, "conflict", message)
            self.keeper.set_flag(made)
        known = self.database.document("flag", "", flag["key"]) or {}
        made = self._rep(project, request.path_params["environment"], known)
        return JSONResponse(made, status_code=201)

    def _experiments(self) -> list[Document]:
        """Return the flags that are experiments: by their rollout, or by a draft."""
        flags = self.database.documents("flag")
        return [flag for flag in flags if _is_living(flag) and _is_experiment(flag)]

    def _living(self, key: str) -> Document | None:
        found = self.database.document("flag", "", key)
        return found if found is not None and _is_living(found) else None

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
            **dict.fromkeys(STARTING, self._start),
            "stopIteration": self.reader.stop_iteration,
        }
        kinds = [each.get("kind") if isinstance(each, dict) else None for each in instructions]
        if not all(isinstance(kind, str) and kind in changes for kind in kinds):
            raise invalid(f"instructions: only {', '.join(STARTING)} and stopIteration work here")
        for kind in kinds:
            changes[kind](named[2]["key"])
        return JSONResponse(self._rep(*self._named(request)))

    def _start(self, key: str) -> Iteration:
        """Start an iteration; what was drafted is served from then on."""
        with self.database.locked():
            flag = self._living(key)
            if flag is not None and begun(flag) is not flag:
                self.keeper.set_flag(begun(flag))
        return self.reader.start_iteration(key)

    def _results(self, request: Request, body: Any) -> Response:
        project, _, flag = self._named(request)
        metric = self.metrics.get(project, request.path_params["metric"])
        for experiment in self.reader.read(project).experiments:
            for found in experiment.metrics:
                if experiment.flag == flag["key"] and found.metric["key"] == metric["key"]:
                    if found.result is not None:
                        last_seen = self.metrics.event_log.reader.last_seen(metric["eventKey"])
                        document = result_document(found.result, last_seen)
                        return JSONResponse(_by_variation(document, _ids(flag)))
                    raise not_found(found.reason)
        raise not_found("nobody was exposed yet")

    def _named(self, request: Request) -> tuple[str, str, Document]:
        project = self.metrics.projects.require(request.path_params["project"])
        for flag in self._experiments():
            if experiment_key(flag) == request.path_params["key"]:
                return project, request.path_params["environment"], flag
        raise not_found()

    def _rep(self, project: str, environment: str, flag: Document) -> Document:
        iterations = self.reader.iterations.of(flag["key"])
        current = iterations[-1] if iterations else None
        earlier = iterations[:-1]
        key, own = experiment_key(flag), flag.get(REST, {}).get("experiment", {})
        drafts = _draft(flag) is not None
        return {
            "_id": key,
            "key": key,
            "name": own.get("name", key),
            **({"description": own["description"]} if "description" in own else {}),
            "_maintainerId": own.get("maintainerId", "local"),
            "_creationDate": own.get("creationDate", 0),
            "environmentKey": environment,
            "_links": {"self": link(f"{_path(project, environment)}/{key}")},
            "currentIteration": self._drafted(project, flag)
            if drafts
            else self._iteration(project, flag, current),
            "previousIterations": [
                self._iteration(project, flag, each) for each in (iterations if drafts else earlier)
            ],
        }

    def _drafted(self, project: str, flag: Document) -> Document:
        """Return the iteration that would be started."""
        shown = self._iteration(project, begun(flag), None)
        kept = {name: value for name, value in shown.items() if name != "startedAt"}
        created = flag[REST]["experiment"]["creationDate"]
        return {**kept, "status": "not_started", "createdAt": created}

    def _iteration(self, project: str, flag: Document, iteration: Iteration | None) -> Document:
        counted = list(self._counted(project, flag))
        key = flag["key"]
        running = bool(flag.get("on")) and (iteration is None or iteration.running)
        started = iteration.started if iteration else 0
        stopped = {"endedAt": iteration.stopped} if iteration and iteration.stopped else {}
        return {
            "hypothesis": flag.get(REST, {}).get("experiment", {}).get("hypothesis", ""),
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


def _is_living(flag: Document) -> bool:
    return not flag.get("deleted") and not is_archived(flag)


def _is_experiment(flag: Document) -> bool:
    return bool(randomization_kinds(flag)) or _draft(flag) is not None


def _draft(flag: Document) -> Document | None:
    found: Document | None = flag.get(REST, {}).get("experiment", {}).get("draft")
    return found


def _ids(flag: Document) -> list[str]:
    """Return the ids of a flag's variations, which are those of an experiment's treatments."""
    return [variation["_id"] for variation in variations_of(flag)]


def _by_variation(document: Any, ids: Sequence[str]) -> Any:
    """Return results whose treatments are named by the id of their variation."""
    if isinstance(document, list):
        return [_by_variation(each, ids) for each in document]
    if not isinstance(document, dict):
        return document
    return {
        name: ids[int(value)]
        if name in NAMING and str(value).isdigit() and int(value) < len(ids)
        else _by_variation(value, ids)
        for name, value in document.items()
    }


def _path(project: str, environment: str) -> str:
    return f"/api/v2/projects/{project}/environments/{environment}/experiments"


def _treatments(flag: Document) -> list[Document]:
    """Return the variations that get a share, the control marked."""
    weights = weights_of(flag)
    total = sum(weights.values()) or 1.0
    variations = dict(enumerate(variations_of(flag)))
    return [
        {
            "_id": variations.get(index, {}).get("_id", str(index)),
            "name": _name(variations.get(index, {"value": index})),
            "allocationPercent": f"{weight / total * 100:g}",
            "baseline": index == flag.get("experimentControl", 0),
        }
        for index, weight in weights.items()
    ]


def _name(variation: Document) -> str:
    return str(variation.get("name") or variation["value"])
