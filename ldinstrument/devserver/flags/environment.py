"""The flags and segments of the one environment, and how SDKs get them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator

from ..database import Database, Document

REST = "restFields"
"""The field of a flag that keeps what only LaunchDarkly's REST API knows of it."""
OURS = ("experimentMetrics", "experimentControl", REST)
"""Fields of a flag that are ours, and are not sent to SDKs."""


class Flags:
    """The flags and segments of the one environment, with a version that grows with each change."""

    def __init__(self, database: Database):
        self.database = database
        self.payload_id = _payload_id(database)

    def all(self) -> dict[str, Document]:
        """Return flags by key, as the SDKs get them."""
        found = self._living("flag")
        return {flag["key"]: delivered(flag) for flag in found if not is_archived(flag)}

    def segments(self) -> dict[str, Document]:
        """Return segments by key."""
        return {segment["key"]: segment for segment in self._living("segment")}

    def _living(self, kind: str) -> Iterator[Document]:
        found = self.database.documents(kind)
        return (document for document in found if not document.get("deleted"))

    def version(self) -> int:
        """Return a number that grows with every change of any flag or segment."""
        kinds = ("flag", "segment")
        return sum(int(each["version"]) for kind in kinds for each in self.database.documents(kind))

    def set(self, document: Document, kind: str = "flag") -> Document:
        """Create or replace a flag or segment; its version exceeds the one that SDKs know.

        Returns:
            The document as SDKs get it.
        """
        with self.database.locked():
            known = self.database.document(kind, "", document["key"])
            least = int(known["version"]) + 1 if known else 1
            stored = {**document, "version": max(int(document.get("version", 1)), least)}
            self.database.put(kind, "", document["key"], stored)
            return delivered(stored) if kind == "flag" else stored

    def delete(self, key: str, kind: str = "flag") -> int | None:
        """Delete a flag or segment; a tombstone keeps the version growing.

        Returns:
            The version of the deletion; None when there is no such document.
        """
        with self.database.locked():
            known = self.database.document(kind, "", key)
            if known is None or known.get("deleted"):
                return None
            version = int(known["version"]) + 1
            tombstone = {"key": key, "version": version, "deleted": True}
            self.database.put(kind, "", key, tombstone)
            return version

    def same(self, document: Document, kind: str = "flag") -> bool:
        """Return whether this is there already, with this content, whatever its version."""
        known = self.database.document(kind, "", document["key"])
        return known is not None and {**known, "version": 0} == {**document, "version": 0}

    def add_missing(self, documents: Iterable[Document], kind: str = "flag") -> None:
        """Put what a start brings; what a database holds already keeps its version."""
        for document in documents:
            if not self.same(document, kind):
                self.set(document, kind)


def _payload_id(database: Database) -> str:
    """Return an id of this database: a client that knows another one's flags gets all anew."""
    known = database.document("settings", "", "payload")
    if known is None:
        known = {"id": uuid.uuid4().hex[:12]}
        database.put("settings", "", "payload", known)
    return str(known["id"])


def is_archived(flag: Document) -> bool:
    """Return whether a flag was retired over REST: no SDK gets it any more."""
    return bool(flag.get(REST, {}).get("archived"))


def availability(flag: Document) -> dict[str, bool]:
    """Return which client-side SDKs get a flag; browsers only where it says so."""
    given = flag.get("clientSideAvailability")
    if not isinstance(given, dict):
        given = {"usingEnvironmentId": flag.get("clientSide"), "usingMobileKey": True}
    return {name: bool(given.get(name)) for name in ("usingEnvironmentId", "usingMobileKey")}


def delivered(flag: Document) -> Document:
    """Return a flag as server SDKs get it; the older `clientSide` stands beside its successor."""
    sent = {name: value for name, value in flag.items() if name not in OURS}
    return {**sent, "clientSide": availability(flag)["usingEnvironmentId"]}
