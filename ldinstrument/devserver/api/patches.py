"""JSON Patch on a document, as lenient as LaunchDarkly: `replace` also adds, a body may carry a
comment.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import jsonpatch
from jsonpointer import JsonPointer, JsonPointerException

from ..database import Document
from ..responses import RefusedRequest, invalid

COMPUTED = (
    "experimentCount",
    "metricGroupCount",
    "activeExperimentCount",
    "activeGuardedRolloutCount",
    "lastModified",
    "lastSeen",
    "archivedAt",
    "isActive",
    "experiments",
    "metricGroups",
)
OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")
UNITS = ("analysisUnits", "randomizationUnits")


def operations(body: Any) -> list[Document]:
    """Return the operations of a PATCH body: a bare array, or `{"comment": ..., "patch": [...]}`.

    Raises:
        RefusedRequest: 400, it is neither, or an operation is not one.
    """
    found = body.get("patch") if isinstance(body, dict) else body
    if not isinstance(found, list):
        raise invalid("Invalid request body: expected a JSON patch")
    for operation in found:
        _check(operation)
    return found


def _check(operation: Any) -> None:
    if not isinstance(operation, dict) or operation.get("op") not in OPERATIONS:
        raise invalid(f"Invalid JSON patch: op must be one of {', '.join(OPERATIONS)}")
    if operation["op"] in ("add", "replace", "test") and "value" not in operation:
        raise invalid("Invalid JSON patch: value is required")
    paths = [
        operation.get("path"),
        *([operation.get("from")] if operation["op"] in ("move", "copy") else []),
    ]
    if not all(isinstance(path, str) and path.startswith("/") for path in paths):
        raise invalid("Invalid JSON patch: path must start with /")
    if operation["op"] == "test":
        return
    for path in paths:
        name = str(path).split("/")[1]
        if name.startswith("_") or name in COMPUTED:
            raise invalid(f"{path} cannot be changed")


def patched(
    document: Document, changes: list[Document], fixed: Sequence[str] = ("key", "kind")
) -> Document:
    """Return a document after the changes; null and empty strings go.

    Args:
        document: such as a metric.
        changes: the operations.
        fixed: the fields that cannot be changed.

    Raises:
        RefusedRequest: 409 when a `test` fails, 400 when an operation does not apply, or changes
            what is fixed.
    """
    result = copy.deepcopy(document)
    for change in changes:
        result = _apply(result, change)
        if not isinstance(result, dict):
            raise invalid("Invalid JSON patch: the result is not an object")
        if any(result.get(name) != document.get(name) for name in fixed):
            raise invalid(f"{' and '.join(fixed)} cannot be changed")
        _mirror_units(result, change)
    return {name: value for name, value in result.items() if value is not None and value != ""}


def _apply(metric: Document, change: Document) -> Document:
    try:
        if change["op"] == "replace" and _absent(metric, change["path"]):
            change = {**change, "op": "add"}
        result: Document = jsonpatch.apply_patch(metric, [change])
    except jsonpatch.JsonPatchTestFailed:
        raise RefusedRequest(
            409, "optimistic_locking_error", f"Conflict. The test of {change['path']} failed."
        ) from None
    except (
        jsonpatch.JsonPatchException,
        JsonPointerException,
        TypeError,
        KeyError,
        IndexError,
        ValueError,
    ):
        raise invalid(
            f"Invalid JSON patch: {change['op']} {change['path']} cannot be applied"
        ) from None
    return result


def _absent(metric: Document, path: str) -> bool:
    missing = object()
    return JsonPointer(path).resolve(metric, missing) is missing


def _mirror_units(metric: Document, change: Document) -> None:
    """One list under two names: the newer and the deprecated one always say the same."""
    name = change["path"].split("/")[1]
    if change["op"] != "test" and name in UNITS:
        other = UNITS[1 - UNITS.index(name)]
        metric.pop(other, None)
        if name in metric:
            metric[other] = copy.deepcopy(metric[name])
