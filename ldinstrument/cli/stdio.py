"""stdout is for answers alone: what imported code prints goes to stderr, whatever way it takes."""

from __future__ import annotations

import os
import sys
import threading
from typing import TextIO, cast

_kept: TextIO | None = None
_before: TextIO | None = None


class ReaderGone(Exception):  # noqa: N818
    """Whoever read stdout has closed it; a BrokenPipeError would be taken for a failure on the way
    up.
    """


def answers() -> TextIO | None:
    """Where answers are written; None when stdout is closed."""
    return _kept or cast("TextIO | None", sys.stdout)


def keep_for_answers() -> None:
    """From here on stdout takes nothing but answers.

    Not the prints of imported code, of its threads, children and exit hooks; those go to stderr.
    """
    global _kept, _before
    if _kept is not None or sys.stdout is None or sys.stderr is None:
        return
    _before = sys.stdout
    try:
        sys.stdout.flush()
        number = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    except (
        OSError,
        ValueError,
        AttributeError,
    ):  # no files of the system: captured in a test, or an embedding
        _kept = sys.stdout
    else:
        _kept = os.fdopen(number, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    sys.stdout = sys.stderr


def give_back() -> None:
    """Undo `keep_for_answers`, for a program that goes on after the command."""
    global _kept, _before
    if _kept is None or _before is None:
        return
    sys.stdout = _before
    if _kept is not _before:
        _kept.flush()
        os.dup2(_kept.fileno(), _before.fileno())
        _kept.close()
    _kept = _before = None


def forgiving() -> None:
    """Write what the terminal's encoding lacks as an escape, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def reader_has_gone() -> None:
    """After a broken pipe: nothing more is written there, and Python does not complain at its
    end.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (_kept, sys.stdout):
        if stream is not None:
            os.dup2(nowhere, stream.fileno())


def leave(code: int) -> int:
    """End the process with *code*; when imported code left threads running, without waiting for
    them.
    """
    try:
        for stream in (_kept, sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except BrokenPipeError:
        reader_has_gone()
    running = [thread for thread in threading.enumerate() if not thread.daemon]
    if len(running) > 1 and _kept is not None:
        os._exit(code)
    return code
