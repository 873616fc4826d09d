"""The instrumented program of the demo: a help desk whose assistant has a short or a long voice.

It holds what a newcomer would write; nothing in here knows that it is a demo.
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

from ..ai.decorators import track_ai
from ..metrics.catalogs import catalog
from ..metrics.metric import Metric
from ..sessions.recipes import track_conversion
from ..tasks.decorators import track_task
from .model import PRICES, NoAnswer, complete

FLAG = "assistant-voice"
VOICES = ("short", "long")
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
GOALS = ("assistant.answer.cost", "assistant.answer.success_rate", "business.conversion")
"""The metrics that the experiment is made for."""
BUYS = 0.15
"""How many answers end in a sale, whatever the voice."""


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


@track_ai(
    "assistant.answer", cost=PRICES, interaction=False, success=lambda found: found["helpful"]
)
def answer(question: str, voice: str, chance: random.Random) -> Any:
    """Ask the model, with the articles found; what it used is read from what it returns.

    `interaction=False`, for the request is the interaction.
    """
    return complete(question, search(question, chance), voice, chance)


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
            completion = answer(question, voice, chance)
        except NoAnswer:
            return _respond(start_response, "503 Service Unavailable", {"voice": voice})
        text = completion["choices"][0]["message"]["content"]
        reply = _bought(Reply(voice, text, completion["helpful"]), visitor, question)
        return _respond(start_response, "200 OK", asdict(reply))

    return helpdesk


def _bought(reply: Reply, visitor: str, question: str) -> Reply:
    """Return the reply with what the visitor bought after it, whatever it said."""
    chance = random.Random(f"{visitor} buys after {question}")
    if chance.random() >= BUYS:
        return reply
    sale = round(chance.uniform(5, 50), 2)
    track_conversion(sale, config_key=reply.voice)
    return Reply(reply.voice, reply.text, reply.helpful, sale)


def _respond(start_response: Callable[..., Any], status: str, body: Any) -> list[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]


def visitor_context(visitor: str) -> Context:
    """Return the context that flags are evaluated with."""
    return (
        Context.builder(visitor)
        .kind("user")
        .set("plan", "pro" if visitor.endswith("7") else "free")
        .build()
    )


def context_of(environ: dict[str, Any]) -> str | None:
    """Return whose request it is: the session takes the richer context from the evaluation."""
    visitors = parse_qs(str(environ.get("QUERY_STRING", ""))).get("visitor")
    return visitors[0] if visitors else None


def needed() -> list[Metric]:
    """Return the metrics that this program feeds."""
    return [
        metric
        for metric in catalog
        if metric.key.startswith(("assistant.", "request.", "business."))
    ]
