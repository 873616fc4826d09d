"""Figures: their sums, their shapes, and what is no figure."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from ldinstrument.ai.usage import Generation, Usage, read_usage, total_of

SHAPES: list[tuple[dict[str, Any], Usage]] = [
    (
        {
            "prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26,
            "prompt_tokens_details": {"cached_tokens": 8}, "completion_tokens_details": {"reasoning_tokens": 2},
        },
        Usage(20, 6, 26, 8, None, 2),
    ),
    ({"prompt_tokens": 7, "total_tokens": 7}, Usage(input=7, total=7)),
    # LiteLLM's for Anthropic: inclusive, with Anthropic's names beside it.
    (
        {
            "prompt_tokens": 20, "completion_tokens": 6, "cache_read_input_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 8},
        },
        Usage(20, 6, 26, 8),
    ),
    (
        {"input_tokens": 9, "output_tokens": 6, "cache_read_input_tokens": 8, "cache_creation_input_tokens": 3},
        Usage(20, 6, 26, 8, 3),
    ),
    ({"input_tokens": 9, "output_tokens": 6}, Usage(9, 6, 15)),
    (
        {
            "input_tokens": 20, "output_tokens": 6, "total_tokens": 26, "input_tokens_details": {"cached_tokens": 8},
            "output_tokens_details": {"reasoning_tokens": 2},
        },
        Usage(20, 6, 26, 8, None, 2),
    ),
    (
        {
            "input_tokens": 20, "output_tokens": 6, "total_tokens": 26,
            "input_token_details": {"cache_read": 8, "cache_creation": 3}, "output_token_details": {"reasoning": 2},
        },
        Usage(20, 6, 26, 8, 3, 2),
    ),
    ({"inputTokens": 12, "outputTokens": 6, "totalTokens": 26, "cacheReadInputTokens": 8}, Usage(20, 6, 26, 8)),
    ({"inputTokens": 12, "outputTokens": 6, "totalTokens": 18}, Usage(12, 6, 18)),
    (
        {
            "promptTokenCount": 15, "toolUsePromptTokenCount": 5, "candidatesTokenCount": 4, "thoughtsTokenCount": 2,
            "totalTokenCount": 26, "cachedContentTokenCount": 8,
        },
        Usage(20, 6, 26, 8, None, 2),
    ),
    ({"prompt_token_count": 20, "total_token_count": 20}, Usage(input=20, total=20)),
    ({"requests": 1, "input_tokens": 20, "output_tokens": 6, "cache_read_tokens": 8}, Usage(20, 6, 26, 8)),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), SHAPES)
def test_shapes(given: dict[str, Any], expected: Usage) -> None:
    """Every provider's figures mean the same: input tokens include the cached ones, output those of reasoning."""
    assert read_usage(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        None, {}, {"prompt_tokens": None}, {"prompt_tokens": "20"}, {"prompt_tokens": True}, {"prompt_tokens": -1},
        {"prompt_tokens": 20.0}, {"requests": 1, "input_tokens": 0, "output_tokens": 0}, mock.MagicMock(), 5, "20",
    ],
)  # fmt: skip
def test_no_figures(given: Any) -> None:
    """What is no whole number is no figure, and agents that count 0 and 0 have been told nothing."""
    assert read_usage(given) is None


def test_absent_is_not_zero() -> None:
    """A figure that nobody told stays unknown; one that was told to be 0 is 0."""
    usage = read_usage(
        {"prompt_tokens": 20, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 0}}
    )
    assert usage is not None
    assert (usage.output, usage.cached, usage.reasoning) == (0, 0, None)


def test_uncached() -> None:
    """The uncached tokens are known when both others are."""
    assert Usage(input=20, cached=8).uncached == 12
    assert Usage(input=20).uncached is None


def test_sum() -> None:
    """Two calls add up; a figure that only one of them knows makes the sum partial; an estimate stays one."""
    assert Usage(1, 2, 3) + Usage(10, 20, 30, 5) == Usage(11, 22, 33, 5)
    assert (Usage(1, 2, 3) + Usage(input=10)).state == "partial"
    assert (Usage(1, 2, 3, state="estimated") + Usage(10, 20, 30)).state == "estimated"


def test_operation() -> None:
    """Of several calls, figures add up and the latest name counts; of none, nothing is known."""
    first = Generation(Usage(1, 2, 3), "small", "openai", "tool_calls", 1, 2, "a")
    second = Generation(Usage(10, 20, 30), "large", None, "stop", 0, None, "b")
    assert total_of([first, second]) == Generation(
        Usage(11, 22, 33), "large", "openai", "stop", 1, 2, "b"
    )
    assert total_of([]) is None


def test_broken_off() -> None:
    """What was known when a call broke off is partial; an estimate stays one."""
    assert Generation(Usage(input=20)).broken_off().usage == Usage(input=20, state="partial")
    assert Generation(Usage(output=2, state="estimated")).broken_off().usage == Usage(
        output=2, state="estimated"
    )
    assert Generation(model="small").broken_off() == Generation(model="small")
