"""Importing a program to look at it: a package with all its modules, one module, or a file with its neighbours."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import DefinitionError, LDInstrumentError
from ..metrics import MetricWarning

_TESTS = re.compile(r"tests?|test_.*|.*_test|conftest")


def modules(target: str, unreadable: list[tuple[str, str]]) -> Iterator[tuple[str, ModuleType | None, Path | None]]:
    """Name, module (None when importing failed) and source of a target and, for a package, of everything below it.

    Args:
        target: a package, a module, or the path of a file.
        unreadable: gets the modules that could not be imported, with the reason.

    Raises:
        DefinitionError: the target itself does not exist, or cannot be imported.
    """
    if target.endswith(".py") or "/" in target or "\\" in target:
        yield from _program(Path(target))
        return
    module = imported(target)
    yield target, module, _source(module.__spec__)
    if not hasattr(module, "__path__"):
        return
    for info in _walk(module.__path__, f"{target}."):
        # Importing it would run the program.
        runs = info.name.rpartition(".")[2] == "__main__"
        found = None if runs else _tried(info.name, unreadable)
        yield info.name, found, _source(_spec(info))


def _walk(path: Iterable[str], prefix: str) -> Iterator[pkgutil.ModuleInfo]:
    for info in sorted(pkgutil.iter_modules(path, prefix), key=lambda info: info.name):
        if _TESTS.fullmatch(info.name.rpartition(".")[2]):
            continue
        yield info
        if info.ispkg:
            yield from _walk(_folders(info), f"{info.name}.")


def _folders(info: pkgutil.ModuleInfo) -> Iterable[str]:
    """Where the modules of a sub-package are, also when it could not be imported."""
    loaded = sys.modules.get(info.name)
    found = getattr(loaded, "__path__", None) if loaded is not None else None
    return list(found or getattr(_spec(info), "submodule_search_locations", None) or ())


def _spec(info: pkgutil.ModuleInfo) -> Any:
    finder: Any = info.module_finder
    return finder.find_spec(info.name, None)


def _tried(name: str, unreadable: list[tuple[str, str]]) -> ModuleType | None:
    try:
        return _import(name)
    except _ImportFailed as error:
        unreadable.append((name, f"importing it failed, only its source was read: {error}"))
        return None


def imported(name: str) -> ModuleType:
    """The module *name*, imported from the current directory or from what is installed.

    Raises:
        DefinitionError: there is none, or importing it failed.
    """
    try:
        return _import(name)
    except _ImportFailed as error:
        raise DefinitionError(f"{name} cannot be imported: {error}; is the current directory the right one?") from error


class _ImportFailed(Exception):  # noqa: N818
    """Importing a module raised, or ended the program."""


def _import(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise _ImportFailed(f"{name!r} is not the name of a module")
    _prepend(Path.cwd())
    return _guarded(lambda: importlib.import_module(name))


def _guarded(load: Callable[[], ModuleType]) -> ModuleType:
    with warnings.catch_warnings():
        # A warning about a metric's name belongs to the plan's remarks, not in between.
        warnings.simplefilter("ignore", MetricWarning)
        try:
            return load()
        except _ImportFailed:
            raise
        except LDInstrumentError as error:
            raise _ImportFailed(str(error)) from error
        except (Exception, SystemExit) as error:
            raise _ImportFailed(f"{type(error).__name__}: {error}") from error


def _imported_file(path: Path) -> tuple[str, ModuleType, Path]:
    """A module by its path, under the name that a `python path` next to it would import it by."""
    if not path.is_file():
        raise DefinitionError(f"{path} does not exist")
    path = path.resolve()
    _prepend(path.parent)
    for name, loaded in list(sys.modules.items()):
        if getattr(loaded, "__file__", None) == str(path):
            return name, loaded, path
    # Two programs may both be called app.py, and one may be called like a module of the standard library.
    name = path.stem if path.stem not in sys.modules else f"{path.parent.name}_{path.stem}"
    try:
        return name, _guarded(lambda: _executed(name, path)), path
    except _ImportFailed as error:
        raise DefinitionError(f"{path} cannot be imported: {error}") from error


def _program(path: Path) -> Iterator[tuple[str, ModuleType | None, Path | None]]:
    """A file, and the modules beside and below it that it imports."""
    before = set(sys.modules)
    yield _imported_file(path)
    folder = path.resolve().parent
    for name in sorted(set(sys.modules) - before):
        module = sys.modules[name]
        source = _source(module.__spec__) if isinstance(module, ModuleType) else None
        if source is None or source == path.resolve() or "site-packages" in source.parts:
            continue
        if folder in source.resolve().parents:
            yield name, module, source


def _executed(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _ImportFailed("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _prepend(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _source(spec: Any) -> Path | None:
    origin = getattr(spec, "origin", None)
    return Path(origin) if isinstance(origin, str) and origin.endswith(".py") else None
