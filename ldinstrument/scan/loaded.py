"""Which standard metrics the modules use that are loaded in this process."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ..diagnostics import guard
from ..metrics.standard import STANDARD_METRICS
from .collector import Collector

_PACKAGE = __name__.partition(".")[0]
_INSTALLED = tuple(
    path
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
    for path in (sysconfig.get_path(name), os.path.realpath(sysconfig.get_path(name)))
)


def standard_metrics_in_use() -> set[str] | None:
    """Return the keys of those standard metrics that the loaded modules use, by their source.

    Returns:
        None when the source of a module that uses us cannot be read.
    """
    with guard("reading the loaded modules"):
        return _in_use()
    return None


def _in_use() -> set[str] | None:
    wanted = {metric.key for metric in STANDARD_METRICS}
    used: set[str] = set()
    for name, module in _modules_that_use_us():
        if wanted <= used:
            break
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py") or not Path(file).is_file():
            return None
        collector = Collector()
        collector.read(name, module, Path(file))
        if any(place == file for place, _ in collector.unreadable):
            return None
        used |= {metric.key for metric in collector.found()} & wanted
    return used


def _modules_that_use_us() -> Iterator[tuple[str, ModuleType]]:
    modules = [pair for pair in list(sys.modules.items()) if type(pair[1]) is ModuleType]
    ours = [module for name, module in modules if _is_ours(name)]
    objects = {id(module) for module in ours} | {
        id(value)
        for module in ours
        for value in list(vars(module).values())
        if _is_made_here(value)
    }
    seen: set[int] = set()
    for name, module in modules:
        if _is_ours(name) or id(module) in seen:
            continue
        seen.add(id(module))
        names_us = any(id(value) in objects for value in list(vars(module).values()))
        if names_us or _mentions_us(module):
            yield name, module


def _is_ours(name: str) -> bool:
    return name == _PACKAGE or name.startswith(f"{_PACKAGE}.")


def _is_made_here(value: Any) -> bool:
    """Tell whether it is a function, a class or a decorator of ours."""
    if isinstance(value, (type, FunctionType)):
        return _is_ours(value.__module__ or "")
    return type(value).__name__.endswith("Decorator") and _is_ours(type(value).__module__)


def _mentions_us(module: ModuleType) -> bool:
    """Tell whether a function of the user's own code imports us: its module's names do not show."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py") or file.startswith(_INSTALLED):
        return False
    try:
        return _PACKAGE.encode() in Path(file).read_bytes()
    except OSError:
        return False
