"""Read a stream while it runs: each chunk or event adds to what is known of the call.

What is known so far is there at any time, so that a stream that breaks off has told what it could.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..diagnostics import raise_if_interrupted
from .framework_chunks import (
    AIMessageChunks,
    GraphModes,
    GraphStates,
    HandlerEvents,
    RunEvents,
    WholeAnswers,
)
from .provider_chunks import (
    ChatChunks,
    ChatHelperEvents,
    ConverseEvents,
    GoogleChunks,
    MessageEvents,
    ResponseEvents,
)
from .usage import Generation


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
        except Exception as error:  # an odd object of the host's says nothing
            raise_if_interrupted(error)
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
        except Exception as error:
            raise_if_interrupted(error)
            return None
        return known if known is None or complete else known.broken_off()


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
