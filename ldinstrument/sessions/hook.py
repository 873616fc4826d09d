"""The SDK's hook for a client whose event processor is not ours.

It sees neither prerequisites nor the version of a flag, so a restarted experiment is not seen.
Loads the SDK: to be imported where a client exists.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from ldclient import hook as theirs
from ldclient.hook import Hook, Metadata

from .evaluations import exposed


class _Passed(dict[str, Any]):
    """The data of an evaluation series, passed on; `AsyncLDClient` of SDK 9.17 and 9.18 awaits
    it.
    """

    def __await__(self) -> Generator[None, None, dict[str, Any]]:
        return self
        yield


class ExposureHook(Hook):
    """Notes the exposures of one client, sync or async.

    Args:
        client: a weak reference to the client; to be given before the first evaluation.
    """

    def __init__(self, client: Any = None) -> None:
        self.client = client
        self.active = True
        """Off where our event processor sees the same exposures, and more."""

    @property
    def metadata(self) -> Metadata:
        """Who is hooked in."""
        return Metadata(name="ldinstrument")

    def before_evaluation(self, series_context: Any, data: Any) -> Any:
        """Date the evaluation before its event."""
        return _Passed(data, ldinstrument=int(time.time() * 1000)) if self.active else _Passed(data)

    def after_evaluation(self, series_context: Any, data: Any, detail: Any) -> Any:
        """Note an exposure."""
        reason = getattr(detail, "reason", None)
        if self.active and isinstance(reason, dict) and reason.get("inExperiment") is True:
            date = data.get("ldinstrument") or int(time.time() * 1000)
            exposed(series_context.key, 0, series_context.context, date, self.client)
        return _Passed(data)


if hasattr(theirs, "AsyncHook"):  # these SDKs let an async client have no other
    theirs.AsyncHook.register(ExposureHook)
