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
from ..diagnostics import guard
from ..sessions.registry import end_open_sessions
from ..settings import disabled

EXIT_TIMEOUT = 2.0


def post_fork(server: Any, worker: Any) -> None:
    """Restart the preloaded `ldclient` singleton in a worker: its flags, its hooks, its events."""
    client = None if disabled() else sdk.singleton_client()
    if client is None or not hasattr(client, "postfork"):
        return
    with guard("gunicorn post_fork"):
        client.postfork(start_wait=1)


def worker_exit(server: Any, worker: Any) -> None:
    """End open sessions as abandoned and deliver, for at most 2 seconds."""
    if disabled():
        return
    with guard("gunicorn worker_exit"):
        end_open_sessions("abandoned")
    flush(EXIT_TIMEOUT)
