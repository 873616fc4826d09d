"""What tests of sessions share: somebody, a metric, an exposure, and the ledger's two equations."""

from __future__ import annotations

import time

from ldclient import Context

from ldinstrument.metrics.metric import Metric
from ldinstrument.sessions import contexts, evaluations
from ldinstrument.sessions.registry import stats

USER = Context.create("u-1")


def value(key: str, **fields: object) -> Metric:
    return Metric(key, **{"unit": "items", "success_criteria": "HigherThanBaseline", **fields})  # type: ignore[arg-type]


def multi(**keys: str) -> Context:
    return Context.create_multi(*(Context.create(key, kind) for kind, key in keys.items()))


def expose(flag: str, context: Context = USER) -> None:
    """Expose *context* to *flag*, here and now."""
    evaluations.exposed(flag, 1, context, int(time.time() * 1000))


def keys(context: Context) -> dict[str, str]:
    """The keys of *context* by kind."""
    return contexts.keys_of(context)


def adds_up() -> bool:
    read = stats()
    values = read.values.recorded == read.values.emitted + read.values.open + sum(
        read.values.discarded.values()
    )
    events = (
        read.events.emitted
        == read.events.delivered
        + read.events.pending
        + read.events.unconfirmed
        + sum(read.events.dropped.values())
    )
    return values and events
