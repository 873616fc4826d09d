"""The command line: `ldinstrument plan | apply | metrics | doctor | dev | demo | readout | tail | sweep`.

The one place that may see both halves. Exit codes: 0 nothing to do (or done), 1 failed, 2 wrong usage, 3 there are
changes to apply, 4 code and LaunchDarkly differ in a way that somebody has to decide.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..errors import LDInstrumentError, missing_extra


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: instead of `sys.argv[1:]`.
    """
    try:
        from .app import app
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich", "click"):
            raise
        print(missing_extra("cli", error.name or "typer"), file=sys.stderr)
        return 1
    try:
        app(args=list(sys.argv[1:] if arguments is None else arguments), prog_name="ldinstrument")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1 if exit_.code else 0
    except LDInstrumentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a taken port, a full disk
        print(f"error: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0
