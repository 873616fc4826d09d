"""Projects, their context kinds and which of these experiments may use; and whose token it is."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .database import Database, Document
from .responses import invalid, not_found, now_ms
from .rest_call import RestCalls

KIND_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")
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

    def require(self, project: str) -> str:
        """Return the project key.

        Raises:
            RefusedRequest: 404, there is no such project.
        """
        known = project in self.keys if self.keys is not None else PROJECT_KEY.fullmatch(project)
        if not known:
            raise not_found()
        return project

    def kinds(self, project: str) -> list[Document]:
        """Return the context kinds of a project: those from the start and those that were created."""
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
        """Caller identity, project, context kinds and experimentation settings."""
        base = "/api/v2/projects/{project}"
        return [
            Route("/api/v2/caller-identity", self.calls.answer(self._caller), methods=["GET"]),
            Route(base, self.calls.answer(self._project), methods=["GET"]),
            Route(f"{base}/context-kinds", self.calls.answer(self._kinds), methods=["GET"]),
            Route(
                f"{base}/context-kinds/{{key}}", self.calls.answer(self._put_kind), methods=["PUT"]
            ),
            Route(
                f"{base}/experimentation-settings",
                self.calls.answer(self._settings),
                methods=["GET"],
            ),
            Route(
                f"{base}/experimentation-settings",
                self.calls.answer(self._put_settings),
                methods=["PUT"],
            ),
        ]

    def _caller(self, request: Request, body: Any) -> Response:
        identity = {
            "accountId": "ldinstrument-local",
            "authKind": "token",
            "tokenKind": "auth",
            "tokenName": "local",
        }
        return JSONResponse({**identity, "serviceToken": True, "scopes": []})

    def _project(self, request: Request, body: Any) -> Response:
        key = self.projects.require(request.path_params["project"])
        return JSONResponse(
            {
                "_links": {"self": link(f"/api/v2/projects/{key}")},
                "_id": uuid.uuid5(uuid.NAMESPACE_URL, f"project/{key}").hex[:24],
                "key": key,
                "name": key,
                "tags": [],
                "includeInSnippetByDefault": True,
                "defaultClientSideAvailability": {
                    "usingMobileKey": True,
                    "usingEnvironmentId": True,
                },
            }
        )

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
