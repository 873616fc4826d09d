"""Flags as the SDKs receive them, and builders for the two kinds that tests and demos need."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .database import Database, Document

TOTAL_WEIGHT = 100_000


def experiment_flag(
    key: str,
    variations: Sequence[Any] = (False, True),
    context_kind: str = "user",
    weights: Sequence[float] | None = None,
    *,
    seed: int | None = None,
    metrics: Sequence[str] = (),
) -> Document:
    """Return a flag whose fallthrough is an experiment, so that its evaluations are exposures
    (`reason.inExperiment`).

    Args:
        key: the flag key.
        variations: the values, at least two.
        context_kind: the randomization unit.
        weights: shares of the traffic in any scale, one per variation; equal without.
        seed: of the bucketing; derived from the key without, so that a run can be repeated.
        metrics: keys of metrics that this experiment measures; they count as used by it
            (`experimentCount`).

    Returns:
        The flag in LaunchDarkly's SDK format, for `set_flag` and `LocalLaunchDarkly(flags=[...])`.
    """
    shares = list(weights) if weights is not None else [1.0] * len(variations)
    if len(variations) < 2 or len(shares) != len(variations):
        raise ValueError("an experiment needs two or more variations and one weight for each")
    rollout = {
        "kind": "experiment",
        "contextKind": context_kind,
        "seed": zlib.crc32(key.encode()) % 100_000 if seed is None else seed,
        "variations": [
            {"variation": i, "weight": weight} for i, weight in enumerate(_scaled(shares))
        ],
    }
    flag = simple_flag(key, variations)
    flag |= {"fallthrough": {"rollout": rollout}, "trackEventsFallthrough": True}
    return flag | ({"experimentMetrics": list(metrics)} if metrics else {})


def simple_flag(
    key: str, variations: Sequence[Any] = (False, True), serve: int = 0, *, on: bool = True
) -> Document:
    """Return a flag that serves one variation to everybody; no experiment."""
    return {
        "key": key,
        "version": 1,
        "on": on,
        "variations": list(variations),
        "fallthrough": {"variation": serve},
        "offVariation": 0,
        "rules": [],
        "targets": [],
        "contextTargets": [],
        "prerequisites": [],
        "salt": key,
        "trackEvents": False,
        "trackEventsFallthrough": False,
        "clientSideAvailability": {"usingMobileKey": True, "usingEnvironmentId": True},
    }


def _scaled(shares: Sequence[float]) -> list[int]:
    """Weights out of 100,000 that add up exactly: rounding errors go to the last one."""
    if min(shares) < 0 or sum(shares) <= 0:
        raise ValueError("weights must not be negative, and not all zero")
    scaled = [int(TOTAL_WEIGHT * share / sum(shares)) for share in shares]
    scaled[-1] += TOTAL_WEIGHT - sum(scaled)
    return scaled


def read_flags(path: str | Path) -> list[Document]:
    """Return flags from a JSON file: a list of flags, or `{"flags": {key: flag}}` as LaunchDarkly's
    own file data has it.

    Raises:
        ValueError: the file is not that; the message names it.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    found = content.get("flags") if isinstance(content, dict) else content
    flags = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(flags, list) or not all(
        isinstance(flag, dict) and flag.get("key") for flag in flags
    ):
        raise ValueError(
            f'{path}: expected a list of flags or {{"flags": {{key: flag}}}}, each flag with a "key"'
        )
    return [
        simple_flag(flag["key"], flag.get("variations", (False, True))) | flag for flag in flags
    ]


def randomization_kinds(flag: Document) -> list[str]:
    """Return the context kinds that this flag's experiments randomise by."""
    places = [flag.get("fallthrough"), *(flag.get("rules") or [])]
    rollouts = [place.get("rollout") for place in places if isinstance(place, dict)]
    found = [
        r.get("contextKind") or "user"
        for r in rollouts
        if isinstance(r, dict) and r.get("kind") == "experiment"
    ]
    return list(dict.fromkeys(found))


class Flags:
    """The flags of the one environment, with a version that grows with every change."""

    def __init__(self, database: Database):
        self.database = database

    def all(self) -> dict[str, Document]:
        """Return flags by key, as the SDKs get them."""
        return {
            flag["key"]: _delivered(flag)
            for flag in self.database.documents("flag")
            if not flag.get("deleted")
        }

    def version(self) -> int:
        """Return a number that grows with every change of any flag."""
        return sum(int(flag["version"]) for flag in self.database.documents("flag"))

    def set(self, flag: Document) -> Document:
        """Create or replace a flag; its version becomes higher than the one the SDKs know."""
        with self.database.locked():
            known = self.database.document("flag", "", flag["key"])
            version = max(int(flag.get("version", 1)), int(known["version"]) + 1 if known else 1)
            stored = {**flag, "version": version}
            self.database.put("flag", "", flag["key"], stored)
            return _delivered(stored)

    def delete(self, key: str) -> int | None:
        """Delete a flag; a tombstone keeps the version growing. The version, or None when there is
        no such flag.
        """
        with self.database.locked():
            known = self.database.document("flag", "", key)
            if known is None or known.get("deleted"):
                return None
            version = int(known["version"]) + 1
            self.database.put("flag", "", key, {"key": key, "version": version, "deleted": True})
            return version

    def same(self, flag: Document) -> bool:
        """Whether the flag is there already, with this content, whatever its version."""
        known = self.database.document("flag", "", flag["key"])
        return known is not None and {**known, "version": 0} == {**flag, "version": 0}

    def add_missing(self, flags: Iterable[Document]) -> None:
        """Put the flags of a start: those that a database holds already with the same content keep
        their version.
        """
        for flag in flags:
            if not self.same(flag):
                self.set(flag)


def _delivered(flag: Document) -> Document:
    return {name: value for name, value in flag.items() if name != "experimentMetrics"}
