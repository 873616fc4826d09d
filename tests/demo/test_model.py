"""The demo's model: answers in the shape of a chat completion, the same again for the same seed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ldinstrument.ai.results import read
from ldinstrument.demo import model
from ldinstrument.demo.model import FAILURES, HELPFUL, NAME, PRICES, WORDS, NoAnswer, complete


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.time, "sleep", lambda seconds: None)


def answers(voice: str, count: int = 2000) -> list[Any]:
    """What so many calls come to; None where there is no answer."""
    chance, found = random.Random(5), []
    for _ in range(count):
        try:
            found.append(complete("reset", ["a", "b"], voice, chance))
        except NoAnswer:
            found.append(None)
    return found


def test_an_answer_is_read_as_any_providers() -> None:
    """Its tokens add up, its model has a price, and a question stands in for missing articles."""
    answer = complete("reset", [], "short", random.Random(5))
    known = read(answer)
    assert known is not None
    assert known.usage is not None
    usage = answer["usage"]
    assert known.usage.total == usage["prompt_tokens"] + usage["completion_tokens"]
    assert known.usage.total == usage["total_tokens"]
    assert (known.model, known.finish_reason) == (NAME, "stop")
    assert PRICES.cost(known) is not None
    assert answer["choices"][0]["message"]["content"] == "reset"


def test_the_same_seed_is_the_same_answer() -> None:
    """So that the demo tells the same story each time."""
    assert answers("long", 20) == answers("long", 20)


def test_the_true_effect_is_in_the_numbers() -> None:
    """The long voice writes three times as much and helps more often; both fail alike."""
    for voice in ("short", "long"):
        found = answers(voice)
        given = [answer for answer in found if answer is not None]
        assert 1 - len(given) / len(found) == pytest.approx(FAILURES, abs=0.02)
        helpful = sum(answer["helpful"] for answer in given) / len(given)
        assert helpful == pytest.approx(HELPFUL[voice], abs=0.04)
        words = sum(answer["usage"]["completion_tokens"] for answer in given) / len(given)
        assert words == pytest.approx(WORDS[voice], rel=0.03)
