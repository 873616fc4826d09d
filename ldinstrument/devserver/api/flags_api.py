"""Flags and their statuses over REST, to be read: what an SDK's flag is in LaunchDarkly's API."""

from __future__ import annotations

import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..database import Document
from ..events.traffic import Traffic
from ..flags.environment import Flags, availability
from ..responses import not_found, now_ms
from .listing import page_links, whole_number
from .projects import Projects, link
from .rest_call import RestCalls

INACTIVE_MS = 7 * 86_400_000


class FlagReadingRoutes:
    """The REST routes about flags."""

    def __init__(self, calls: RestCalls, projects: Projects, flags: Flags, traffic: Traffic):
        self.calls = calls
        self.projects = projects
        self.flags = flags
        self.traffic = traffic

    def routes(self) -> list[Route]:
        """Return the routes of the list, of one flag, and of its status."""
        status = "/api/v2/flag-statuses/{project}/{environment}/{key}"
        everywhere = "/api/v2/flag-status/{project}/{key}"
        return [
            Route("/api/v2/flags/{project}", self.calls.answer(self._list), methods=["GET"]),
            Route("/api/v2/flags/{project}/{key}", self.calls.answer(self._get), methods=["GET"]),
            Route(status, self.calls.answer(self._status), methods=["GET"]),
            Route(everywhere, self.calls.answer(self._everywhere), methods=["GET"]),
        ]

    def _list(self, request: Request, body: Any) -> Response:
        project = self.projects.require(request.path_params["project"])
        found = list(self.flags.all().values())
        limit = whole_number(request.query_params, "limit", 20, 1, 100)
        offset = whole_number(request.query_params, "offset", 0, 0, 10**9)
        path = f"/api/v2/flags/{project}"
        links = page_links(path, dict(request.query_params), limit, offset, len(found))
        items = [self._rep(project, flag) for flag in found[offset : offset + limit]]
        return JSONResponse({"items": items, "_links": links, "totalCount": len(found)})

    def _get(self, request: Request, body: Any) -> Response:
        project, flag = self._flag(request)
        return JSONResponse(self._rep(project, flag))

    def _flag(self, request: Request) -> tuple[str, Document]:
        project = self.projects.require(request.path_params["project"])
        flag = self.flags.all().get(request.path_params["key"])
        if flag is None:
            raise not_found()
        return project, flag

    def _rep(self, project: str, flag: Document) -> Document:
        values, key = flag.get("variations") or [], flag["key"]
        boolean = len(values) == 2 and all(isinstance(value, bool) for value in values)
        environments = self.projects.document(project)["environments"]
        return {
            "name": key,
            "kind": "boolean" if boolean else "multivariate",
            "key": key,
            "_version": flag["version"],
            "creationDate": 0,
            "clientSideAvailability": availability(flag),
            "variations": [
                {"_id": f"{key}-{index}", "value": value} for index, value in enumerate(values)
            ],
            "temporary": False,
            "tags": [],
            "_links": {"self": link(f"/api/v2/flags/{project}/{key}")},
            "experiments": {"baselineIdx": 0, "items": []},
            "customProperties": {},
            "archived": False,
            "environments": {each["key"]: _configuration(flag, each) for each in environments},
        }

    def _status(self, request: Request, body: Any) -> Response:
        project, flag = self._flag(request)
        environment, key = request.path_params["environment"], flag["key"]
        path = f"/api/v2/flag-statuses/{project}/{environment}/{key}"
        return JSONResponse({**self._status_of(key), "_links": {"self": link(path)}})

    def _everywhere(self, request: Request, body: Any) -> Response:
        """Return the status in each environment of the project; here all have the same."""
        project, flag = self._flag(request)
        key, environments = flag["key"], self.projects.document(project)["environments"]
        found = {each["key"]: self._status_of(key) for each in environments}
        links = {"self": link(f"/api/v2/flag-status/{project}/{key}")}
        return JSONResponse({"key": key, "environments": found, "_links": links})

    def _status_of(self, key: str) -> Document:
        last = self.traffic.arrivals.last_evaluated(key)
        found: Document = {"name": _name(last)}
        if last is not None:
            moment = datetime.datetime.fromtimestamp(last / 1000, datetime.timezone.utc)
            text = moment.isoformat(timespec="milliseconds")
            found["lastRequested"] = text.replace("+00:00", "Z")
        return found


def _name(last: int | None) -> str:
    if last is None:
        return "new"
    return "active" if now_ms() - last < INACTIVE_MS else "inactive"


def _configuration(flag: Document, environment: Document) -> Document:
    """Return a flag's state in one environment; here all have the same."""
    names = ("targets", "contextTargets", "prerequisites", "fallthrough", "offVariation")
    return {
        "on": bool(flag.get("on")),
        "archived": False,
        "salt": flag.get("salt", ""),
        "sel": "",
        "lastModified": 0,
        "version": flag["version"],
        "_site": {"href": "/", "type": "text/html"},
        "_environmentName": environment["name"],
        "trackEvents": bool(flag.get("trackEvents")),
        "trackEventsFallthrough": bool(flag.get("trackEventsFallthrough")),
        "rules": [_rule(rule) for rule in flag.get("rules") or []],
        **{name: flag[name] for name in names if flag.get(name) is not None},
    }


def _rule(rule: Document) -> Document:
    clauses = [{"negate": False, **clause} for clause in rule.get("clauses") or []]
    kept = {name: value for name, value in rule.items() if name != "id"}
    return {**kept, "_id": rule.get("id", ""), "trackEvents": False, "clauses": clauses}
