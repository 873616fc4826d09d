"""The catalog of a program, from its code: what importing declares, and what only its text does.

`scan("myapp")` imports the package with all its modules (importing runs their top-level code),
takes what decorators and `catalog.add` put into the default catalog, and reads the source for keys
in function bodies.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from ..metrics.metric import MetricWarning
from ..settings import scan_in_progress
from .collector import Collector, Scan, Undeclared
from .importing import modules
from .source import Use, uses_in

__all__ = ["Scan", "Undeclared", "Use", "scan", "uses_in"]


def scan(targets: str | Sequence[str], *, progress: Callable[[str], None] | None = None) -> Scan:
    """Find out which metrics a program needs.

    Args:
        targets: `myapp` (a package with all its modules, or one module), `path/to/myapp`,
            `path/to/app.py`, or `myapp.metrics:catalog` (a `Catalog` or a list of metrics, taken as
            it is); several may be given.
        progress: told the name of each module before it is imported.

    Raises:
        DefinitionError: a target does not exist, cannot be imported at all, or names no catalog.

    """
    collector = Collector()
    with scan_in_progress(), warnings.catch_warnings():
        # A remark about a metric's name belongs to the plan, not in between.
        warnings.simplefilter("ignore", MetricWarning)
        for target in [targets] if isinstance(targets, str) else targets:
            if ":" in target and not Path(target).exists():
                collector.take_catalog(target)
                continue
            for name, module, path in modules(
                target, collector.unreadable, progress or (lambda _: None)
            ):
                collector.read(name, module, path)
    return collector.result()
