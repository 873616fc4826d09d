"""What an experiment may be: the body of a POST, and what it makes of a flag.

An experiment is one flag's default rule, dealt by chance. What a POST describes is a draft on the
flag until an iteration is started: then the flag serves it.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

from ..database import Document
from ..flags.environment import REST
from ..flags.flags import TOTAL_WEIGHT
from ..responses import invalid, now_ms
from .flag_representation import variations_of
from .metric_rules import KEY

WORDS = ("key", "name", "description", "maintainerId")
FALLTHROUGH = "fallthrough"


def drafted(body: Any, flag: Document) -> Document:
    """Return a flag with the experiment that a body describes as a draft.

    Args:
        body: of the POST; the flag is the one that `flag_of` names.
        flag: as it is kept.

    Raises:
        RefusedRequest: 400 with the first thing that is wrong.
    """
    iteration = body["iteration"]
    unit = iteration.get("randomizationUnit") or "user"
    shares, control = _treatments(iteration, flag)
    rollout = {
        "kind": "experiment",
        "contextKind": unit,
        "seed": zlib.crc32(body["key"].encode()) % TOTAL_WEIGHT,
        "variations": shares,
    }
    draft = {
        FALLTHROUGH: {"rollout": rollout},
        "trackEventsFallthrough": True,
        "experimentControl": control,
        "experimentMetrics": _metrics(iteration),
    }
    words = {name: body[name] for name in WORDS if isinstance(body.get(name), str)}
    experiment = {**words, "hypothesis": iteration["hypothesis"], "creationDate": now_ms()}
    return {**flag, REST: {**flag.get(REST, {}), "experiment": {**experiment, "draft": draft}}}


def flag_of(body: Any) -> str:
    """Return the key of the flag that an experiment is about, its other fields checked.

    Raises:
        RefusedRequest: 400 with the first thing that is wrong.
    """
    if not isinstance(body, dict):
        raise invalid("Invalid request body")
    for name in ("key", "name"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise invalid(f"{name} is required")
    if not KEY.fullmatch(body["key"]):
        raise invalid("key must be of letters, digits, '.', '_' and '-'")
    iteration = body.get("iteration")
    if not isinstance(iteration, dict):
        raise invalid("iteration is required")
    if not isinstance(iteration.get("hypothesis"), str):
        raise invalid("iteration.hypothesis is required")
    unit = iteration.get("randomizationUnit")
    if unit is not None and (not isinstance(unit, str) or not unit):
        raise invalid("iteration.randomizationUnit must be a context kind")
    return _flag_key(iteration.get("flags"))


def _flag_key(flags: Any) -> str:
    if not isinstance(flags, dict) or len(flags) != 1:
        raise invalid("iteration.flags must name one flag")
    ((key, rule),) = flags.items()
    if not isinstance(rule, dict) or rule.get("ruleId") != FALLTHROUGH:
        raise invalid("iteration.flags: experiments are on the default rule (fallthrough) here")
    return str(key)


def _treatments(iteration: Document, flag: Document) -> tuple[list[Document], int]:
    """Return the shares of the variations, and which of them is the control."""
    given = iteration.get("treatments")
    if not isinstance(given, list) or len(given) < 2:
        raise invalid("iteration.treatments must be a list of two or more")
    ids = [variation["_id"] for variation in variations_of(flag)]
    shares, controls = [], []
    for treatment in given:
        index, weight = _share(treatment, flag["key"], ids)
        shares.append({"variation": index, "weight": weight})
        if treatment.get("baseline") is True:
            controls.append(index)
    if len(controls) != 1:
        raise invalid("iteration.treatments: one of them must be the baseline")
    if len({share["variation"] for share in shares}) < len(shares):
        raise invalid("iteration.treatments: a variation is in two of them")
    return _settled(shares), controls[0]


def _share(treatment: Any, flag: str, ids: list[str]) -> tuple[int, int]:
    parameters = treatment.get("parameters") if isinstance(treatment, dict) else None
    if not isinstance(parameters, list) or len(parameters) != 1:
        raise invalid("iteration.treatments: each needs one parameter")
    named = parameters[0] if isinstance(parameters[0], dict) else {}
    if named.get("flagKey") != flag or named.get("variationId") not in ids:
        raise invalid(
            "iteration.treatments: parameters must name a variation of the flag by its id"
        )
    return ids.index(named["variationId"]), _weight(treatment.get("allocationPercent"))


def _weight(percent: Any) -> int:
    try:
        share = float(percent) if isinstance(percent, str) else math.nan
    except ValueError:
        share = math.nan
    if not 0 <= share <= 100:
        raise invalid("iteration.treatments: allocationPercent must be a text from 0 to 100")
    return round(share / 100 * TOTAL_WEIGHT)


def _settled(shares: list[Document]) -> list[Document]:
    """Return shares that add up exactly; thirds may lack a little, which the last one gets."""
    missing = TOTAL_WEIGHT - sum(share["weight"] for share in shares)
    if abs(missing) > TOTAL_WEIGHT // 100:
        raise invalid("iteration.treatments: the shares must add up to 100 percent")
    shares[-1]["weight"] += missing
    return shares


def _metrics(iteration: Document) -> list[str]:
    """Return the keys of the metrics, the primary one first."""
    given = iteration.get("metrics")
    if not isinstance(given, list) or not all(_is_metric(each) for each in given):
        raise invalid("iteration.metrics must be a list of metrics, each with its key")
    keys = [each["key"] for each in given]
    primary = iteration.get("primarySingleMetricKey")
    if primary is not None and primary not in keys:
        raise invalid("iteration.primarySingleMetricKey must be one of iteration.metrics")
    return sorted(keys, key=lambda key: key != primary)


def _is_metric(given: Any) -> bool:
    return isinstance(given, dict) and isinstance(given.get("key"), str)


def begun(flag: Document) -> Document:
    """Return a flag that serves its draft; the same one when it has none."""
    experiment = flag.get(REST, {}).get("experiment", {})
    draft = experiment.get("draft")
    if draft is None:
        return flag
    kept = {name: value for name, value in experiment.items() if name != "draft"}
    return {**flag, **draft, REST: {**flag[REST], "experiment": kept}}


def experiment_key(flag: Document) -> str:
    """Return the key of the experiment on a flag: its own, or the flag's."""
    return str(flag.get(REST, {}).get("experiment", {}).get("key", flag["key"]))
