"""The instrumented program of the demo: a help desk whose assistant answers in a short or a long
voice.

Everything that a newcomer would write is in here; nothing in here knows that it is a demo.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qs

from ldclient import Context
from ldclient.client import LDClient

from ..metrics.catalogs import catalog
from ..metrics.metric import Metric
from ..sessions.recipes import track_conversion
from ..tasks.decorators import track_task

FLAG = "assistant-voice"
SEARCH_HITS = Metric(
    "assistant.search_hits", unit="articles", success_criteria="HigherThanBaseline"
)
ANSWER_P95 = Metric(
    "assistant.answer.slow",
    unit="milliseconds",
    success_criteria="LowerThanBaseline",
    percentile=95,
    event_key="assistant.answer.duration",
    name="assistant.answer: p95 of the duration",
)
catalog.add(SEARCH_HITS, ANSWER_P95)


class NoAnswer(Exception):  # noqa: N818
    """The assistant found nothing to say."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the visitor gets to see."""

    voice: str
    text: str
    helpful: bool
    sale: float = 0.0


@track_task("assistant.search", record={SEARCH_HITS.key: len})
def search(question: str, chance: random.Random) -> list[str]:
    """Look up articles."""
    time.sleep(0.001)
    return [f"{question} {n}" for n in range(chance.randint(0, 4))]


@track_task("assistant.answer", success=lambda reply: reply.helpful)
def answer(question: str, voice: str, chance: random.Random) -> Reply:
    """Answer a question; the long voice takes longer and helps more often."""
    articles = search(question, chance)
    time.sleep((0.004 if voice == "long" else 0.002) * chance.uniform(0.5, 1.5))
    if chance.random() < 0.05:
        raise NoAnswer(question)
    helpful = chance.random() < (0.85 if voice == "long" else 0.6)
    return Reply(voice, " ".join(articles), helpful)


def application(client: LDClient) -> Callable[..., Iterable[bytes]]:
    """Return the WSGI application; sessions come from the middleware around it."""

    def helpdesk(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        query = {
            name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()
        }
        visitor, question = query["visitor"], query["question"]
        chance = random.Random(f"{visitor}/{question}")
        voice = str(client.variation(FLAG, visitor_context(visitor), "short"))
        try:
            reply = answer(question, voice, chance)
        except NoAnswer:
            start_response("503 Service Unavailable", [("Content-Type", "application/json")])
            return [json.dumps({"voice": voice}).encode()]
        if reply.helpful and chance.random() < 0.3:
            reply = Reply(voice, reply.text, helpful=True, sale=round(chance.uniform(5, 50), 2))
            track_conversion(reply.sale, config_key=voice)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(asdict(reply)).encode()]

    return helpdesk


def visitor_context(visitor: str) -> Context:
    """Return the context that flags are evaluated with."""
    return (
        Context.builder(visitor)
        .kind("user")
        .set("plan", "pro" if visitor.endswith("7") else "free")
        .build()
    )


def context_of(environ: dict[str, Any]) -> str | None:
    """Whose request this is: the session takes the richer context from the evaluation."""
    visitors = parse_qs(str(environ.get("QUERY_STRING", ""))).get("visitor")
    return visitors[0] if visitors else None


def needed() -> list[Metric]:
    """Return the metrics that this program feeds."""
    return [
        metric
        for metric in catalog
        if metric.key.startswith(("assistant.", "request.", "business."))
    ]
