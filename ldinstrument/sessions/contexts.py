"""LaunchDarkly contexts: who an event belongs to, and when two of them speak of the same.

LaunchDarkly joins an event to an exposure by (context kind, context key). The safe event carries
the very context that the flags were evaluated with, so contexts here only ever widen; they never
contradict.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..diagnostics import raise_if_interrupted, warn_once

if TYPE_CHECKING:
    from ldclient import Context


@functools.cache
def context_class() -> type[Context]:
    """Return the SDK's class; an import statement, each time, costs more than the rest."""
    from ldclient import Context

    return Context


def as_context(who: object) -> Context | None:
    """*who* as a valid `Context`: a `Context`, a key of kind `user`, or a dict in LaunchDarkly's
    JSON form.

    None stays None; anything else, and an invalid context, is said once and becomes None.
    """
    if who is None:
        return None
    kind = context_class()
    plain = kind.create(who) if type(who) is str else who
    if type(plain) is kind and plain.valid:
        return plain
    try:
        context = _built(kind, who)
    except Exception as error:  # a dict that is no context
        raise_if_interrupted(error)
        context, reason = None, type(error).__name__
    else:
        reason = "" if context is None else context.error or ""
    if context is not None and context.valid:
        return context
    warn_once(
        "invalid_context",
        type(who).__name__,
        f"{type(who).__name__} is no usable context{f' ({reason})' if reason else ''}: "
        "give an ldclient.Context or a non-empty string key (for a number: str(user_id)); events "
        "go to nobody",
    )
    return None


def _built(kind: type[Context], who: object) -> Context | None:
    # Frameworks hand out stand-ins (`LocalProxy`, `SimpleLazyObject`) that claim to be what they
    # stand for, and that answer only within the request: what they stand for now is what counts.
    if isinstance(who, kind):
        return who if issubclass(type(who), kind) else kind.from_dict(who.to_dict())
    if isinstance(who, str):
        return kind.create(str.__str__(who) if issubclass(type(who), str) else str(who))
    if isinstance(who, Mapping):
        return kind.from_dict(dict(who))
    return None


def keys_of(context: Context) -> dict[str, str]:
    """Return the keys of *context* by kind."""
    return {kind: part.key for kind, part in kinds(context).items()}


def units_of(context: Context) -> tuple[str, ...]:
    """Return the units that *context* names: the fully qualified key of each of its kinds."""
    parts = kinds(context).values() if context.multiple else (context,)
    return tuple([part.fully_qualified_key for part in parts])


def only_kinds(context: Context, wanted: Iterable[str]) -> Context:
    """Return *context* with the *wanted* kinds only, of which it has at least one."""
    known = kinds(context)
    kept = [known[kind] for kind in wanted if kind in known]
    return context if len(kept) == len(known) else _joined(kept, context)


def json_of_keys(keys: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the context of *keys* by kind in LaunchDarkly's JSON form; None without keys."""
    if not keys:
        return None
    if len(keys) == 1:
        ((kind, key),) = keys.items()
        return {"kind": kind, "key": key}
    return {"kind": "multi", **{kind: {"key": key} for kind, key in sorted(keys.items())}}


def context_of_keys(keys: Mapping[str, str]) -> Context | None:
    """Return the bare context of *keys* by kind; None when there are none."""
    told = json_of_keys(keys)
    if told is None:
        return None
    from ldclient import Context

    return Context.from_dict(told)


def is_function(given: object) -> bool:
    """Tell whether *given* is to be called: a context or a key is not, though a framework's
    stand-in for one can be.
    """
    if not callable(given):
        return False
    context = getattr(sys.modules.get("ldclient"), "Context", str)
    return not isinstance(given, (str, Mapping, context))


def kinds(context: Context) -> dict[str, Context]:
    """Return the individual contexts of *context*, by kind."""
    if not context.multiple:
        return {context.kind: context}
    parts = (
        context.get_individual_context(index) for index in range(context.individual_context_count)
    )
    return {part.kind: part for part in parts if part is not None}


def agree(one: Context, other: Context) -> bool:
    """Tell whether both have the same key for every kind they share (also when they share none)."""
    mine, theirs = kinds(one), kinds(other)
    return all(mine[kind].key == theirs[kind].key for kind in mine.keys() & theirs.keys())


def same(one: Context, other: Context) -> bool:
    """Tell whether they agree and share at least one kind: the same somebody."""
    return agree(one, other) and not kinds(one).keys().isdisjoint(kinds(other))


def united(own: Context, seen: Context) -> Context:
    """*own* and *seen* in one context. For a kind in both, *seen* stands, unless only *own* knows
    attributes.
    """
    mine, theirs = kinds(own), kinds(seen)
    for kind, part in theirs.items():
        if kind not in mine or mine[kind].key != part.key or not _bare(part):
            mine[kind] = part
    return _joined(list(mine.values()), own)


def _joined(parts: list[Context], fallback: Context) -> Context:
    from ldclient import Context

    whole = parts[0] if len(parts) == 1 else Context.create_multi(*parts)
    return whole if whole.valid else fallback


def _bare(context: Context) -> bool:
    """Tell whether *context*, of one kind, is a kind and a key and nothing else."""
    if context.name is not None or context.anonymous:
        return False
    return next(iter(context.custom_attributes), None) is None


def knows_more(context: Context) -> bool:
    """Tell whether *context* has more than kinds and keys."""
    return not all(map(_bare, kinds(context).values()))


def evaluated_context(given: Any) -> Context | None:
    """Return the context of an evaluation when it is valid (hooks also see what the SDK then
    refuses).
    """
    return given if getattr(given, "valid", False) is True else None
