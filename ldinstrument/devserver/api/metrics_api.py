"""The metrics REST API: create, list, get, patch and delete."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..database import Database, Document
from ..events.event_log import EventLog
from ..responses import RefusedRequest, invalid, not_found, now_ms
from .listing import DEFAULT_LIMIT, MAX_LIMIT, filters, page_links, sorted_by, whole_number
from .metric_rules import checked
from .patches import operations, patched
from .projects import Projects, link
from .rest_call import RestCalls

EXPANDABLE = (
    "experiments",
    "experimentCount",
    "metricGroups",
    "metricGroupCount",
    "eventSources",
    "guardedRollouts",
    "guardedRolloutCount",
    "lastUsedInExperiment",
    "lastUsedInGuardedRollout",
)
DETAILS = ("experiments", "metricGroups")


class Metrics:
    """The metric definitions of all projects."""

    def __init__(self, database: Database, projects: Projects, event_log: EventLog):
        self.database = database
        self.projects = projects
        self.event_log = event_log

    def get(self, project: str, key: str) -> Document:
        """One metric as it is stored.

        Raises:
            RefusedRequest: 404.
        """
        found = self.database.document("metric", self.projects.require(project), key)
        if found is None:
            raise not_found()
        return found

    def every(self, project: str) -> list[Document]:
        """Return the metrics of a project, oldest first."""
        return self.database.documents("metric", self.projects.require(project))

    def create(self, project: str, body: Any) -> Document:
        """Create a metric.

        Raises:
            RefusedRequest: 400 for a body that cannot be one, 409 when the key is taken.
        """
        metric = checked(body, self.projects.kinds.available(self.projects.require(project)))
        at = now_ms()
        metric |= {
            "_id": uuid.uuid4().hex[:24],
            "_versionId": str(uuid.uuid4()),
            "_version": 1,
            "_creationDate": at,
            "_modified": at,
        }
        if not self.database.add("metric", project, metric["key"], metric):
            raise RefusedRequest(
                409, "conflict", f"A metric with the key {metric['key']} already exists"
            )
        return metric

    def patch(self, project: str, key: str, body: Any) -> Document:
        """Apply a JSON patch. One that changes nothing does not make a new version.

        Raises:
            RefusedRequest: 400, 404, and 409 when a `test` fails.
        """
        changes = operations(body)
        with self.database.locked():
            known = self.get(project, key)
            identity = {name: value for name, value in known.items() if name.startswith("_")}
            tested = {**known, **_dates(known)}
            result = patched(tested, changes)
            available = [*self.projects.kinds.available(project), *known["analysisUnits"]]
            metric = checked(result, available) | identity
            self._archive(metric, known)
            if metric == known:
                return known
            metric |= {
                "_version": known["_version"] + 1,
                "_versionId": str(uuid.uuid4()),
                "_modified": now_ms(),
            }
            self.database.put("metric", project, key, metric)
            return metric

    @staticmethod
    def _archive(metric: Document, known: Document) -> None:
        if metric["archived"]:
            metric["archivedAt"] = known.get("archivedAt") or now_ms()

    def delete(self, project: str, key: str) -> None:
        """Delete a metric.

        Raises:
            RefusedRequest: 404.
        """
        if not self.database.remove("metric", self.projects.require(project), key):
            raise not_found()

    def uses(self) -> dict[str, list[str]]:
        """Metric key to the experiments (flags) that name it as one of theirs."""
        found: dict[str, list[str]] = {}
        for flag in self.database.documents("flag"):
            for key in flag.get("experimentMetrics", ()):
                found.setdefault(key, []).append(flag["key"])
        return found


def _dates(metric: Document) -> Document:
    modified = datetime.datetime.fromtimestamp(metric["_modified"] / 1000, datetime.timezone.utc)
    return {
        "lastModified": {"date": modified.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    }


class MetricRoutes:
    """The REST routes of metrics."""

    def __init__(self, calls: RestCalls, metrics: Metrics):
        self.calls = calls
        self.metrics = metrics

    def routes(self) -> list[Route]:
        """Return the routes of the collection and of a single metric."""
        collection, single = "/api/v2/metrics/{project}", "/api/v2/metrics/{project}/{key}"
        return [
            Route(collection, self.calls.answer(self._list), methods=["GET"]),
            Route(collection, self.calls.answer(self._create), methods=["POST"]),
            Route(single, self.calls.answer(self._get), methods=["GET"]),
            Route(single, self.calls.answer(self._patch), methods=["PATCH"]),
            Route(single, self.calls.answer(self._delete), methods=["DELETE"]),
        ]

    def _create(self, request: Request, body: Any) -> Response:
        project = request.path_params["project"]
        return JSONResponse(self._rep(project, self.metrics.create(project, body)), status_code=201)

    def _get(self, request: Request, body: Any) -> Response:
        project, key = request.path_params["project"], request.path_params["key"]
        metric = self.metrics.get(project, key)
        version = request.query_params.get("versionId")
        if version is not None and version != metric["_versionId"]:
            raise not_found()
        return JSONResponse(self._rep(project, metric, _expand(request)))

    def _patch(self, request: Request, body: Any) -> Response:
        project, key = request.path_params["project"], request.path_params["key"]
        return JSONResponse(self._rep(project, self.metrics.patch(project, key, body)))

    def _delete(self, request: Request, body: Any) -> Response:
        self.metrics.delete(request.path_params["project"], request.path_params["key"])
        return Response(status_code=204)

    def _list(self, request: Request, body: Any) -> Response:
        project, parameters = request.path_params["project"], request.query_params
        limit = whole_number(parameters, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
        offset = whole_number(parameters, "offset", 0, 0, 10**9)
        uses, expand = self.metrics.uses(), _expand(request)
        tests = filters(parameters.get("filter", ""), uses)
        found = [
            metric for metric in self.metrics.every(project) if all(test(metric) for test in tests)
        ]
        found = sorted_by(found, parameters.get("sort", "createdAt"))
        items = [self._rep(project, metric, expand) for metric in found[offset : offset + limit]]
        for item in items:
            for name in DETAILS:
                item.pop(name, None)
        links = page_links(
            f"/api/v2/metrics/{project}", dict(parameters), limit, offset, len(found)
        )
        return JSONResponse({"items": items, "_links": links, "totalCount": len(found)})

    def _rep(self, project: str, metric: Document, expand: tuple[str, ...] = ()) -> Document:
        """Return the metric as the API answers it (`MetricRep`)."""
        path = f"/api/v2/metrics/{project}/{metric['key']}"
        rep = {
            name: value
            for name, value in metric.items()
            if name not in ("_modified", "experimentCount")
        }
        rep |= _dates(metric)
        rep |= {
            "_links": {"parent": link(f"/api/v2/metrics/{project}"), "self": link(path)},
            "_attachedFlagCount": 0,
        }
        rep["_site"] = {
            "href": f"/projects/{project}/metrics/{metric['key']}/details",
            "type": "text/html",
        }
        seen = (
            self.metrics.event_log.reader.last_seen(metric["eventKey"])
            if metric.get("eventKey")
            else None
        )
        rep |= {"lastSeen": seen} if seen is not None else {}
        return rep | self._expanded(project, metric["key"], expand)

    def _expanded(self, project: str, key: str, expand: tuple[str, ...]) -> Document:
        if not expand:
            return {}
        flags = self.metrics.uses().get(key, [])
        counts: Document = {"experimentCount": len(flags), "metricGroupCount": 0}
        found = {name: count for name, count in counts.items() if name in expand}
        if "experiments" in expand:
            found["experiments"] = [_experiment(project, flag) for flag in flags]
        return found | ({"metricGroups": []} if "metricGroups" in expand else {})


def _experiment(project: str, flag: str) -> Document:
    path = f"/api/v2/projects/{project}/environments/local/experiments/{flag}"
    return {
        "key": flag,
        "name": flag,
        "environmentId": "local",
        "environmentKey": "local",
        "_creationDate": 0,
        "creationDate": 0,
        "_links": {"self": link(path)},
    }


def _expand(request: Request) -> tuple[str, ...]:
    wanted = tuple(
        part.strip() for part in request.query_params.get("expand", "").split(",") if part.strip()
    )
    unknown = [part for part in wanted if part not in EXPANDABLE]
    if unknown:
        raise invalid(f"expand: {unknown[0]} is not one of {', '.join(EXPANDABLE)}")
    return wanted
