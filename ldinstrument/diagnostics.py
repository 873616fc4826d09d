"""What the host's developers are told: warnings logged once, bugs of ours, and where they were
caused.

One logger, `ldinstrument`. Nothing here raises into the host, but for `StrictError` under `strict`.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType, MappingProxyType, TracebackType
from typing import Any, ParamSpec, cast

from .errors import StrictError

P = ParamSpec("P")

MOST_WARNINGS = 1000
LONGEST_SUBJECT = 200
LONGEST_LINE = 600
LONGEST_CHAIN = 20
_PACKAGE = str(Path(__file__).resolve().parent)
SIGNALS = ("SIGALRM", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGINT", "SIGVTALRM", "SIGPROF", "SIGXCPU")
"""Signals out of whose handlers programs raise; to ask for all would cost 0.1 ms per error."""
CO_VARARGS = 4
"""The flag of a code object that takes `*args` (`inspect.CO_VARARGS`)."""
_CALLED_AS_OTHERS = ("__init__", "__new__", "__call__", "__enter__", "__exit__")
"""Special methods that are called as others are: what they raise may be a mistake of ours."""
_STANDARD_LIBRARY = str(Path(warnings.__file__).resolve().parent)

log = logging.getLogger("ldinstrument")


class Diagnostics:
    """The table of warnings, by (cause, subject), with its own lock.

    The lock is re-entrant: a finaliser that the garbage collector runs in here may warn, too.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.strict = False
        self._counts: Counter[tuple[str, str]] = Counter()

    def clear(self) -> None:
        """Forget every warning (tests, and a forked child)."""
        with self.lock:
            self._counts = Counter()

    def forked(self) -> None:
        """Begin afresh in a forked child: a thread of the parent may have held the lock."""
        self.lock = threading.RLock()
        self.clear()

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Return how often each warning would have been logged, by (cause, subject)."""
        with self.lock:
            return MappingProxyType(dict(self._counts))

    def count(self, cause: str, subject: str, *, once_per_cause: bool = False) -> bool:
        """Count a warning; tell whether it is the first of its (*cause*, *subject*)."""
        with self.lock:
            # The subject may come from outside (an event key): a cap keeps the table small.
            entry = (cause, subject[:LONGEST_SUBJECT])
            if entry not in self._counts and len(self._counts) >= MOST_WARNINGS:
                entry = (cause, "...")
            known = entry in self._counts
            if once_per_cause:
                known = known or any(counted == cause for counted, _ in self._counts)
            self._counts[entry] += 1
            return not known


diagnostics = Diagnostics()


def warn_once(cause: str, subject: str, message: str, *, once_per_cause: bool = False) -> None:
    """Log *message* once per (*cause*, *subject*), count it always; under `strict`, raise it
    instead.

    Args:
        cause: the kind of warning.
        subject: what it is about.
        message: one line that says what to do.
        once_per_cause: log it for the first subject only.

    Raises:
        StrictError: when `strict` is set, so that a test sees what production would only log.
    """
    if diagnostics.strict:
        raise StrictError(one_line(message))
    if diagnostics.count(cause, subject, once_per_cause=once_per_cause):
        _log(logging.WARNING, one_line(message))


def log_once(cause: str, subject: str, message: str) -> None:
    """Log *message* once per (*cause*, *subject*) and never raise: for threads that nobody waits
    for.

    Under `strict` it is logged each time.
    """
    if diagnostics.strict:
        log.warning("%s", one_line(message))
    else:
        warn_once(cause, subject, message)


def warn_user_code(what: str, error: BaseException, consequence: str) -> None:
    """Log once, with its line, that something which the host gave us raised, and what that
    costs; raises an `interruption`.
    """
    raise_if_interrupted(error)
    place = f" at {_place(error)}" if error.__traceback__ else ""
    warn_once(
        "host", what, f"{what} raised {type(error).__name__}{place}: {consequence}; fix it there"
    )


def log_internal_error(where: str, error: BaseException) -> None:
    """Log a bug of ours, or of an object that we were given, once per place and kind; it must never
    reach the host, but an `interruption` does.
    """
    raise_if_interrupted(error)
    if place := _place_in_odd_object(error):
        log_once(
            "host",
            where,
            f"{where}: an object that was given raised {type(error).__name__} at {place}: it is "
            "left out; fix it there",
        )
        return
    if diagnostics.count(f"internal:{where}", type(error).__name__):
        _log(
            logging.ERROR,
            f"ldinstrument bug in {where}: {type(error).__name__}; some values were not recorded. "
            "Please report this traceback",
            error,
        )


def _place_in_odd_object(error: BaseException) -> str:
    """Return where a special method of an object that is not ours raised *error*, such as
    `__bool__` of a framework's lazy one; empty where nothing of the kind did.
    """
    called, ours = "", False  # what the innermost function of ours has called
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if _is_ours(trace.tb_frame):
            called, ours = "", True
        elif ours and not called and not _is_standard(code.co_filename):
            called = code.co_name
        trace = trace.tb_next
    special = called.startswith("__") and called not in _CALLED_AS_OTHERS
    return _place(error) if special else ""


def _place(error: BaseException) -> str:
    """Return `file:line` of where *error* was raised, which it has been."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _log(level: int, message: str, error: BaseException | None = None) -> None:
    # The text of an exception, and of those that it came from, may hold keys of visitors: the
    # traceback shows where it happened and its kind.
    trace = None if error is None else (type(error), _without_text(error), error.__traceback__)
    try:
        log.log(level, "%s", message, exc_info=trace)
    except Exception as failure:  # a filter or handler of the host's is broken: nowhere to say so
        raise_if_interrupted(failure)


def _without_text(error: BaseException) -> BaseException:
    kind = type(error)
    named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return cast("BaseException", type(kind.__name__, (Exception,), named)())


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """Return *text* as one printable line of bounded length: keys in it may come from outside."""
    half = longest // 2
    short = text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in short
    )


# -- the guard between us and the host -------------------------------------------------------------


def came_by_a_signal(error: BaseException) -> bool:
    """Tell whether a signal's handler raised *error*: a function in its traceback was handed the
    very frame that it interrupted, or is a handler that is installed now.
    """
    trace, installed = error.__traceback__, None
    while trace is not None and (inner := trace.tb_next) is not None:
        frame = inner.tb_frame
        count = frame.f_code.co_argcount
        if count >= 2 or frame.f_code.co_flags & CO_VARARGS:
            if _was_handed(frame, trace.tb_frame):
                return True
            # It may have deleted its arguments (`del signum, frame`).
            installed = _installed_handlers() if installed is None else installed
            if frame.f_code in installed:
                return True
        trace = inner
    return False


def _was_handed(frame: FrameType, other: FrameType) -> bool:
    """Tell whether *frame* was called as a signal's handler is: with a number, then *other*. A
    helper that is given a frame, or a trace function, has no number before it.
    """
    code = frame.f_code
    given = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & CO_VARARGS:
        rest = frame.f_locals.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount])
        given += rest[:2] if type(rest) is tuple else ()
    return any(
        value is other and issubclass(type(number), int) for number, value in pairwise(given)
    )


def _installed_handlers() -> set[CodeType]:
    """Return the code of the handlers of `SIGNALS` that are installed now."""
    found: set[CodeType] = set()
    signal = sys.modules.get("signal")  # not loaded: none is installed
    for number in [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]:
        handler: Any = signal.getsignal(number)  # type: ignore[union-attr]
        while isinstance(handler, functools.partial):
            handler = handler.func
        called = getattr(handler, "__func__", handler)
        if not hasattr(called, "__code__"):
            called = getattr(type(called), "__call__", None)  # noqa: B004 - its code is wanted
        if isinstance(code := getattr(called, "__code__", None), CodeType):
            found.add(code)
    return found


def interruption(error: BaseException) -> BaseException | None:
    """Return the host's exception that only by chance struck while ours was running; None where
    *error* is of our own making.

    That is *error* where a signal's handler raised it: time limits of Celery and RQ are made of
    that. A library in between may have made another error of it, as sockets' callers do of a
    `TimeoutError`: then it is what that was made of.
    """
    passed, trace = set(), error.__traceback__
    while trace is not None:
        passed.add(trace.tb_frame)
        trace = trace.tb_next
    link: BaseException | None = error
    for _ in range(LONGEST_CHAIN):
        # What the host was handling when it called us was not caught further in than here.
        if link is None or link.__traceback__ is None or link.__traceback__.tb_frame not in passed:
            return None
        if came_by_a_signal(link):
            return link
        # Not by `or`: an exception may have a length, or a truth of its own.
        link = link.__context__ if link.__cause__ is None else link.__cause__
    return None


def raise_if_interrupted(error: BaseException) -> None:
    """Raise the `interruption` behind a caught *error*, if it is one."""
    try:
        struck = interruption(error)
    except RecursionError:  # no room to ask
        return
    if struck is not None:
        raise struck


class guard:  # noqa: N801 - used as a statement: with guard("flush"): ...
    """Keep an exception of ours from the host: log it as a bug *where* it happened, and go on.

    `StrictError` passes, and so do an `interruption` and what is no `Exception`. With
    `strict=False` `StrictError` does not: another exception is on its way, which the host must see.
    """

    __slots__ = ("_strict", "_where", "failed")

    def __init__(self, where: str, *, strict: bool = True) -> None:
        self._where = where
        self._strict = strict
        self.failed = False

    def __enter__(self) -> guard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        if self._strict and isinstance(error, StrictError):
            return False
        self.failed = True
        withhold(self._where, error, strict=False)
        return True


def withhold(where: str, error: Exception, *, strict: bool = True) -> None:
    """Keep a caught *error* of ours from the host, as `guard` does.

    For `except Exception as error:` on the ways that every value goes: entering and leaving a
    `guard` costs three calls.

    Args:
        where: it happened.
        error: what was caught.
        strict: whether `StrictError` passes, as with `guard`.

    Raises:
        StrictError: it is one.
        BaseException: it is an `interruption`.
    """
    if strict and isinstance(error, StrictError):
        raise error
    try:
        log_internal_error(where, error)
    except RecursionError:  # at the limit nothing of ours may work
        pass
    except Exception as failure:
        raise_if_interrupted(failure)


def never_raises(method: Callable[P, None]) -> Callable[P, None]:
    """Guard a public *method*; a call with wrong arguments is left out and logged once."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except StrictError:
            raise
        except Exception as error:
            trace = error.__traceback__
            if isinstance(error, TypeError) and trace is not None and trace.tb_next is None:
                # The arguments did not fit: the method itself never began.
                warn_once("wrong_call", method.__name__, f"{error}; the call is left out")
            else:
                log_internal_error(method.__name__, error)

    return call


# -- whose line it is ------------------------------------------------------------------------------


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name == "<string>":  # what `dataclass` has written for one of ours
        return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "ldinstrument"
    return name.startswith((_PACKAGE, "<ldinstrument"))  # the latter: compiled wrappers


def caller_depth() -> int:
    """Return the `stacklevel` of the first frame outside this package, for `warnings.warn`."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back and _is_ours(frame):
        frame, depth = frame.f_back, depth + 1
    return depth


def caller_place() -> str:
    """Return `file:line` of the user's code that called us; empty when there is none.

    That is the first frame outside this package that is not installed or of the standard library
    (Django makes middleware itself); where all are, the first outside this package.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame and _is_ours(frame):
        frame = frame.f_back
    first = frame
    while frame and _is_installed(frame.f_code.co_filename):
        frame = frame.f_back
    found = frame or first
    return f"{found.f_code.co_filename}:{found.f_lineno}" if found else ""


def _is_installed(filename: str) -> bool:
    return _is_of_a_package(filename) or _is_standard(filename)


def _is_of_a_package(filename: str) -> bool:
    return "site-packages" in filename or "dist-packages" in filename


def _is_standard(filename: str) -> bool:
    """Tell whether it is of the standard library, whose folder may hold that of packages, too."""
    standard = filename.startswith((_STANDARD_LIBRARY, "<frozen"))
    return standard and not _is_of_a_package(filename)


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn with the line of the first caller outside this package."""
    warnings.warn(message, category, stacklevel=caller_depth())


def on_event_loop() -> bool:
    """Tell whether this thread is running an event loop, which must not wait."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
