"""The jobs of `test_rq.py`; RQ's work horse imports this module, or inherits it from the worker."""

from __future__ import annotations

import ldclient

import ldinstrument as ld

# Nothing leaves by itself: whatever arrives was sent at the end.
ldclient.set_config(ld.launchdarkly_config("sdk-local", events_only=True, flush_interval=300))
ldclient.get()


@ld.session(context=lambda user, fails=False: user, name="job")
def work(user: str, fails: bool = False) -> None:
    """Record something, and fail on request."""
    ld.track_conversion(2.0)
    if fails:
        raise ValueError("broken on purpose")
