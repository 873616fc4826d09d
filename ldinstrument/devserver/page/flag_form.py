"""A flag in a form of the page: what its fields show, and the flag that they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..api.flag_rules import evaluable
from ..database import Document
from ..flags.flags import experiment_flag, randomization_kinds, simple_flag
from ..readout.readout_reader import weights_of
from ..responses import invalid

EDITED = ("on", "variations", "fallthrough", "trackEventsFallthrough", "experimentMetrics")
"""What the form changes; rules, targets and availability stay as they are."""
SERVED = ("fallthrough", "trackEventsFallthrough")
Form = Mapping[str, str]


def shown(flag: Document) -> Document:
    """Return what the fields show of a flag."""
    kinds, weights = randomization_kinds(flag), weights_of(flag)
    values = flag.get("variations") or []
    rollout = "rollout" in (flag.get("fallthrough") or {})
    return {
        "mode": "experiment" if kinds else "keep" if rollout else "serve",
        "kind": kinds[0] if kinds else "user",
        "variations": ", ".join(_as_word(value) for value in values),
        "weights": ", ".join(f"{weights.get(i, 0) / 1000:g}" for i in range(len(values))),
        "serve": (flag.get("fallthrough") or {}).get("variation", 0),
        "metrics": ", ".join(flag.get("experimentMetrics") or ()),
        "on": bool(flag.get("on")),
    }


def saved(key: str, form: Form, known: Document) -> Document:
    """Return the flag that a form says.

    Args:
        key: the flag's key.
        form: the fields.
        known: the flag as it is; empty when it is new.

    Raises:
        RefusedRequest: 400, too few variations, weights that are none, or a variation that a rule
            serves and that is gone.
    """
    made = _flag_of(key, form)
    if not known:
        return evaluable(made)
    changed = {name: made[name] for name in EDITED if name in made}
    if _serves_the_same(form, shown(known)):
        changed = {name: value for name, value in changed.items() if name not in SERVED}
    kept = {name: value for name, value in known.items() if name != "version"}
    return evaluable({**kept, **changed})


def _serves_the_same(form: Form, before: Document) -> bool:
    """Return whether the flag goes on serving as it does: with the seed, the rollout and what else
    the form does not show.
    """
    mode = form.get("mode", "")
    if mode == "keep":
        return True
    if mode != "experiment" or before["mode"] != "experiment":
        return False
    return all(
        _list(form.get(name, "")) == _list(before[name])
        for name in ("kind", "weights", "variations")
    )


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _flag_of(key: str, form: Form) -> Document:
    values, on = _values(form.get("variations", "")), "on" in form
    try:
        if form.get("mode") != "experiment":
            serve = min(int(form.get("serve") or 0), max(len(values) - 1, 0))
            return simple_flag(key, values, max(serve, 0), on=on)
        weights = [float(part) for part in _list(form.get("weights", "")) if part]
        metrics = [part for part in _list(form.get("metrics", "")) if part]
        kind = form.get("kind", "").strip() or "user"
        flag = experiment_flag(key, values, kind, weights or None, metrics=metrics)
    except ValueError as error:
        raise invalid(f"{key}: {error}") from None
    return {**flag, "on": on, "experimentMetrics": metrics}


def _values(text: str) -> list[Any]:
    """Return the values between commas: JSON, which may hold commas itself, or words."""
    found: list[Any] = []
    rest = text.strip()
    while rest:
        first, rest = _first(rest)
        found += first
    return found


def _first(text: str) -> tuple[list[Any], str]:
    """Return the first value, if there is one before the comma, and what stands after it."""
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        end = -1
    if end < 0 or text[end:].strip()[:1] not in ("", ","):
        word, _, rest = text.partition(",")
        return [word.strip()] if word.strip() else [], rest.strip()
    return [value], text[end:].strip()[1:].strip()


def _as_word(value: Any) -> str:
    """Return a value as `_values` reads it again."""
    return value if isinstance(value, str) and _values(value) == [value] else json.dumps(value)
