"""Read a stream while it runs: each chunk or event adds to what is known of the call.

What is known so far is there at any time, so that a stream that breaks off has told what it could.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from .fields import field, integer, items, path, text
from .results import google_finish_reason, google_tool_calls, latest_turn, message, read, speaker
from .usage import Generation, Usage, read_usage, total_of


class ChunkReader(Protocol):
    """Reads the chunks of one kind of stream."""

    def add(self, chunk: Any) -> str | None:
        """Take one chunk; its text (empty for a tool call or a picture), or None when the model
        wrote nothing in it.
        """

    def generation(self) -> Generation | None:
        """Return what is known so far."""

    @property
    def finished(self) -> bool:
        """Tell whether the model has said that it is done."""


class StreamReader:
    """Reads any stream: by the shape of its first chunk that has one. Never raises.

    Args:
        keep_text: keep what the model wrote, for an estimate of its tokens.
    """

    def __init__(self, *, keep_text: bool = False) -> None:
        self._reader: ChunkReader | None = None
        self._pieces: list[str] | None = [] if keep_text else None

    def add(self, chunk: Any) -> bool:
        """Take one chunk, or one text; whether the model wrote something in it."""
        try:
            written = chunk if type(chunk) is str else self._read(chunk)
        except Exception:  # an odd object of the host's says nothing
            return True
        if written and self._pieces is not None:
            self._pieces.append(written)
        return written is not None and (written != "" or type(chunk) is not str)

    def _read(self, chunk: Any) -> str | None:
        if self._reader is None:
            kind = next((kind for fits, kind in _KINDS if fits(chunk)), None)
            if kind is None:
                return ""
            self._reader = kind()
        return self._reader.add(chunk)

    @property
    def untold(self) -> bool:
        """Tell whether this is a whole stream of chat completions without its usage."""
        reader = self._reader
        if not isinstance(reader, ChatChunks) or not reader.finished:
            return False
        known = reader.generation()
        return known is not None and known.usage is None

    @property
    def text(self) -> str | None:
        """Return what the model wrote, if it was to be kept."""
        return None if self._pieces is None else "".join(self._pieces)

    @property
    def finished(self) -> bool:
        """Tell whether the model has said that it is done: closing the stream then breaks nothing
        off.
        """
        return self._reader is not None and self._reader.finished

    def generation(self, *, complete: bool) -> Generation | None:
        """Return what is known of the call; of one that is not *complete*, its usage is
        `partial`.
        """
        try:
            known = None if self._reader is None else self._reader.generation()
        except Exception:
            return None
        return known if known is None or complete else known.broken_off()


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


# -- LangChain and LangGraph -----------------------------------------------------------------------


class AIMessageChunks:
    """LangChain's chunks add up; one with the usage may be followed by more. LangGraph pairs them
    with their node.
    """

    def __init__(self) -> None:
        self._known: dict[str | None, Generation] = {}
        self._tools: set[tuple[Any, Any]] = set()
        self._last: str | None = None

    @staticmethod
    def fits(chunk: Any) -> bool:
        """Tell whether *chunk* is a chunk of a message, alone or with LangGraph's metadata."""
        first = chunk[0] if type(chunk) is tuple and len(chunk) == 2 else chunk
        return text(first, "type") == "AIMessageChunk"

    def add(self, chunk: Any) -> str | None:
        """Take one chunk."""
        first = chunk[0] if type(chunk) is tuple and chunk else chunk
        told = message(first)
        if told is None:
            return None
        self._last = told.id or self._last
        before = self._known.get(self._last, Generation())
        calls = items(first, "tool_call_chunks")
        self._tools.update((self._last, field(call, "index")) for call in calls)
        self._known[self._last] = replace(before + told, tool_calls=None)
        content = field(first, "content")
        return content if type(content) is str and content else "" if content or calls else None

    @property
    def finished(self) -> bool:
        """Tell whether the last message has a reason for its end."""
        return bool(self._known) and self._known[self._last].finish_reason is not None

    def generation(self) -> Generation | None:
        """Return what is known so far."""
        known = total_of(self._known.values())
        return None if known is None else replace(known, tool_calls=len(self._tools))


class RunEvents(AIMessageChunks):
    """The events of LangChain's `astream_events()`: those of its models hold the chunks."""

    @staticmethod
    def fits(event: Any) -> bool:
        """Tell whether *event* is one of a run."""
        return (text(event, "event") or "").startswith("on_") and "run_id" in event

    def add(self, event: Any) -> str | None:
        """Take one event."""
        if text(event, "event") != "on_chat_model_stream":
            return None
        return super().add(path(event, "data", "chunk"))


class GraphStates:
    """LangGraph's `values` and `updates`: states and parts of states, whose messages repeat."""

    def __init__(self) -> None:
        self._messages: dict[str | None, Generation] = {}

    @staticmethod
    def fits(chunk: Any) -> bool:
        """Tell whether *chunk* is a state with messages, or parts of one by node."""
        return type(chunk) is dict and any(_is_state(state) for state in (chunk, *chunk.values()))

    def add(self, chunk: Any) -> str | None:
        """Take one chunk."""
        states = (
            [state for state in (chunk, *chunk.values()) if _is_state(state)]
            if type(chunk) is dict
            else []
        )
        told = [
            message(entry) for state in states for entry in latest_turn(items(state, "messages"))
        ]
        fresh = {
            found.id: found
            for found in told
            if found is not None and found.id not in self._messages
        }
        self._messages.update(fresh)
        return "" if fresh else None

    @property
    def finished(self) -> bool:
        """Tell nothing: a graph says that it is done by ending."""
        return False

    def generation(self) -> Generation | None:
        """Return what is known so far."""
        return total_of(self._messages.values())


class GraphModes:
    """LangGraph's stream of several modes, or of subgraphs: each part says which mode it is of, and
    before that whose. Chunks of messages count; without them, the messages of states.
    """

    def __init__(self) -> None:
        self._chunks = AIMessageChunks()
        self._states = GraphStates()

    @staticmethod
    def fits(part: Any) -> bool:
        """Tell whether *part* is one of several modes, or of a subgraph."""
        if type(part) is not tuple or len(part) not in (2, 3):
            return False
        return part[-2] in _GRAPH_MODES if type(part[-2]) is str else type(part[0]) is tuple

    def add(self, part: Any) -> str | None:
        """Take one part."""
        chunk = part[-1]
        if type(chunk) is dict:
            self._states.add(chunk)
            return None
        return self._chunks.add(chunk)

    @property
    def finished(self) -> bool:
        """Tell nothing: a graph says that it is done by ending."""
        return False

    def generation(self) -> Generation | None:
        """Return what is known so far."""
        return self._chunks.generation() or self._states.generation()


_GRAPH_MODES = ("messages", "updates", "values", "custom", "debug", "checkpoints", "tasks")


# -- handlers of LaunchDarkly's AI SDK -------------------------------------------------------------


class HandlerEvents:
    """What a handler of `launchdarkly_ai_server` streams: texts, and the usage with `done`."""

    def __init__(self) -> None:
        self._usage: Usage | None = None
        self._tools = 0
        self._done = False

    @staticmethod
    def fits(event: Any) -> bool:
        """Tell whether *event* is one of a handler."""
        kind = text(event, "type") or ""
        return kind in ("chunk", "done") or kind.startswith(("TEXT_MESSAGE_", "TOOL_CALL_"))

    def add(self, event: Any) -> str | None:
        """Take one event."""
        kind = text(event, "type")
        if kind == "done":
            self._done = True
            self._usage = read_usage(field(event, "usage"))
        if kind == "TOOL_CALL_START":
            self._tools += 1
            return ""
        return text(event, "text", "delta")

    @property
    def finished(self) -> bool:
        """Tell whether the handler is done."""
        return self._done

    def generation(self) -> Generation | None:
        """Return what is known so far."""
        return Generation(usage=self._usage, tool_calls=self._tools)


# -- whole answers ---------------------------------------------------------------------------------


class WholeAnswers:
    """What a generator of the user's yields beside its texts: an answer, or the figures of one.

    Of several about one answer the last counts: figures that are told with each chunk are those so
    far.
    """

    def __init__(self) -> None:
        self._known: dict[str | None, Generation] = {}

    @staticmethod
    def fits(chunk: Any) -> bool:
        """Tell whether *chunk* says what a model call read and wrote."""
        return _bill(chunk) is not None

    def add(self, chunk: Any) -> str | None:
        """Take one chunk."""
        if (known := _bill(chunk)) is not None:
            self._known[known.id] = known
        return text(chunk, "text", "content", "delta")

    @property
    def finished(self) -> bool:
        """Tell nothing: such a stream says that it is done by ending."""
        return False

    def generation(self) -> Generation | None:
        """Return what is known so far."""
        return total_of(self._known.values())


def _bill(chunk: Any) -> Generation | None:
    """Return what *chunk* says of a model call, with both its figures: `{"input": 3}` alone may be
    anything.
    """
    known = read(chunk)
    usage = None if known is None else known.usage
    whole = usage is not None and usage.input is not None and usage.output is not None
    return known if whole else None


def _is_state(state: Any) -> bool:
    return type(state) is dict and any(
        text(entry, "type") in ("ai", "human") for entry in items(state, "messages")
    )


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[], ChunkReader]], ...] = (
    (ChatChunks.fits, ChatChunks),
    (ChatHelperEvents.fits, ChatHelperEvents),
    (ResponseEvents.fits, ResponseEvents),
    (MessageEvents.fits, MessageEvents),
    (GoogleChunks.fits, GoogleChunks),
    (ConverseEvents.fits, ConverseEvents),
    (HandlerEvents.fits, HandlerEvents),
    (AIMessageChunks.fits, AIMessageChunks),
    (RunEvents.fits, RunEvents),
    (GraphStates.fits, GraphStates),
    (GraphModes.fits, GraphModes),
    (WholeAnswers.fits, WholeAnswers),
)
