"""A language model that needs no key: it answers in the shape of a chat completion.

The long voice writes more, takes longer and helps more often: this is the demo's true effect.
"""

from __future__ import annotations

import random
import time
from typing import Any

from ..ai import Price, PriceTable

NAME = "demo-writer"
PRICES = PriceTable({NAME: Price(input="2.50", output="10")}, version="demo")  # dollars a million
HELPFUL = {"short": 0.6, "long": 0.85}
"""How often an answer helps, by voice."""
WORDS = {"short": 40, "long": 120}
SECONDS = {"short": 0.002, "long": 0.004}
FAILURES = 0.05


class NoAnswer(Exception):  # noqa: N818
    """The model found nothing to say."""


def complete(question: str, articles: list[str], voice: str, chance: random.Random) -> Any:
    """Return a chat completion; `helpful` is what the visitor will think of it.

    Raises:
        NoAnswer: in one of twenty calls.
    """
    time.sleep(SECONDS[voice] * chance.uniform(0.5, 1.5))
    if chance.random() < FAILURES:
        raise NoAnswer(question)
    written = round(WORDS[voice] * chance.uniform(0.6, 1.4))
    content = " ".join(articles or [question])
    asked = 60 + 20 * len(articles)
    return {
        "model": NAME,
        "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": asked,
            "completion_tokens": written,
            "total_tokens": asked + written,
        },
        "helpful": chance.random() < HELPFUL[voice],
    }
