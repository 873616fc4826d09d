"""Context kinds of projects, and which of these experiments may use."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from ..database import Database, Document
from ..responses import invalid, now_ms

KIND_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ContextKinds:
    """Context kinds over a database.

    Args:
        database: where the kinds and settings are kept.
        names: the kinds that each project has from the start; all are available for experiments, in
            this order.
    """

    def __init__(self, database: Database, names: Collection[str]):
        self.database = database
        self.names = tuple(names)

    def kinds(self, project: str) -> list[Document]:
        """Return the context kinds of a project: those of the start, and those created."""
        found = {kind: _kind(kind, kind.capitalize(), "", 1, 0) for kind in self.names}
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
        return [{"randomizationUnit": kind, "default": i == 0} for i, kind in enumerate(self.names)]

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
