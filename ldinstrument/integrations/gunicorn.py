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

from ..delivery.flushing import flush
from ..diagnostics import guard
from ..sessions.clients import restart_clients
from ..sessions.registry import end_open_sessions
from ..settings import disabled

EXIT_TIMEOUT = 2.0
START_SECONDS = 1.0
"""How long a worker waits for the flags of each client."""


def post_fork(server: Any, worker: Any) -> None:
    """Restart the preloaded clients in a worker: the `ldclient` singleton, and each that has our
    `Plugin` or was given to `attach`.
    """
    if not disabled():
        restart_clients(START_SECONDS)


def worker_exit(server: Any, worker: Any) -> None:
    """End open sessions as abandoned and deliver, for at most 2 seconds."""
    if disabled():
        return
    with guard("gunicorn worker_exit"):
        end_open_sessions("abandoned")
    flush(EXIT_TIMEOUT)
