"""The messages of LaunchDarkly's second data system (FDv2): transfers of objects with a basis.

A client names the state that it has (`basis`), such as `(p:ID:7)`: a payload id and a version. The
id is that of one database, so that a client which knew another one gets everything anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..database import Document

Message = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class FlagPayload:
    """What is transferred: its id and its version."""

    id: str
    version: int

    @property
    def state(self) -> str:
        """Return the basis of a client that has this."""
        return f"(p:{self.id}:{self.version})"

    def nothing(self) -> Iterator[Message]:
        """Tell a client that it is up to date."""
        yield self._intent("none", "up-to-date")

    def everything(self, objects: Iterable[Message]) -> Iterator[Message]:
        """Transfer all objects."""
        yield self._intent("xfer-full", "payload-missing")
        yield from objects
        yield self._transferred()

    def changes(self, objects: Iterable[Message]) -> Iterator[Message]:
        """Transfer what has changed."""
        yield self._intent("xfer-changes", "stale")
        yield from objects
        yield self._transferred()

    def _intent(self, code: str, reason: str) -> Message:
        intent = {"id": self.id, "target": self.version, "intentCode": code, "reason": reason}
        return "server-intent", {"payloads": [intent]}

    def _transferred(self) -> Message:
        return "payload-transferred", {"state": self.state, "version": self.version}


def put_object(kind: str, key: str, version: int, document: Document) -> Message:
    """Return the message that brings one object."""
    return "put-object", {"version": version, "kind": kind, "key": key, "object": document}


def delete_object(kind: str, key: str, version: int) -> Message:
    """Return the message that takes one object away."""
    return "delete-object", {"version": version, "kind": kind, "key": key}
