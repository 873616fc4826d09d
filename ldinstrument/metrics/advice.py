"""What a finding about a metric means, and what to do: one wording for the doctor and for the page.

A finding is a check of what a local LaunchDarkly received, or a warning of a program.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from .model_calls import AI_METRICS


class Advice(NamedTuple):
    """Why a finding matters, and what mends it or where to look next."""

    why: str
    command: str


_WATCH = (
    "Config(..., plugins=[ldinstrument.Plugin()], "
    "event_processor_class=ldinstrument.EventProcessor), or ldinstrument.attach(client)"
)
OF_CHECKS: Mapping[str, Advice] = {
    "event receipt": Advice("event keys are case-sensitive", "ldinstrument tail"),
    "analysis unit": Advice(
        "events whose context has none of the metric's analysis units count for nothing",
        "give the session a context of that kind: session(Context.create(key, kind))",
    ),
    "numeric value": Advice(
        "events without a finite number do not count", "record a finite number"
    ),
    "magnitude": Advice(
        "LaunchDarkly converts no units: the numbers would be wrong in silence",
        "record the metric's own unit, such as 1000 * seconds",
    ),
    "exposure": Advice(
        "only events after an exposure of the same context count",
        "evaluate the flag before recording, with the very context of the session: not with "
        "another key, nor with one made anew in each call",
    ),
    "client": Advice(
        "nobody sees the exposures that the client makes, so sums travel value by value",
        _WATCH,
    ),
    "dilution": Advice(
        "what a session did before its exposure cannot differ: effects show thinner than they are",
        "evaluate the flag when the session begins, or compare the metrics of the task",
    ),
    "identity": Advice(
        "what is measured under another key than the one that was exposed counts for nobody",
        "randomise by a kind that survives the login, such as a device, and keep it in the context",
    ),
    "exposed elsewhere": Advice(
        "a sum that is open at such an exposure counts whole, or not at all",
        "declare rollup='each' for it; docs/experiments.md has what is exact where",
    ),
}
"""By the name of a local LaunchDarkly's check of a metric."""
OF_UNREAD_EVENT = Advice(
    "LaunchDarkly keeps events without a metric out of every experiment",
    "catalog.add(ldinstrument.Metric(...)), then ldinstrument apply",
)
"""Of an event key that no metric reads."""
OF_WARNINGS: Mapping[str, Advice] = {
    "no_analysis_unit": Advice(
        "LaunchDarkly ignores events without the metric's analysis unit",
        "use a context of that kind",
    ),
    "bad_data": Advice("a field of the data was left out", "give JSON types"),
    "not_json": Advice("the event was dropped", "give JSON types"),
    "too_large": Advice("LaunchDarkly refused the event for its size", "send less data with it"),
    "not_a_number": Advice("the value was left out", "record a finite number"),
    "no_value": Advice("the value was left out", "record a finite number"),
    "value_for_occurrence": Advice(
        "the value was left out",
        "record an occurrence without a value, only when it happened",
    ),
    "bad_count": Advice("the value was left out", "record a whole number"),
    "out_of_range": Advice("the value was left out", "record a value within the range"),
    "undeclared": Advice(
        "no metric reads the event",
        "catalog.add(Metric(...)), then ldinstrument apply",
    ),
    "two_definitions": Advice("only the catalog's definition counts", "make the two equal"),
    "unfinished": Advice(
        "runs that were cancelled or abandoned are in no metric: a variation that people leave "
        "looks as good as the others",
        "metrics=('success_rate', 'duration', 'unfinished') on the task",
    ),
    "no_session": Advice(
        "its numbers are in no metric", "run it inside session(...), or give it context="
    ),
    "no_context": Advice(
        "an event needs a context", "session(context), or identify() before the end"
    ),
    "invalid_context": Advice(
        "an event needs a valid context", "give an ldclient.Context or a key"
    ),
    "no_client": Advice(
        "events wait for a client", "call ldclient.set_config(...) and ldclient.get()"
    ),
    "unwatched_client": Advice(
        "nobody sees the exposures that the client makes, so sums travel value by value",
        _WATCH,
    ),
    "ambiguous_client": Advice(
        "events of one environment never go to another: they are dropped",
        "say which client it is: session(..., client=client)",
    ),
    "rate_limited": Advice(
        "what exceeds the metric's limit= is dropped: sums and counts are too low",
        "record inside a session, where nothing is limited, or raise limit=",
    ),
    "magnitude": Advice(
        "LaunchDarkly converts no units: the numbers would be wrong in silence",
        "record the metric's own unit, such as 1000 * seconds",
    ),
    "diluted": Advice(
        "what a session did before its exposure cannot differ: effects show thinner than they are",
        "evaluate the flag when the session begins, or compare the metrics of the task",
    ),
    "unseen_exposure": Advice(
        "a sum that had folded around the exposure counts as before it",
        "evaluate the flag in the request that records, or give the metric rollup='each'",
    ),
    "untold_usage": Advice(
        "OpenAI tells the tokens of a stream only when it is asked: tokens and cost are missing",
        "stream_options={'include_usage': True} in the call",
    ),
    "unknown_price": Advice(
        "a call without a price has no cost: an average of cost leaves that model out",
        "pip install -U genai-prices, or cost=PriceTable({...}) on track_ai",
    ),
    "doubled_spans": Advice(
        "an SDK and an instrumentor each make a span of one call; here it counts once, but "
        "whatever sums spans counts its tokens twice",
        "switch the instrumentor of that SDK off",
    ),
    "sampled_spans": Advice(
        "a sampler hides model calls from the bridge: what it counts is a part of them",
        "decorate the calls with track_ai, which needs no spans, or sample all of them",
    ),
    "offline": Advice("nothing is sent", "do not set offline=True"),
    "send_events_off": Advice("nothing is sent", "do not set send_events=False"),
}
"""By the cause of a program's warning."""


def concerns(subject: str, keys: Collection[str]) -> bool:
    """Return whether a program's warning is about a metric.

    Args:
        subject: what the program warned about: an event key, a task, a session's name, or nothing,
            which concerns everything.
        keys: of the metric, of its event, and of what else reads that event.
    """
    about = {*keys, *(task_of_metric(key) or key.rpartition(".")[0] for key in keys)}
    return not subject or subject in about or subject.split(" ")[0] in about


def task_of_metric(key: str) -> str | None:
    """Return the key of the task that feeds the metric *key* of a model call; None for others."""
    found = [key.removesuffix(f".{suffix}") for suffix in AI_METRICS if key.endswith(f".{suffix}")]
    return found[0] if found else None
