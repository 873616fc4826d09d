"""What is streamed above the providers' SDKs: LangChain's and LangGraph's chunks and states, the
events of LaunchDarkly's handlers, answers among what a generator of the user's yields.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .fields import field, items, path, text
from .results import latest_turn, message, read
from .usage import Generation, Usage, read_usage, total_of

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


def _is_state(state: Any) -> bool:
    return type(state) is dict and any(
        text(entry, "type") in ("ai", "human") for entry in items(state, "messages")
    )


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
