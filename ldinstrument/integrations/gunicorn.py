"""Hooks for gunicorn: name them in `gunicorn.conf.py` and nothing is lost at a fork or at the end
of a worker.

```python
from ldinstrument.integrations.gunicorn import post_fork, worker_exit
```

With `--preload` the client is made before the fork. Its event processor begins afresh in each
worker by itself; its flags do not, so `post_fork` calls the SDK's `postfork()`, too.
"""

from __future__ import annotations

from typing import Any

from .. import sdk
from ..delivery.flushing import flush
from ..diagnostics import log_internal_error
from ..sessions.registry import end_open_sessions
from ..settings import disabled

EXIT_TIMEOUT = 2.0


def post_fork(server: Any, worker: Any) -> None:
    """Bring the preloaded `ldclient` singleton to life in a worker: its flags, its hooks, its
    events.
    """
    client = None if disabled() else sdk.singleton_client()
    if client is None or not hasattr(client, "postfork"):
        return
    try:
        client.postfork(start_wait=1)
    except Exception as error:
        log_internal_error("gunicorn post_fork", error)


def worker_exit(server: Any, worker: Any) -> None:
    """End open sessions as abandoned and deliver, for at most 2 seconds."""
    if disabled():
        return
    try:
        end_open_sessions("abandoned")
    except Exception as error:
        log_internal_error("gunicorn worker_exit", error)
    flush(EXIT_TIMEOUT)
