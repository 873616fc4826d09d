"""Metric groups over REST: metrics that are looked at together, in the order of a funnel or not."""

from __future__ import annotations

import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..database import Document
from ..responses import RefusedRequest, invalid, not_found, now_ms
from .listing import page_links, whole_number
from .metric_rules import KEY
from .metrics_api import Metrics
from .patches import operations, patched
from .projects import link
from .rest_call import Endpoint, Handler, RestCalls

KINDS = ("funnel", "standard")
LEAST_METRICS = 2
COLLECTION = "metric-group"
NAMED = ("key", "name", "kind", "maintainerId")
OF_THE_METRIC = ("kind", "isNumeric", "unitAggregationType", "analysisType", "eventKey")


class MetricGroupRoutes:
    """The REST routes of metric groups."""

    def __init__(self, calls: RestCalls, metrics: Metrics):
        self.calls = calls
        self.metrics = metrics
        self.database = metrics.database

    def routes(self) -> list[Route]:
        """Return the routes of the collection and of a single group."""
        collection = "/api/v2/projects/{project}/metric-groups"
        single, answer = f"{collection}/{{key}}", self._answer
        return [
            Route(collection, answer(self._list), methods=["GET"]),
            Route(collection, answer(self._create), methods=["POST"]),
            Route(single, answer(self._get), methods=["GET"]),
            Route(single, answer(self._patch), methods=["PATCH"]),
            Route(single, answer(self._delete), methods=["DELETE"]),
        ]

    def _answer(self, handler: Handler) -> Endpoint:
        """Return an endpoint that asks for the header of beta resources, as LaunchDarkly does."""

        def checked(request: Request, body: Any) -> Response:
            if request.headers.get("ld-api-version") != "beta":
                message = "This resource is in beta: send the header LD-API-Version: beta"
                raise RefusedRequest(403, "forbidden", message)
            return handler(request, body)

        return self.calls.answer(checked)

    def _project(self, request: Request) -> str:
        return self.metrics.projects.require(request.path_params["project"])

    def _list(self, request: Request, body: Any) -> Response:
        project = self._project(request)
        found = self.database.documents(COLLECTION, project)
        limit = whole_number(request.query_params, "limit", 20, 1, 50)
        offset = whole_number(request.query_params, "offset", 0, 0, 10**9)
        links = page_links(_path(project), dict(request.query_params), limit, offset, len(found))
        items = [self._rep(project, group) for group in found[offset : offset + limit]]
        return JSONResponse({"items": items, "_links": links, "totalCount": len(found)})

    def _create(self, request: Request, body: Any) -> Response:
        project, at = self._project(request), now_ms()
        identity = {"_id": uuid.uuid4().hex[:24], "_version": 1}
        dates = {"_creationDate": at, "_lastModified": at}
        made = {**self._checked(project, body), **identity, **dates}
        if not self.database.add(COLLECTION, project, made["key"], made):
            message = f"A metric group with the key {made['key']} already exists"
            raise RefusedRequest(409, "conflict", message)
        return JSONResponse(self._rep(project, made), status_code=201)

    def _get(self, request: Request, body: Any) -> Response:
        project = self._project(request)
        return JSONResponse(self._rep(project, self._group(project, request)))

    def _group(self, project: str, request: Request) -> Document:
        found = self.database.document(COLLECTION, project, request.path_params["key"])
        if found is None:
            raise not_found()
        return found

    def _patch(self, request: Request, body: Any) -> Response:
        project, changes = self._project(request), operations(body)
        with self.database.locked():
            known = self._group(project, request)
            identity = {name: value for name, value in known.items() if name.startswith("_")}
            made = {**self._checked(project, patched(known, changes)), **identity}
            if made != known:
                made |= {"_version": known["_version"] + 1, "_lastModified": now_ms()}
                self.database.put(COLLECTION, project, made["key"], made)
        return JSONResponse(self._rep(project, made))

    def _delete(self, request: Request, body: Any) -> Response:
        key = request.path_params["key"]
        if not self.database.remove(COLLECTION, self._project(request), key):
            raise not_found()
        return Response(status_code=204)

    def _checked(self, project: str, body: Any) -> Document:
        """Return the group that a body defines.

        Raises:
            RefusedRequest: 400 with the first thing that is wrong.
        """
        if not isinstance(body, dict):
            raise invalid("Invalid request body")
        for name in NAMED:
            if not isinstance(body.get(name), str) or not body[name]:
                raise invalid(f"{name} is required")
        if not KEY.fullmatch(body["key"]):
            raise invalid("key must be of letters, digits, '.', '_' and '-'")
        if body["kind"] not in KINDS:
            raise invalid(f"kind must be one of {', '.join(KINDS)}")
        kept = {name: body[name] for name in NAMED}
        return {**kept, **_words(body), "metrics": self._members(project, body)}

    def _members(self, project: str, body: Document) -> list[Document]:
        given = body.get("metrics")
        if not isinstance(given, list) or len(given) < LEAST_METRICS:
            raise invalid("metrics must be a list of at least two metrics")
        return [self._member(project, each, body["kind"] == "funnel") for each in given]

    def _member(self, project: str, given: Any, funnel: bool) -> Document:
        key = given.get("key") if isinstance(given, dict) else None
        if not isinstance(key, str) or self.database.document("metric", project, key) is None:
            raise invalid(f"metrics: there is no metric {key!r}")
        name = given.get("nameInGroup") or ""
        if not isinstance(name, str) or (funnel and not name):
            raise invalid("metrics: nameInGroup is required in a funnel")
        return {"key": key, "nameInGroup": name}

    def _rep(self, project: str, group: Document) -> Document:
        """Return the group as the API answers it (`MetricGroupRep`)."""
        members = [self._member_rep(project, each) for each in group["metrics"]]
        kept = {name: value for name, value in group.items() if name != "maintainerId"}
        links = {"parent": link(_path(project)), "self": link(f"{_path(project)}/{group['key']}")}
        maintainer = {"key": group["maintainerId"], "kind": "member"}
        found = {"_links": links, "maintainer": maintainer, "experimentCount": 0}
        return {**kept, **found, "metrics": [member for member in members if member]}

    def _member_rep(self, project: str, member: Document) -> Document:
        """Return a metric of a group; nothing when it was deleted meanwhile."""
        metric = self.database.document("metric", project, member["key"])
        if metric is None:
            return {}
        kept = {name: metric[name] for name in OF_THE_METRIC if name in metric}
        units = {name: metric[name] for name in ("analysisUnits", "randomizationUnits")}
        links = {"self": link(f"/api/v2/metrics/{project}/{metric['key']}")}
        named = {"name": metric["name"], "_versionId": metric["_versionId"], "_links": links}
        return {**member, **named, **kept, **units}


def _words(body: Document) -> Document:
    """Return tags and description.

    Raises:
        RefusedRequest: 400, one of another type.
    """
    tags, description = body.get("tags") or [], body.get("description") or ""
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise invalid("tags must be a list of strings")
    if not isinstance(description, str):
        raise invalid("description must be a string")
    return {"description": description, "tags": tags}


def _path(project: str) -> str:
    return f"/api/v2/projects/{project}/metric-groups"
