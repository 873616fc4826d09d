"""Projects, environments, context kinds and experimentation settings over REST."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..database import Document
from .listing import page_links, whole_number
from .projects import PROJECT_FIELDS, Projects, link, made_id
from .rest_call import RestCalls

VERSIONS = (20160426, 20191212, 20210729, 20220603, 20240415)


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
            ("PATCH", base, self._patch),
            ("DELETE", base, self._delete),
            ("GET", f"{base}/environments", self._environments),
            ("POST", f"{base}/environments", self._create_environment),
            ("GET", f"{base}/environments/{{environment}}", self._environment),
            ("PATCH", f"{base}/environments/{{environment}}", self._patch_environment),
            ("DELETE", f"{base}/environments/{{environment}}", self._delete_environment),
            ("GET", f"{base}/context-kinds", self._kinds),
            ("PUT", f"{base}/context-kinds/{{key}}", self._put_kind),
            ("GET", f"{base}/experimentation-settings", self._settings),
            ("PUT", f"{base}/experimentation-settings", self._put_settings),
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
        return JSONResponse(self._with_environments(request, project["key"]), status_code=201)

    def _project(self, request: Request, body: Any) -> Response:
        return JSONResponse(self._rep(request, request.path_params["project"]))

    def _patch(self, request: Request, body: Any) -> Response:
        project = self.projects.patch(request.path_params["project"], body)
        return JSONResponse(self._with_environments(request, project["key"]))

    def _with_environments(self, request: Request, key: str) -> Document:
        """Return a project as it is answered when it was changed: its environments are a list."""
        return {**self._rep(request, key), "environments": self._environment_list(key)["items"]}

    def _delete(self, request: Request, body: Any) -> Response:
        self.projects.delete(request.path_params["project"])
        return Response(status_code=204)

    def _rep(self, request: Request, key: str) -> Document:
        project = self.projects.document(key)
        path = f"/api/v2/projects/{key}"
        found = {
            "_links": {"self": link(path), "environments": link(f"{path}/environments")},
            "_id": made_id("project", key),
            "key": key,
            "name": project["name"],
            **{name: project[name] for name in PROJECT_FIELDS},
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
        project, key = request.path_params["project"], request.path_params["environment"]
        return JSONResponse(_environment(project, self.projects.environment(project, key)))

    def _create_environment(self, request: Request, body: Any) -> Response:
        project = request.path_params["project"]
        made = self.projects.create_environment(project, body)
        return JSONResponse(_environment(project, made), status_code=201)

    def _patch_environment(self, request: Request, body: Any) -> Response:
        project, key = request.path_params["project"], request.path_params["environment"]
        made = self.projects.patch_environment(project, key, body)
        return JSONResponse(_environment(project, made))

    def _delete_environment(self, request: Request, body: Any) -> Response:
        project, key = request.path_params["project"], request.path_params["environment"]
        self.projects.delete_environment(project, key)
        return Response(status_code=204)

    def _kinds(self, request: Request, body: Any) -> Response:
        project = self.projects.require(request.path_params["project"])
        links = {"self": link(f"/api/v2/projects/{project}/context-kinds")}
        return JSONResponse({"items": self.projects.kinds.kinds(project), "_links": links})

    def _put_kind(self, request: Request, body: Any) -> Response:
        project, key = (
            self.projects.require(request.path_params["project"]),
            request.path_params["key"],
        )
        existed = any(kind["key"] == key for kind in self.projects.kinds.kinds(project))
        self.projects.kinds.put_kind(project, key, body)
        links = {"parent": link(f"/api/v2/projects/{project}/context-kinds")}
        return JSONResponse({"status": "updated" if existed else "created", "_links": links})

    def _settings(self, request: Request, body: Any) -> Response:
        project = self.projects.require(request.path_params["project"])
        path = f"/api/v2/projects/{project}/experimentation-settings"
        return JSONResponse(
            {
                "_projectKey": project,
                "randomizationUnits": self.projects.kinds.units(project),
                "_creationDate": 0,
                "_links": {"self": link(path)},
            }
        )

    def _put_settings(self, request: Request, body: Any) -> Response:
        self.projects.kinds.put_units(self.projects.require(request.path_params["project"]), body)
        return self._settings(request, body)


def _environment(project: str, environment: Document) -> Document:
    key = environment["key"]
    return {
        **environment,
        "_links": {"self": link(f"/api/v2/projects/{project}/environments/{key}")},
        "_id": made_id("environment", project, key),
        "apiKey": f"sdk-local-{key}",
        "mobileKey": f"mob-local-{key}",
    }
