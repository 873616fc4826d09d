"""Flags and their statuses over REST: listed, read, made, patched and deleted."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..database import Database, Document
from ..events.event_log import EventLog
from ..flags.environment import REST
from ..responses import RefusedRequest, invalid, not_found, now_ms
from .flag_filters import filter_fields, filters
from .flag_instructions import instructed, needs_environment
from .flag_representation import flag_of, represented, settled
from .flag_rules import checked, new_flag
from .listing import page_links, whole_number
from .patches import operations, patched
from .projects import Projects, link
from .rest_call import RestCalls, is_semantic, semantic_patch_expected

INACTIVE_MS = 7 * 86_400_000
MERGE = "application/merge-patch+json"
FIXED = ("key", "kind")
PAGED_VERSION = "20240415"
"""From this version of the API on a list of flags has environments only where it asks for them."""


class FlagKeeper(Protocol):
    """The server whose flags are made and changed, so that its connected SDKs hear of it."""

    database: Database
    event_log: EventLog

    def set_flag(self, flag: Document) -> None:
        """Create or change a flag."""

    def delete_flag(self, key: str) -> None:
        """Delete a flag."""


class FlagRestRoutes:
    """The REST routes about flags; every project and environment has the same ones."""

    def __init__(self, calls: RestCalls, projects: Projects, keeper: FlagKeeper):
        self.calls = calls
        self.projects = projects
        self.keeper = keeper
        self.database = keeper.database

    def routes(self) -> list[Route]:
        """Return the routes of the list, of one flag, and of its status."""
        collection, answer = "/api/v2/flags/{project}", self.calls.answer
        single = f"{collection}/{{key}}"
        status = "/api/v2/flag-statuses/{project}/{environment}/{key}"
        everywhere = "/api/v2/flag-status/{project}/{key}"
        return [
            Route(collection, answer(self._list), methods=["GET"]),
            Route(collection, answer(self._create), methods=["POST"]),
            Route(single, answer(self._get), methods=["GET"]),
            Route(single, answer(self._patch), methods=["PATCH"]),
            Route(single, answer(self._delete), methods=["DELETE"]),
            Route(status, answer(self._status), methods=["GET"]),
            Route(everywhere, answer(self._everywhere), methods=["GET"]),
        ]

    # -- reading ---------------------------------------------------------------------------------

    def _list(self, request: Request, body: Any) -> Response:
        project, asked = self._project(request), request.query_params
        tests = filters(asked)
        found = [flag for flag in self._living() if all(test(flag) for test in tests)]
        limit = whole_number(asked, "limit", 20, 1, 100)
        offset = whole_number(asked, "offset", 0, 0, 10**9)
        links = page_links(f"/api/v2/flags/{project}", dict(asked), limit, offset, len(found))
        environments = self._listed_environments(request, project)
        items = [
            self._represented(project, flag, environments)
            for flag in found[offset : offset + limit]
        ]
        return JSONResponse({"items": items, "_links": links, "totalCount": len(found)})

    def _listed_environments(self, request: Request, project: str) -> list[Document]:
        wanted = filter_fields(request.query_params).get("filterEnv")
        if wanted:
            return self._environments(project, [wanted])
        named = request.query_params.getlist("env")
        if not named and request.headers.get("ld-api-version") == PAGED_VERSION:
            return []
        return self._environments(project, named)

    def _environments(self, project: str, named: Iterable[str]) -> list[Document]:
        """Return the environments of a project, or those that are named."""
        wanted, found = list(named), self.projects.document(project)["environments"]
        return [each for each in found if not wanted or each["key"] in wanted]

    def _represented(
        self, project: str, flag: Document, environments: Iterable[Document]
    ) -> Document:
        found = represented(project, flag, environments)
        return found if found["environments"] else {**found, "environments": None}

    def _get(self, request: Request, body: Any) -> Response:
        project, flag = self._project(request), self._flag(request)
        environments = self._environments(project, request.query_params.getlist("env"))
        return JSONResponse(self._represented(project, flag, environments))

    def _project(self, request: Request) -> str:
        return self.projects.require(request.path_params["project"])

    def _living(self) -> list[Document]:
        return [flag for flag in self.database.documents("flag") if not flag.get("deleted")]

    def _known(self, key: str) -> Document | None:
        found = self.database.document("flag", "", key)
        return None if found is None or found.get("deleted") else found

    def _flag(self, request: Request) -> Document:
        found = self._known(request.path_params["key"])
        if found is None:
            raise not_found()
        return found

    # -- changing --------------------------------------------------------------------------------

    def _create(self, request: Request, body: Any) -> Response:
        project = self._project(request)
        defaults = self.projects.document(project)["defaultClientSideAvailability"]
        made = settled(checked(new_flag(self._with_prerequisites(body), defaults)))
        with self.database.locked():
            if self._known(made["key"]) is not None:
                message = f"A flag with the key {made['key']} already exists"
                raise RefusedRequest(409, "conflict", message)
            self.keeper.set_flag(made)
        return JSONResponse(self._whole(project, made["key"]), status_code=201)

    def _with_prerequisites(self, body: Any) -> Any:
        """Return the body with its prerequisites as SDKs know them: by a variation's number."""
        given = body.get("initialPrerequisites") if isinstance(body, dict) else None
        if not given:
            return body
        empty = {"key": "", "version": 0, "variations": [], "fallthrough": {}}
        asked = [{"kind": "replacePrerequisites", "prerequisites": given}]
        found = instructed(empty, asked, self._known)["prerequisites"]
        return {**body, "initialPrerequisites": found}

    def _whole(self, project: str, key: str) -> Document:
        return represented(project, self._known(key) or {}, self._environments(project, ()))

    def _patch(self, request: Request, body: Any) -> Response:
        """Apply a JSON patch, a merge patch or a semantic patch; `dryRun` keeps it as it is."""
        project = self._project(request)
        with self.database.locked():
            flag = self._flag(request)
            made = checked(self._patched(request, project, flag, body))
            if request.query_params.get("dryRun") == "true":
                environments = self._environments(project, ())
                return JSONResponse(represented(project, made, environments))
            if _content(made) != _content(flag):
                self._refuse_archiving(made)
                self.keeper.set_flag(made)
        return JSONResponse(self._whole(project, flag["key"]))

    def _patched(self, request: Request, project: str, flag: Document, body: Any) -> Document:
        kind = request.headers.get("content-type", "")
        if is_semantic(request):
            return self._instructed(project, flag, body)
        if isinstance(body, dict) and "instructions" in body:
            raise semantic_patch_expected()
        before = represented(project, flag, self._environments(project, ()))
        merging = body.get("merge") if isinstance(body, dict) else None
        if kind.startswith(MERGE) or isinstance(merging, dict):
            after = _merged(before, body if merging is None else merging)
            if any(after.get(name) != before[name] for name in FIXED):
                raise invalid(f"{' and '.join(FIXED)} cannot be changed")
        else:
            after = patched(before, operations(body), FIXED)
        return flag_of(flag, before, after)

    def _instructed(self, project: str, flag: Document, body: Any) -> Document:
        given = body if isinstance(body, dict) else {}
        instructions, environment = given.get("instructions"), given.get("environmentKey")
        if needs_environment(instructions) and (
            not isinstance(environment, str) or not self._environments(project, [environment])
        ):
            raise invalid("environmentKey must name an environment of the project")
        return instructed(flag, instructions, self._known)

    def _refuse_archiving(self, made: Document) -> None:
        if not made[REST].get("archived"):
            return
        for other in self._living():
            if any(each["key"] == made["key"] for each in other.get("prerequisites") or ()):
                raise invalid(f"{made['key']} is a prerequisite of {other['key']}")

    def _delete(self, request: Request, body: Any) -> Response:
        self._project(request)
        with self.database.locked():
            self.keeper.delete_flag(self._flag(request)["key"])
        return Response(status_code=204)

    # -- statuses --------------------------------------------------------------------------------

    def _status(self, request: Request, body: Any) -> Response:
        project, key = self._project(request), self._flag(request)["key"]
        path = f"/api/v2/flag-statuses/{project}/{request.path_params['environment']}/{key}"
        return JSONResponse({**self._status_of(key), "_links": {"self": link(path)}})

    def _everywhere(self, request: Request, body: Any) -> Response:
        """Return the status in each environment of the project; here all have the same."""
        project, key = self._project(request), self._flag(request)["key"]
        environments = self.projects.document(project)["environments"]
        found = {each["key"]: self._status_of(key) for each in environments}
        links = {"self": link(f"/api/v2/flag-status/{project}/{key}")}
        return JSONResponse({"key": key, "environments": found, "_links": links})

    def _status_of(self, key: str) -> Document:
        last = self.keeper.event_log.reader.last_evaluated(key)
        found: Document = {"name": _status_name(last)}
        if last is not None:
            moment = datetime.datetime.fromtimestamp(last / 1000, datetime.timezone.utc)
            text = moment.isoformat(timespec="milliseconds")
            found["lastRequested"] = text.replace("+00:00", "Z")
        return found


def _status_name(last: int | None) -> str:
    if last is None:
        return "new"
    return "active" if now_ms() - last < INACTIVE_MS else "inactive"


def _content(flag: Document) -> Document:
    """Return a flag without the version and the date that every change gives it."""
    kept = {name: value for name, value in flag.get(REST, {}).items() if name != "lastModified"}
    return {**flag, "version": 0, REST: kept}


def _merged(document: Document, changes: Any) -> Document:
    """Return a document after a JSON merge patch (RFC 7396)."""
    if not isinstance(changes, dict):
        raise invalid("Invalid request body: expected a JSON merge patch")
    result = dict(document)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            known = result.get(name)
            result[name] = _merged(known if isinstance(known, dict) else {}, value)
        else:
            result[name] = value
    return result
