"""Load public names when they are first used, and keep forks away from imports that are under way.

A child would inherit the lock of an import on another thread, held for ever by a thread that it has
not, and wait for it with its first use of the library. So a fork waits until no other thread
imports what we need; this module is loaded with the package.

Hooks run before a fork the latest registered first, and some take locks that an import may need:
`logging` does, so it is imported first, and `process` waits here before it calls hooks of ours.
"""

from __future__ import annotations

import importlib
import logging  # noqa: F401 - see above
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

LONGEST_WAIT = 5.0
NEEDED = frozenset(
    {
        "asyncio",
        "encodings",
        "ldclient",
        "ldinstrument",
        "opentelemetry",
        "requests",
        "sqlite3",
        "urllib3",
        "wrapt",
    }
)


def public_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of *package*, which loads a public name from its module at first
    use.

    Args:
        package: its `__name__`.
        homes: the module of each name, relative to the package.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{homes[name]}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    return load


def wait_for_imports() -> None:
    """Wait until no other thread holds the lock of an import of ours, for `LONGEST_WAIT`
    seconds.
    """
    deadline = time.monotonic() + LONGEST_WAIT
    while imported_by_others() and time.monotonic() < deadline:
        time.sleep(0.001)


def imported_by_others() -> list[str]:
    """Return the modules that we need and that other threads are importing."""
    # The locks are importlib's own; where a version of Python has them no more, nobody waits.
    locks = getattr(getattr(importlib, "_bootstrap", None), "_module_locks", {})
    me = threading.get_ident()
    found = []
    for name, reference in list(locks.items()):
        owner = getattr(reference(), "owner", None)
        if owner not in (None, me) and name.partition(".")[0] in NEEDED:
            found.append(name)
    return found


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=wait_for_imports)
