"""Projects and their environments."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection
from typing import Any

from ..database import Database, Document
from ..responses import RefusedRequest, invalid, not_found
from .context_kinds import ContextKinds
from .patches import operations, patched

LOCAL = "local"
PROJECT_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
OF_A_PROJECT = ("metric", "metric-group", "context-kind", "settings")
"""What goes with a project that is deleted."""
STARTED_WITH = ({"key": "test", "name": "Test"}, {"key": "production", "name": "Production"})
ENVIRONMENT_FIELDS = {
    "color": "417505",
    "defaultTtl": 0,
    "secureMode": False,
    "defaultTrackEvents": False,
    "requireComments": False,
    "confirmChanges": False,
    "tags": [],
    "critical": False,
}
PROJECT_FIELDS = {
    "tags": [],
    "includeInSnippetByDefault": True,
    "defaultClientSideAvailability": {"usingMobileKey": True, "usingEnvironmentId": True},
}


def link(path: str) -> Document:
    """Return a JSON link."""
    return {"href": path, "type": "application/json"}


def made_id(*parts: str) -> str:
    """Return an id as LaunchDarkly's look, the same for the same parts."""
    return uuid.uuid5(uuid.NAMESPACE_URL, "/".join(parts)).hex[:24]


class Projects:
    """Projects over a database.

    Args:
        database: where they are kept.
        keys: the projects that exist; None lets every well-formed key exist.
        context_kinds: the kinds that each project has from the start.
    """

    def __init__(
        self, database: Database, keys: Collection[str] | None, context_kinds: Collection[str]
    ):
        self.database = database
        self.keys = keys
        self.kinds = ContextKinds(database, context_kinds)

    def names(self) -> tuple[str, ...]:
        """Return the keys of the projects: those that were named, created, or hold a metric."""
        named = self.keys if self.keys is not None else ("default",)
        known = {project["key"]: project for project in self.database.documents("project")}
        found = dict.fromkeys([*named, *known, *self.database.projects("metric")])
        return tuple(key for key in found if not known.get(key, {}).get("deleted"))

    def document(self, project: str) -> Document:
        """Return a project's name, tags and environments.

        Raises:
            RefusedRequest: 404, there is no such project.
        """
        found = self.database.document("project", "", self.require(project))
        local = {"key": LOCAL, "name": LOCAL.capitalize(), **ENVIRONMENT_FIELDS}
        implied = {"key": project, "name": project, "environments": [local]}
        return {**PROJECT_FIELDS, **(found or implied)}

    def create(self, body: Any) -> Document:
        """Create a project.

        Raises:
            RefusedRequest: 400 for a body that cannot be one, 409 when the key is taken.
        """
        if not isinstance(body, dict):
            raise invalid("Invalid request body")
        given = {"environments": list(STARTED_WITH), **_given(body)}
        if not isinstance(given["environments"], list):
            raise invalid("environments must be a list of objects")
        environments = [_environment(each) for each in given["environments"]]
        project = _checked_project({**given, "environments": environments})
        with self.database.locked():
            known = self.database.document("project", "", project["key"])
            if known is not None and not known.get("deleted"):
                raise _taken("A project", project["key"])
            self.database.put("project", "", project["key"], project)
        return project

    def patch(self, project: str, body: Any) -> Document:
        """Apply a JSON patch to a project; its environments have patches of their own.

        Raises:
            RefusedRequest: 400, 404, and 409 when a `test` fails.
        """
        changes = operations(body)
        with self.database.locked():
            known = self.document(project)
            result = patched(known, changes, ("key", "environments"))
            return self._keep(_checked_project(result))

    def delete(self, project: str) -> None:
        """Delete a project with its metrics and settings.

        Raises:
            RefusedRequest: 404.
        """
        with self.database.locked():
            self.require(project)
            for collection in OF_A_PROJECT:
                for document in self.database.documents(collection, project):
                    key = document.get("key", "experimentation")
                    self.database.remove(collection, project, key)
            self.database.put("project", "", project, {"key": project, "deleted": True})

    def environment(self, project: str, key: str) -> Document:
        """Return one environment.

        Raises:
            RefusedRequest: 404.
        """
        for environment in self.document(project)["environments"]:
            if environment["key"] == key:
                return dict(environment)
        raise not_found()

    def create_environment(self, project: str, body: Any) -> Document:
        """Create an environment.

        Raises:
            RefusedRequest: 400 for a body that cannot be one, 404, 409 when the key is taken.
        """
        made = _environment(_given(body) if isinstance(body, dict) else body)
        with self.database.locked():
            known = self.document(project)
            if any(each["key"] == made["key"] for each in known["environments"]):
                raise _taken("An environment", made["key"])
            self._keep({**known, "environments": [*known["environments"], made]})
        return made

    def patch_environment(self, project: str, key: str, body: Any) -> Document:
        """Apply a JSON patch to an environment.

        Raises:
            RefusedRequest: 400, 404, and 409 when a `test` fails.
        """
        changes = operations(body)
        with self.database.locked():
            made = _environment(patched(self.environment(project, key), changes, ("key",)))
            known = self.document(project)
            changed = [made if each["key"] == key else each for each in known["environments"]]
            self._keep({**known, "environments": changed})
        return made

    def delete_environment(self, project: str, key: str) -> None:
        """Delete an environment.

        Raises:
            RefusedRequest: 404; 400 for the only one, which a project needs.
        """
        with self.database.locked():
            self.environment(project, key)
            known = self.document(project)
            left = [each for each in known["environments"] if each["key"] != key]
            if not left:
                raise invalid("a project needs an environment")
            self._keep({**known, "environments": left})

    def _keep(self, project: Document) -> Document:
        self.database.put("project", "", project["key"], project)
        return project

    def require(self, project: str) -> str:
        """Return the project key.

        Raises:
            RefusedRequest: 404, there is no such project.
        """
        known = self.database.document("project", "", project)
        named = project in self.keys if self.keys is not None else PROJECT_KEY.fullmatch(project)
        if known.get("deleted") if known is not None else not named:
            raise not_found()
        return project


def _given(body: Document) -> Document:
    """Return the fields of a body that are not null, which counts as absent."""
    return {name: value for name, value in body.items() if value is not None}


def _taken(what: str, key: str) -> RefusedRequest:
    return RefusedRequest(409, "conflict", f"{what} with the key {key} already exists")


def _checked_project(given: Document) -> Document:
    _check_key_and_name(given)
    wanted = {"key": "", "name": "", "environments": [], **PROJECT_FIELDS}
    return _of_types(given, wanted)


def _environment(given: Any) -> Document:
    _check_key_and_name(given)
    return _of_types(given, {"key": "", "name": "", **ENVIRONMENT_FIELDS})


def _of_types(given: Document, wanted: Document) -> Document:
    """Return the wanted fields, each of the type of its default.

    Raises:
        RefusedRequest: 400.
    """
    found: Document = {name: given.get(name, default) for name, default in wanted.items()}
    for name, default in wanted.items():
        if type(found[name]) is not type(default):
            raise invalid(f"{name} must be {TYPES[type(default)]}")
    if not all(isinstance(tag, str) for tag in found["tags"]):
        raise invalid("tags must be a list of strings")
    return found


TYPES = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    list: "a list",
    dict: "an object",
}


def _check_key_and_name(place: Any) -> None:
    if not isinstance(place, dict):
        raise invalid("environments must be a list of objects")
    if not isinstance(place.get("key"), str) or not PROJECT_KEY.fullmatch(place["key"]):
        raise invalid("key is required, of letters, digits, '.', '_' and '-'")
    if not isinstance(place.get("name"), str) or not place["name"]:
        raise invalid("name is required")
