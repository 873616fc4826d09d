"""Projects, their environments, context kinds, and which of these experiments may use."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Collection
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .database import Database, Document
from .listing import page_links, whole_number
from .responses import RefusedRequest, invalid, not_found, now_ms
from .rest_call import RestCalls

KIND_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")
LOCAL = "local"
VERSIONS = (20160426, 20191212, 20210729, 20220603, 20240415)
PROJECT_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def link(path: str) -> Document:
    """Return a JSON link."""
    return {"href": path, "type": "application/json"}


class Projects:
    """Projects over a database.

    Args:
        database: where the kinds and settings are kept.
        keys: the projects that exist; None lets every well-formed key exist.
        context_kinds: the kinds that each project has from the start; all are available for
            experiments, in this order.
    """

    def __init__(
        self, database: Database, keys: Collection[str] | None, context_kinds: Collection[str]
    ):
        self.database = database
        self.keys = keys
        self.context_kinds = tuple(context_kinds)

    def names(self) -> tuple[str, ...]:
        """Return the keys of the projects: those that were named, created, or hold a metric."""
        named = self.keys if self.keys is not None else ("default",)
        created = (document["key"] for document in self.database.documents("project"))
        return tuple(dict.fromkeys([*named, *created, *self.database.projects("metric")]))

    def document(self, project: str) -> Document:
        """Return a project's name, tags and environments.

        Raises:
            RefusedRequest: 404, there is no such project.
        """
        found = self.database.document("project", "", self.require(project))
        environments = [{"key": LOCAL, "name": LOCAL.capitalize()}]
        return found or {"key": project, "name": project, "tags": [], "environments": environments}

    def create(self, body: Any) -> Document:
        """Create a project.

        Raises:
            RefusedRequest: 400 for a body that cannot be one, 409 when the key is taken.
        """
        if not isinstance(body, dict):
            raise invalid("Invalid request body")
        environments = body.get("environments") or [
            {"key": "test", "name": "Test"},
            {"key": "production", "name": "Production"},
        ]
        tags = body.get("tags") or []
        for place in (body, *(environments if isinstance(environments, list) else [None])):
            _check_key_and_name(place)
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise invalid("tags must be a list of strings")
        kept = [{"key": each["key"], "name": each["name"]} for each in environments]
        project = {"key": body["key"], "name": body["name"], "tags": tags, "environments": kept}
        if not self.database.add("project", "", project["key"], project):
            raise RefusedRequest(
                409, "conflict", f"A project with the key {project['key']} already exists"
            )
        return project

    def require(self, project: str) -> str:
        """Return the project key.

        Raises:
            RefusedRequest: 404, there is no such project.
        """
        named = project in self.keys if self.keys is not None else PROJECT_KEY.fullmatch(project)
        if not named and self.database.document("project", "", project) is None:
            raise not_found()
        return project

    def kinds(self, project: str) -> list[Document]:
        """Return the context kinds of a project: those of the start, and those created."""
        found = {kind: _kind(kind, kind.capitalize(), "", 1, 0) for kind in self.context_kinds}
        found |= {kind["key"]: kind for kind in self.database.documents("context-kind", project)}
        return list(found.values())

    def put_kind(self, project: str, key: str, body: Any) -> None:
        """Create or rename a context kind.

        Raises:
            RefusedRequest: 400.
        """
        if not KIND_KEY.fullmatch(key) or key in ("kind", "multi"):
            raise invalid(
                "context kind keys are letters, digits, '.', '_' and '-', and neither kind nor "
                "multi"
            )
        if not isinstance(body, dict) or not isinstance(body.get("name"), str) or not body["name"]:
            raise invalid("name is required")
        known = next((kind for kind in self.kinds(project) if kind["key"] == key), None)
        version = int(known["version"]) + 1 if known else 1
        kind = _kind(key, body["name"], str(body.get("description") or ""), version, now_ms())
        kind["creationDate"] = known["creationDate"] if known else kind["creationDate"]
        kind["archived"] = kind["hideInTargeting"] = bool(
            body.get("archived", body.get("hideInTargeting", False))
        )
        self.database.put("context-kind", project, key, kind)

    def units(self, project: str) -> list[Document]:
        """Return the randomization units of a project, as `experimentation-settings` lists them."""
        settings = self.database.document("settings", project, "experimentation")
        if settings is not None:
            return list(settings["randomizationUnits"])
        return [
            {"randomizationUnit": kind, "default": i == 0}
            for i, kind in enumerate(self.context_kinds)
        ]

    def available(self, project: str) -> list[str]:
        """Return the context kinds that metrics may be analysed by, the default one first."""
        units = sorted(self.units(project), key=lambda unit: not unit.get("default"))
        return [unit["randomizationUnit"] for unit in units]

    def put_units(self, project: str, body: Any) -> None:
        """Replace the whole list of randomization units.

        Raises:
            RefusedRequest: 400, an unknown kind or more than one default.
        """
        units = body.get("randomizationUnits") if isinstance(body, dict) else None
        if (
            not isinstance(units, list)
            or not units
            or not all(isinstance(unit, dict) for unit in units)
        ):
            raise invalid("randomizationUnits is required")
        kinds = {kind["key"] for kind in self.kinds(project)}
        for unit in units:
            if unit.get("randomizationUnit") not in kinds:
                raise invalid(
                    f"randomizationUnit {unit.get('randomizationUnit')!r} is not a context kind "
                    f"of this project"
                )
        if sum(unit.get("default") is True for unit in units) != 1:
            raise invalid("exactly one randomization unit must be the default")
        kept = [
            {"randomizationUnit": u["randomizationUnit"], "default": u.get("default") is True}
            for u in units
        ]
        self.database.put("settings", project, "experimentation", {"randomizationUnits": kept})


def _check_key_and_name(place: Any) -> None:
    if not isinstance(place, dict):
        raise invalid("environments must be a list of objects")
    if not isinstance(place.get("key"), str) or not PROJECT_KEY.fullmatch(place["key"]):
        raise invalid("key is required, of letters, digits, '.', '_' and '-'")
    if not isinstance(place.get("name"), str) or not place["name"]:
        raise invalid("name is required")


def _id(*parts: str) -> str:
    """Return an id as LaunchDarkly's look, the same for the same parts."""
    return uuid.uuid5(uuid.NAMESPACE_URL, "/".join(parts)).hex[:24]


def _kind(key: str, name: str, description: str, version: int, at: int) -> Document:
    return {
        "key": key,
        "name": name,
        "description": description,
        "version": version,
        "creationDate": at,
        "lastModified": at,
        "createdFrom": "manual" if at else "default",
        "archived": False,
        "hideInTargeting": False,
    }


class ProjectRoutes:
    """The REST routes about projects."""

    def __init__(self, calls: RestCalls, projects: Projects):
        self.calls = calls
        self.projects = projects

    def routes(self) -> list[Route]:
        """Return the routes of root, versions, caller identity, projects and their settings."""
        base = "/api/v2/projects/{project}"
        routes: list[tuple[str, str, Callable[[Request, Any], Response]]] = [
            ("GET", "/api/v2", self._root),
            ("GET", "/api/v2/versions", self._versions),
            ("GET", "/api/v2/caller-identity", self._caller),
            ("GET", "/api/v2/projects", self._list),
            ("POST", "/api/v2/projects", self._create),
            ("GET", base, self._project),
            ("GET", f"{base}/environments", self._environments),
            ("GET", f"{base}/environments/{{environment}}", self._environment),
            ("GET", f"{base}/context-kinds", self._kinds),
            ("PUT", f"{base}/context-kinds/{{key}}", self._put_kind),
            ("GET", f"{base}/experimentation-settings", self._settings),
            ("PUT", f"{base}/experimentation-settings", self._put_settings),
            ("GET", f"{base}/metric-groups", self._metric_groups),
            ("GET", f"{base}/metric-groups/{{key}}", self._metric_group),
        ]
        return [
            Route(path, self.calls.answer(handler), methods=[method])
            for method, path, handler in routes
        ]

    def _root(self, request: Request, body: Any) -> Response:
        names = ("caller-identity", "projects", "versions")
        links = {name: link(f"/api/v2/{name}") for name in names}
        return JSONResponse({"links": {"self": link("/api/v2"), **links}})

    def _versions(self, request: Request, body: Any) -> Response:
        asked = request.headers.get("ld-api-version", "")
        current = int(asked) if asked.isdigit() and int(asked) in VERSIONS else VERSIONS[-1]
        found = {"latestVersion": VERSIONS[-1], "currentVersion": current, "beta": asked == "beta"}
        return JSONResponse({"validVersions": VERSIONS, **found})

    def _caller(self, request: Request, body: Any) -> Response:
        identity = {
            "accountId": "ldinstrument-local",
            "authKind": "token",
            "tokenKind": "auth",
            "tokenName": "local",
        }
        return JSONResponse({**identity, "serviceToken": True, "scopes": []})

    def _list(self, request: Request, body: Any) -> Response:
        keys = self.projects.names()
        limit = whole_number(request.query_params, "limit", 20, 1, 1000)
        offset = whole_number(request.query_params, "offset", 0, 0, 10**9)
        links = page_links("/api/v2/projects", dict(request.query_params), limit, offset, len(keys))
        items = [self._rep(request, key) for key in keys[offset : offset + limit]]
        return JSONResponse({"items": items, "_links": links, "totalCount": len(keys)})

    def _create(self, request: Request, body: Any) -> Response:
        project = self.projects.create(body)
        made = self._rep(request, project["key"])
        environments = self._environment_list(project["key"])["items"]
        return JSONResponse({**made, "environments": environments}, status_code=201)

    def _project(self, request: Request, body: Any) -> Response:
        return JSONResponse(self._rep(request, request.path_params["project"]))

    def _rep(self, request: Request, key: str) -> Document:
        project = self.projects.document(key)
        path = f"/api/v2/projects/{key}"
        found = {
            "_links": {"self": link(path), "environments": link(f"{path}/environments")},
            "_id": _id("project", key),
            "key": key,
            "name": project["name"],
            "tags": project["tags"],
            "includeInSnippetByDefault": True,
            "defaultClientSideAvailability": {"usingMobileKey": True, "usingEnvironmentId": True},
        }
        if "environments" in request.query_params.get("expand", "").split(","):
            found["environments"] = self._environment_list(key)
        return found

    def _environment_list(self, project: str) -> Document:
        items = [
            _environment(project, environment)
            for environment in self.projects.document(project)["environments"]
        ]
        links = {"self": link(f"/api/v2/projects/{project}/environments")}
        return {"items": items, "_links": links, "totalCount": len(items)}

    def _environments(self, request: Request, body: Any) -> Response:
        return JSONResponse(self._environment_list(request.path_params["project"]))

    def _environment(self, request: Request, body: Any) -> Response:
        project, wanted = request.path_params["project"], request.path_params["environment"]
        for environment in self.projects.document(project)["environments"]:
            if environment["key"] == wanted:
                return JSONResponse(_environment(project, environment))
        raise not_found()

    def _metric_groups(self, request: Request, body: Any) -> Response:
        """Metric groups do not exist here, and can be asked for."""
        project = self.projects.require(request.path_params["project"])
        links = {"self": link(f"/api/v2/projects/{project}/metric-groups")}
        return JSONResponse({"items": [], "_links": links, "totalCount": 0})

    def _metric_group(self, request: Request, body: Any) -> Response:
        self.projects.require(request.path_params["project"])
        raise not_found()

    def _kinds(self, request: Request, body: Any) -> Response:
        project = self.projects.require(request.path_params["project"])
        links = {"self": link(f"/api/v2/projects/{project}/context-kinds")}
        return JSONResponse({"items": self.projects.kinds(project), "_links": links})

    def _put_kind(self, request: Request, body: Any) -> Response:
        project, key = (
            self.projects.require(request.path_params["project"]),
            request.path_params["key"],
        )
        existed = any(kind["key"] == key for kind in self.projects.kinds(project))
        self.projects.put_kind(project, key, body)
        links = {"parent": link(f"/api/v2/projects/{project}/context-kinds")}
        return JSONResponse({"status": "updated" if existed else "created", "_links": links})

    def _settings(self, request: Request, body: Any) -> Response:
        project = self.projects.require(request.path_params["project"])
        path = f"/api/v2/projects/{project}/experimentation-settings"
        return JSONResponse(
            {
                "_projectKey": project,
                "randomizationUnits": self.projects.units(project),
                "_creationDate": 0,
                "_links": {"self": link(path)},
            }
        )

    def _put_settings(self, request: Request, body: Any) -> Response:
        self.projects.put_units(self.projects.require(request.path_params["project"]), body)
        return self._settings(request, body)


def _environment(project: str, environment: Document) -> Document:
    key = environment["key"]
    return {
        "_links": {"self": link(f"/api/v2/projects/{project}/environments/{key}")},
        "_id": _id("environment", project, key),
        "key": key,
        "name": environment["name"],
        "apiKey": f"sdk-local-{key}",
        "mobileKey": f"mob-local-{key}",
        "color": "417505",
        "defaultTtl": 0,
        "secureMode": False,
        "defaultTrackEvents": False,
        "requireComments": False,
        "confirmChanges": False,
        "tags": [],
        "critical": False,
    }
