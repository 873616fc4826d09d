"""The evaluation hook: what the current session saw, and for which context.

LaunchDarkly counts an event only for a context that was exposed before it. So a session emits what
it holds before a flag's first evaluation, and takes its identity from the evaluations that are
exposures (`inExperiment`).
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from typing import Any

from ..diagnostics import log_internal_error
from .current import concerned, current_session


@functools.lru_cache(maxsize=1)
def hook() -> Any:
    """The hook for `LDClient.add_hook` or `Config(hooks=[...])`; one for the whole process."""
    return _made()


def before(flag_key: str, context: Any) -> None:
    """Note that *flag_key* is about to be evaluated for *context*."""
    try:
        for session in concerned():
            session.before_evaluation(flag_key, context)
    except Exception as error:
        log_internal_error("exposure", error)


def after(context: Any, detail: Any) -> None:
    """Note the result of an evaluation for *context*; only an exposure gives the session an
    identity.
    """
    try:
        session = current_session()
        reason = getattr(detail, "reason", None)
        exposed = isinstance(reason, dict) and reason.get("inExperiment") is True
        while exposed and session is not None:
            knew = session.knows_who
            session.adopt(context)
            # A request around a chat that did not know who it is learns it, too; what knows shields
            # what is around it.
            session = None if knew else session.outer
    except Exception as error:
        log_internal_error("exposure", error)


class _Passed(dict[str, Any]):
    """The data of an evaluation series, passed on unchanged; `AsyncLDClient` of SDK 9.17 and 9.18
    awaits it.
    """

    def __await__(self) -> Generator[None, None, dict[str, Any]]:
        return self
        yield


def _made() -> Any:
    from ldclient import hook as theirs
    from ldclient.hook import Hook, Metadata

    class ExposureHook(Hook):
        """Tells the current session of evaluations, by a sync client or an async one."""

        @property
        def metadata(self) -> Metadata:
            """Who is hooked in."""
            return Metadata(name="ldinstrument")

        def before_evaluation(self, series_context: Any, data: Any) -> Any:
            """Before: no fold may cross the exposure."""
            before(series_context.key, series_context.context)
            return _Passed(data)

        def after_evaluation(self, series_context: Any, data: Any, detail: Any) -> Any:
            """After: an exposure says who this is."""
            after(series_context.context, detail)
            return _Passed(data)

    if hasattr(theirs, "AsyncHook"):  # these SDKs let an async client have no other
        theirs.AsyncHook.register(ExposureHook)
    return ExposureHook()
