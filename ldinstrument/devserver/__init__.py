"""A local LaunchDarkly: metrics API, event intake, flag delivery, read-out and a live page, on
loopback.

It is made for development and for tests, and proves itself with LaunchDarkly's own clients. Nothing
here loads a web framework until a server is started (`pip install 'ldinstrument[dev]'`).

```python
with LocalLaunchDarkly(flags=[experiment_flag("new-prompt", [False, True])]) as ld:
    ...                                   # point an SDK at ld.url
    ld.wait_for(lambda: ld.custom_events("session.duration"))
```
"""

from __future__ import annotations

from .flags import experiment_flag, simple_flag
from .server import LocalLaunchDarkly
from .standalone import serve

__all__ = ["LocalLaunchDarkly", "experiment_flag", "serve", "simple_flag"]
