"""What one model call used and how it ended: tokens, model, provider, finish reason, tool calls,
attempts.

None means: not known. A provider that says nothing of cached tokens has not said that there were
none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from .fields import field, integer

State = Literal["known", "estimated", "partial"]
_WORST_FIRST: tuple[State, ...] = ("estimated", "partial", "known")
FIGURES = ("input", "output", "total", "cached", "reasoning")


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of one model call, or of several together; None: not known.

    Args:
        input: tokens read, those from a cache included.
        output: tokens written, those of reasoning included.
        total: both together.
        cached: of *input*, those read from a cache.
        cache_written: of *input*, those written to a cache.
        reasoning: of *output*, those of reasoning.
        state: `known`: the provider's figures for the whole call; `partial`: what was known when
            the call broke off; `estimated`: at least one figure is an estimate.
    """

    input: int | None = None
    output: int | None = None
    total: int | None = None
    cached: int | None = None
    cache_written: int | None = None
    reasoning: int | None = None
    state: State = "known"

    @property
    def uncached(self) -> int | None:
        """Of the input tokens, those not read from a cache; None when either is not known."""
        return (
            None if self.input is None or self.cached is None else max(self.input - self.cached, 0)
        )

    @property
    def empty(self) -> bool:
        """Tell whether nothing is known; 0 and 0 are an SDK's way to say so, for no call reads and
        writes nothing.
        """
        return not (self.input or self.output or self.total)

    def __add__(self, other: Usage) -> Usage:
        """Both calls together: a figure that only one of them knows makes the sum `partial`."""
        sums = {
            name: _sum(getattr(self, name), getattr(other, name))
            for name in (*FIGURES, "cache_written")
        }
        state = next(state for state in _WORST_FIRST if state in (self.state, other.state))
        if state == "known" and any(
            (getattr(self, name) is None) != (getattr(other, name) is None)
            for name in ("input", "output")
        ):
            state = "partial"
        return Usage(**sums, state=state)


def _sum(first: int | None, second: int | None) -> int | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


@dataclass(frozen=True, slots=True)
class Generation:
    """What is known of one model call, or of the calls of one operation; None: not known.

    Args:
        usage: its tokens.
        model: the model that answered, as the provider names it.
        provider: by OpenTelemetry's names: `openai`, `anthropic`, `gcp.gemini`, `aws.bedrock`, ...
        finish_reason: why it stopped, in the provider's word, lower case.
        tool_calls: how many tool calls the answer asks for.
        attempts: how many requests the SDK made for it, retries included.
        id: the provider's id of the answer; two readings with one id are one call.
    """

    usage: Usage | None = None
    model: str | None = None
    provider: str | None = None
    finish_reason: str | None = None
    tool_calls: int | None = None
    attempts: int | None = None
    id: str | None = None

    def __add__(self, other: Generation) -> Generation:
        """Both calls as one operation: figures add up, names are the later call's where it has
        them.
        """
        return Generation(
            usage=self.usage + other.usage
            if self.usage and other.usage
            else other.usage or self.usage,
            model=other.model or self.model,
            provider=other.provider or self.provider,
            finish_reason=other.finish_reason or self.finish_reason,
            tool_calls=_sum(self.tool_calls, other.tool_calls),
            attempts=_sum(self.attempts, other.attempts),
            id=other.id or self.id,
        )

    def broken_off(self) -> Generation:
        """Return the same for a call that did not come to its end: what is known so far is
        `partial`.
        """
        if self.usage is None or self.usage.state != "known":
            return self
        return replace(self, usage=replace(self.usage, state="partial"))


def total_of(generations: Iterable[Generation]) -> Generation | None:
    """Return all *generations* as one operation; None when there are none."""
    total: Generation | None = None
    for generation in generations:
        total = generation if total is None else total + generation
    return total


# -- the shapes that providers give their figures ------------------------------------------------


def read_usage(figures: Any) -> Usage | None:
    """Return the usage in *figures*, an SDK's usage object or a dictionary; None when nothing is
    known.

    `prompt_tokens` is asked first: LiteLLM's usage is inclusive and carries Anthropic's names
        beside it.
    """
    if figures is None:
        return None
    if isinstance(figures, Usage):
        return figures
    for names_it, read in _SHAPES:
        if integer(figures, *names_it) is not None:
            usage = read(figures)
            return None if usage.empty else usage
    return None


def made(
    input: int | None,
    output: int | None,
    total: int | None = None,
    cached: int | None = None,
    written: int | None = None,
    reasoning: int | None = None,
) -> Usage:
    """Return a usage whose total agrees with its parts; the provider's own total counts where one
    part is missing.
    """
    if input is not None and output is not None:
        total = input + output
    return Usage(input, output, total, cached, written, reasoning)


def _chat(figures: Any) -> Usage:
    """OpenAI's chat completions, embeddings and everybody who speaks like them."""
    read, written = (
        field(figures, "prompt_tokens_details"),
        field(figures, "completion_tokens_details"),
    )
    return made(
        integer(figures, "prompt_tokens"),
        integer(figures, "completion_tokens"),
        integer(figures, "total_tokens"),
        integer(read, "cached_tokens"),
        integer(read, "cache_write_tokens", "cache_creation_tokens"),
        integer(written, "reasoning_tokens"),
    )


def _bedrock(figures: Any) -> Usage:
    """Bedrock's converse: the input leaves out what was read from and written to the cache."""
    cached, written = (
        integer(figures, "cacheReadInputTokens"),
        integer(figures, "cacheWriteInputTokens"),
    )
    return made(
        _inclusive(integer(figures, "inputTokens"), cached, written),
        integer(figures, "outputTokens"),
        integer(figures, "totalTokens"),
        cached,
        written,
    )


def _google(figures: Any) -> Usage:
    """Google: the output is candidates and thoughts, the input prompt and results of tools."""
    thoughts = integer(figures, "thoughts_token_count", "thoughtsTokenCount")
    return made(
        _sum(
            integer(figures, "prompt_token_count", "promptTokenCount"),
            integer(figures, "tool_use_prompt_token_count", "toolUsePromptTokenCount"),
        ),
        _sum(integer(figures, "candidates_token_count", "candidatesTokenCount"), thoughts),
        integer(figures, "total_token_count", "totalTokenCount"),
        integer(figures, "cached_content_token_count", "cachedContentTokenCount"),
        None,
        thoughts,
    )


def _named_tokens(figures: Any) -> Usage:
    """`input_tokens` and `output_tokens`: many share the names, Anthropic alone leaves out what was
    cached.
    """
    input, output = integer(figures, "input_tokens"), integer(figures, "output_tokens")
    if _exclusive(figures):
        cached = integer(figures, "cache_read_input_tokens")
        written = integer(figures, "cache_creation_input_tokens")
        return made(_inclusive(input, cached, written), output, None, cached, written)
    read = field(figures, "input_tokens_details") or field(figures, "input_token_details")
    wrote = field(figures, "output_tokens_details") or field(figures, "output_token_details")
    return made(
        input,
        output,
        integer(figures, "total_tokens"),
        _first(
            integer(read, "cached_tokens", "cache_read"),
            integer(figures, "cache_read_tokens", "cached_tokens"),
        ),
        _first(
            integer(read, "cache_write_tokens", "cache_creation"),
            integer(figures, "cache_write_tokens"),
        ),
        _first(
            integer(wrote, "reasoning_tokens", "reasoning"),
            integer(figures, "output_reasoning_tokens", "reasoning_tokens"),
        ),
    )


def _own(figures: Any) -> Usage:
    """LaunchDarkly's AI SDK, and everybody who uses our names."""
    return made(
        integer(figures, "input"),
        integer(figures, "output"),
        integer(figures, "total"),
        _first(integer(figures, "cached"), integer(field(figures, "input_details"), "cache_read")),
        _first(
            integer(figures, "cache_written"),
            integer(field(figures, "input_details"), "cache_creation"),
        ),
        integer(figures, "reasoning"),
    )


def _exclusive(figures: Any) -> bool:
    return any(
        integer(figures, name) is not None
        for name in ("cache_read_input_tokens", "cache_creation_input_tokens")
    )


def _inclusive(input: int | None, *cached: int | None) -> int | None:
    return None if input is None else input + sum(part or 0 for part in cached)


def _first(*figures: int | None) -> int | None:
    return next((figure for figure in figures if figure is not None), None)


_SHAPES = (
    (("prompt_tokens", "completion_tokens"), _chat),
    (("inputTokens", "outputTokens"), _bedrock),
    (("prompt_token_count", "promptTokenCount", "total_token_count", "totalTokenCount"), _google),
    (("input_tokens", "output_tokens", "total_tokens"), _named_tokens),
    (("input", "output"), _own),
)
