"""Flags as the SDKs receive them: builders, JSON files, and experiments of the command line.

A file holds what LaunchDarkly's own file data source reads, `{"flags": {...}, "flagValues": {...},
"segments": {...}}`, which is also what `GET /sdk/latest-all` answers; or a list of flags.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import DefinitionError
from ..database import Document

TOTAL_WEIGHT = 100_000
EXPECTED = (
    'expected a list of flags or {"flags": {key: flag}, "flagValues": {key: value}, '
    '"segments": {key: segment}}'
)


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


class FlagList(list[Document]):
    """Flags, with the segments that their rules refer to as `segments`."""

    def __init__(self, flags: Iterable[Document] = (), segments: Iterable[Document] = ()):
        super().__init__(flags)
        self.segments = list(segments)


def read_flags(path: str | Path) -> FlagList:
    """Read flags and segments from a JSON file.

    Raises:
        DefinitionError: the file cannot be read, or is not what was expected; one line, with its
            name.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DefinitionError(f"{path}: not JSON: {error}") from error
    content = {"flags": content} if isinstance(content, list) else content
    if not isinstance(content, dict):
        raise DefinitionError(f"{path}: {EXPECTED}")
    flags = [
        simple_flag(flag["key"], flag.get("variations", (False, True))) | flag
        for flag in _keyed(path, "flags", content.get("flags"))
    ]
    values = _mapping(path, "flagValues", content.get("flagValues"))
    segments = [_segment(segment) for segment in _keyed(path, "segments", content.get("segments"))]
    _refuse_unknown(path, flags, segments)
    return FlagList([*flags, *(simple_flag(key, [values[key]]) for key in values)], segments)


def _keyed(path: str | Path, name: str, found: Any) -> list[Document]:
    """Return the documents of a list, or of a mapping by key."""
    if isinstance(found, dict):
        found = [
            {"key": key, **document} if isinstance(document, dict) else document
            for key, document in found.items()
        ]
    if found is None:
        return []
    if not isinstance(found, list) or not all(_has_key(document) for document in found):
        raise DefinitionError(f'{path}: {name}: {EXPECTED}, each with a "key"')
    return found


def _has_key(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("key"), str) and document["key"]


def _mapping(path: str | Path, name: str, found: Any) -> dict[str, Any]:
    if found is not None and not isinstance(found, dict):
        raise DefinitionError(f"{path}: {name}: {EXPECTED}")
    return found or {}


def _segment(segment: Document) -> Document:
    defaults = {"version": 1, "included": [], "excluded": [], "rules": [], "salt": segment["key"]}
    return {**defaults, **segment}


def _refuse_unknown(path: str | Path, flags: list[Document], segments: list[Document]) -> None:
    """Refuse a rule on a segment that is not there: it would silently match nobody."""
    known = {segment["key"] for segment in segments}
    for flag in flags:
        missing = sorted(set(_segments_of(flag)) - known)
        if missing:
            raise DefinitionError(
                f"{path}: flag {flag['key']!r} refers to segment {missing[0]!r}, which is not "
                'under "segments"'
            )


def _segments_of(flag: Document) -> Iterable[str]:
    for rule in flag.get("rules") or ():
        for clause in rule.get("clauses") or () if isinstance(rule, dict) else ():
            if isinstance(clause, dict) and clause.get("op") == "segmentMatch":
                yield from (value for value in clause.get("values") or () if isinstance(value, str))


def parse_experiment(text: str) -> Document:
    """Return the flag that `--experiment KEY=VARIATION,VARIATION[,...]` asks for.

    `true`, `false` and numbers are taken as such, everything else as a string.

    Raises:
        DefinitionError: no key, or fewer than two variations.
    """
    key, equals, rest = text.partition("=")
    values = [_value(part.strip()) for part in rest.split(",") if part.strip()]
    if not key.strip() or not equals or len(values) < 2:
        raise DefinitionError(f"--experiment {text}: write KEY=A,B such as new-prompt=short,long")
    return experiment_flag(key.strip(), values)


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (bool, int, float)) else text
