"""LaunchDarkly's metrics REST API: create, get, list, update, rename, delete, with typed results
and typed errors.

```python
api = MetricsAPI("my-project")
api.create(Metric("checkout.latency", unit="milliseconds", success_criteria="LowerThanBaseline"))
api.get("checkout.latency").last_seen
for metric in api.list(tags=["checkout"]): ...
api.rename("checkout.latency", "Checkout latency")
api.delete("checkout.latency")
```
"""

from __future__ import annotations

from .api import PAGE, MetricsAPI, json_patch
from .bodies import AnyMetric, ClickMetric, PageViewMetric, UrlMatch, metric_body
from .models import Difference, Experiment, RemoteMetric, differences

__all__ = [
    "PAGE",
    "AnyMetric",
    "ClickMetric",
    "Difference",
    "Experiment",
    "MetricsAPI",
    "PageViewMetric",
    "RemoteMetric",
    "UrlMatch",
    "differences",
    "json_patch",
    "metric_body",
]
