"""The command line: `ldinstrument plan`, `apply`, `metrics`, `doctor`, `dev`, `demo` and others.

The one place that may see both halves. Exit codes: 0 nothing to do (or done), 1 failed, 2 wrong
usage, 3 there are changes to apply, 4 code and LaunchDarkly differ in a way that somebody has to
decide.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..diagnostics import one_line
from ..errors import LDInstrumentError, missing_extra
from . import stdio as streams

LONGEST_REASON = 10_000
READER_GONE = 141
"""What a shell calls the end of a program whose reader has gone (128 + SIGPIPE)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: instead of `sys.argv[1:]`; with them, the process is somebody else's and goes on.

    """
    if arguments is not None:
        try:
            return _run(arguments)
        finally:
            streams.give_back()
    streams.forgiving()
    return streams.leave(_run(sys.argv[1:]))


def _run(arguments: Sequence[str]) -> int:
    try:
        from .app import app
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich", "click"):
            raise
        print(missing_extra("cli", error.name or "typer"), file=sys.stderr)
        return 1
    try:
        app(args=list(arguments), prog_name="ldinstrument")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1 if exit_.code else 0
    except streams.ReaderGone:
        streams.reader_has_gone()
        return READER_GONE
    except LDInstrumentError as error:
        return _failed(str(error))
    except OSError as error:  # a taken port, a full disk
        return _failed(error.strerror or str(error))
    return 0


def _failed(reason: str) -> int:
    print(f"error: {one_line(' '.join(reason.split()), LONGEST_REASON)}", file=sys.stderr)
    return 1
