"""Experiments and flag statuses, read-only: what the flags and the evaluations of the one
environment amount to.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .database import Database, Document
from .flags import randomization_kinds
from .metrics_api import Metrics
from .projects import link
from .responses import not_found, now_ms
from .rest_call import RestCalls

INACTIVE_MS = 7 * 86_400_000
_EVALUATED = "SELECT max(created) FROM events WHERE key = ? AND kind IN ('feature', 'debug')"
_SUMMED = """
SELECT max(json_extract(body, '$.endDate')) FROM events
  WHERE kind = 'summary' AND EXISTS (SELECT 1 FROM json_each(body, '$.features') WHERE json_each.key = ?)
"""


class ExperimentRoutes:
    """The REST routes about experiments: one per flag that randomizes, running while the flag is
    on.
    """

    def __init__(self, calls: RestCalls, metrics: Metrics):
        self.calls = calls
        self.metrics = metrics
        self.database: Database = metrics.database

    def routes(self) -> list[Route]:
        """One experiment, and the status of one flag."""
        one = "/api/v2/projects/{project}/environments/{environment}/experiments/{key}"
        status = "/api/v2/flag-statuses/{project}/{environment}/{key}"
        return [
            Route(one, self.calls.answer(self._experiment), methods=["GET"]),
            Route(status, self.calls.answer(self._status), methods=["GET"]),
        ]

    def _flag(self, request: Request) -> tuple[str, Document]:
        project = self.metrics.projects.require(request.path_params["project"])
        flag = self.database.document("flag", "", request.path_params["key"])
        if flag is None or flag.get("deleted"):
            raise not_found()
        return project, flag

    def _experiment(self, request: Request, body: Any) -> Response:
        project, flag = self._flag(request)
        kinds = randomization_kinds(flag)
        if not kinds:
            raise not_found()
        environment = request.path_params["environment"]
        path = f"/api/v2/projects/{project}/environments/{environment}/experiments/{flag['key']}"
        found = {
            "_id": flag["key"],
            "key": flag["key"],
            "name": flag["key"],
            "_maintainerId": "local",
            "_creationDate": 0,
            "environmentKey": environment,
            "_links": {"self": link(path)},
        }
        return JSONResponse({**found, "currentIteration": self._iteration(project, flag, kinds[0])})

    def _iteration(self, project: str, flag: Document, kind: str) -> Document:
        counted = list(self._counted(project, flag))
        return {
            "hypothesis": "",
            "status": "running" if flag.get("on") else "stopped",
            "createdAt": 0,
            "startedAt": 0,
            "randomizationUnit": kind,
            "flags": {
                flag["key"]: {"_links": {"self": link(f"/api/v2/flags/{project}/{flag['key']}")}}
            },
            "metrics": counted,
            **({"primaryMetric": counted[0]} if counted else {}),
        }

    def _counted(self, project: str, flag: Document) -> Iterator[Document]:
        for key in flag.get("experimentMetrics", ()):
            metric = self.database.document("metric", project, key)
            if metric is not None:
                kept = {name: metric[name] for name in ("key", "name", "kind", "_versionId")}
                yield {
                    **kept,
                    "isGroup": False,
                    "_links": {"self": link(f"/api/v2/metrics/{project}/{key}")},
                }

    def _status(self, request: Request, body: Any) -> Response:
        project, flag = self._flag(request)
        environment = request.path_params["environment"]
        path = f"/api/v2/flag-statuses/{project}/{environment}/{flag['key']}"
        asked = [self.database.rows(sql, (flag["key"],))[0][0] for sql in (_EVALUATED, _SUMMED)]
        moments = [int(moment) for moment in asked if moment is not None]
        found: Document = {
            "name": _name(max(moments, default=None)),
            "_links": {"self": link(path)},
        }
        if moments:
            moment = datetime.datetime.fromtimestamp(max(moments) / 1000, datetime.timezone.utc)
            found["lastRequested"] = moment.isoformat(timespec="milliseconds").replace(
                "+00:00", "Z"
            )
        return JSONResponse(found)


def _name(moment: int | None) -> str:
    if moment is None:
        return "new"
    return "active" if now_ms() - moment < INACTIVE_MS else "inactive"
