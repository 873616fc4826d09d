"""What the providers' own SDKs stream, chunk by chunk: OpenAI's, Anthropic's, Google's, Bedrock's,
and whoever speaks like them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .fields import field, integer, items, path, text
from .results import google_finish_reason, google_tool_calls, read, speaker
from .usage import Generation, Usage, read_usage, total_of

# -- OpenAI's chat completions, LiteLLM's ----------------------------------------------------------


class ChatChunks:
    """Usage comes with the last chunk, and only if it was asked for."""

    def __init__(self) -> None:
        self._known = Generation()
        self._tools: set[tuple[Any, Any]] = set()

    @staticmethod
    def fits(chunk: Any) -> bool:
        """Tell whether *chunk* is one of a chat completion."""
        choices = field(chunk, "choices")
        return isinstance(choices, (list, tuple)) and (
            any(field(choice, "delta") is not None for choice in choices)
            or text(chunk, "object") == "chat.completion.chunk"
        )

    def add(self, chunk: Any) -> str | None:
        """Take one chunk."""
        known, written = self._known, None
        for choice in items(chunk, "choices"):
            delta = field(choice, "delta")
            written = self._delta(field(choice, "index"), delta) if written is None else written
            if (reason := text(choice, "finish_reason")) is not None:
                known = replace(known, finish_reason=reason)
        if known.id is None:
            known = replace(
                known, id=text(chunk, "id"), model=text(chunk, "model"), provider=speaker(chunk)
            )
        if (usage := read_usage(field(chunk, "usage"))) is not None:
            known = replace(known, usage=usage)
        self._known = known
        return written

    def _delta(self, index: Any, delta: Any) -> str | None:
        for call in items(delta, "tool_calls"):
            self._tools.add((index, field(call, "index")))
        told = text(delta, "content", "reasoning_content", "reasoning", "refusal")
        return "" if told is None and items(delta, "tool_calls") else told

    @property
    def finished(self) -> bool:
        """Tell whether a choice has a reason for its end."""
        return self._known.finish_reason is not None

    def generation(self) -> Generation | None:
        """Return what is known so far."""
        return replace(self._known, tool_calls=len(self._tools))


class ChatHelperEvents(ChatChunks):
    """The events of OpenAI's `chat.completions.stream()`: each chunk, and what is derived of it."""

    @staticmethod
    def fits(event: Any) -> bool:
        """Tell whether *event* holds a chunk of a chat completion."""
        return text(event, "type") == "chunk" and ChatChunks.fits(field(event, "chunk"))

    def add(self, event: Any) -> str | None:
        """Take one event."""
        chunk = field(event, "chunk")
        return None if chunk is None else super().add(chunk)


# -- OpenAI's responses, and the events of its agents ----------------------------------------------


class ResponseEvents:
    """The usage is on the event that ends a response; an agent's run has several responses."""

    def __init__(self) -> None:
        self._ended: list[Generation] = []
        self._open: Generation | None = None

    @staticmethod
    def fits(event: Any) -> bool:
        """Tell whether *event* is one of the responses API, or carries one as the agents' do."""
        kind = text(event, "type") or ""
        return kind.startswith("response.") or kind in _AGENT_EVENTS

    def add(self, event: Any) -> str | None:
        """Take one event."""
        kind = text(event, "type") or ""
        if kind == "raw_response_event":
            return self.add(field(event, "data"))
        if kind in _RESPONSE_ENDS:
            self._open = None
            if (ended := read(field(event, "response"))) is not None:
                self._ended.append(ended)
        elif kind == "response.created":
            self._open = read(field(event, "response"))
        if kind.startswith("response.") and kind.endswith(".delta"):
            return text(event, "delta") or ""
        return None

    @property
    def finished(self) -> bool:
        """Tell whether the last response has ended."""
        return bool(self._ended) and self._open is None

    def generation(self) -> Generation | None:
        """Return what is known so far."""
        begun = [] if self._open is None else [replace(self._open, finish_reason=None, usage=None)]
        return total_of([*self._ended, *begun])


_AGENT_EVENTS = ("raw_response_event", "run_item_stream_event", "agent_updated_stream_event")
_RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")


# -- Anthropic -------------------------------------------------------------------------------------


class MessageEvents:
    """Read Anthropic's: the input is told first, the output last; before that its 1 is a
    placeholder.
    """

    def __init__(self) -> None:
        self._begun: Generation | None = None
        self._figures: dict[str, int] = {}
        self._finish_reason: str | None = None
        self._tools = 0

    @staticmethod
    def fits(event: Any) -> bool:
        """Tell whether *event* is one of a message."""
        return text(event, "type") == "message_start"

    def add(self, event: Any) -> str | None:
        """Take one event; those that the SDK derives from others say nothing new."""
        kind = text(event, "type")
        if kind == "content_block_delta":
            delta = field(event, "delta")
            return text(delta, "text", "thinking", "partial_json") or ""
        if kind == "message_start":
            begun = field(event, "message")
            self._begun = read(begun)
            self._note(field(begun, "usage"), but="output_tokens")
        elif kind == "content_block_start":
            self._tools += text(field(event, "content_block"), "type") in _TOOL_BLOCKS
        elif kind == "message_delta":
            self._note(field(event, "usage"))
            self._finish_reason = text(field(event, "delta"), "stop_reason") or self._finish_reason
        return None

    def _note(self, usage: Any, but: str = "") -> None:
        for name in _MESSAGE_FIGURES:
            figure = integer(usage, name)
            if figure is not None and name != but:
                self._figures[name] = figure

    @property
    def finished(self) -> bool:
        """Tell whether the model has said why it stopped."""
        return self._finish_reason is not None

    def generation(self) -> Generation | None:
        """Return what is known so far."""
        begun = self._begun or Generation(provider="anthropic")
        return replace(
            begun,
            usage=read_usage(self._figures),
            finish_reason=self._finish_reason,
            tool_calls=self._tools,
        )


_TOOL_BLOCKS = ("tool_use", "server_tool_use", "mcp_tool_use")
_MESSAGE_FIGURES = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


# -- Google ----------------------------------------------------------------------------------------


class GoogleChunks:
    """Each chunk has the usage so far: the last one counts."""

    def __init__(self) -> None:
        self._known: Generation | None = None
        self._finish_reason: str | None = None
        self._tools = 0

    @staticmethod
    def fits(chunk: Any) -> bool:
        """Tell whether *chunk* is one of `generate_content_stream`."""
        return (
            field(chunk, "candidates") is not None
            or read_usage(field(chunk, "usage_metadata")) is not None
        )

    def add(self, chunk: Any) -> str | None:
        """Take one chunk."""
        candidates = items(chunk, "candidates")
        self._known = read(chunk) or self._known
        self._finish_reason = google_finish_reason(candidates) or self._finish_reason
        self._tools += google_tool_calls(candidates)
        parts = [part for candidate in candidates for part in items(candidate, "content", "parts")]
        return "".join(text(part, "text") or "" for part in parts) if parts else None

    @property
    def finished(self) -> bool:
        """Tell whether a candidate has a reason for its end."""
        return self._finish_reason is not None

    def generation(self) -> Generation | None:
        """Return what is known so far: of a stream that broke off, the input alone is sure."""
        if self._known is None:
            return None
        usage = self._known.usage
        if usage is not None and not self.finished:
            usage = Usage(input=usage.input, cached=usage.cached)
        return replace(
            self._known, usage=usage, finish_reason=self._finish_reason, tool_calls=self._tools
        )


# -- Bedrock ---------------------------------------------------------------------------------------


class ConverseEvents:
    """Bedrock's `converse_stream`: each event is a dictionary with one key; the usage is in the
    last.
    """

    def __init__(self) -> None:
        self._usage: Usage | None = None
        self._finish_reason: str | None = None
        self._tools = 0

    @staticmethod
    def fits(event: Any) -> bool:
        """Tell whether *event* is one of `converse_stream`."""
        return type(event) is dict and bool(
            event.keys() & {"messageStart", "contentBlockStart", "contentBlockDelta"}
        )

    def add(self, event: Any) -> str | None:
        """Take one event."""
        if (delta := path(event, "contentBlockDelta", "delta")) is not None:
            return text(delta, "text") or ""
        self._tools += path(event, "contentBlockStart", "start", "toolUse") is not None
        self._finish_reason = text(field(event, "messageStop"), "stopReason") or self._finish_reason
        self._usage = read_usage(path(event, "metadata", "usage")) or self._usage
        return None

    @property
    def finished(self) -> bool:
        """Tell whether the model has said why it stopped."""
        return self._finish_reason is not None

    def generation(self) -> Generation | None:
        """Return what is known so far."""
        return Generation(self._usage, None, "aws.bedrock", self._finish_reason, self._tools)
