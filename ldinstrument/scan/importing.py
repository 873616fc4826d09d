"""Importing a program to look at it: a package with all its modules, one module, or a file with its
neighbours.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import DefinitionError, LDInstrumentError

_TESTS = re.compile(r"tests?|test_.*|.*_test|conftest")
Found = tuple[str, ModuleType | None, Path | None]


def modules(
    target: str, unreadable: list[tuple[str, str]], report: Callable[[str], None]
) -> Iterator[Found]:
    """Name, module (None when it was not imported) and source of a target and, for a package, of
    everything below it.

    Args:
        target: a package, a module, or the path of a folder or file.
        unreadable: gets the modules that could not be imported, with the reason.
        report: told the name of each module before it is imported.

    Raises:
        DefinitionError: the target itself does not exist, or cannot be imported.

    """
    path = Path(target)
    report(target)
    if target.endswith(".py"):
        yield from _program(path)
        return
    module = imported(_folder(path) if "/" in target or "\\" in target else target)
    name = module.__name__
    yield name, module, _source(module.__spec__)
    # Whoever does without __init__.py at the top does so below, too.
    for found in _walk(
        getattr(module, "__path__", ()), f"{name}.", getattr(module, "__file__", None) is None
    ):
        report(found.name)
        yield found.name, found.imported(unreadable), _source(found.spec)


@dataclass(frozen=True, slots=True)
class _Module:
    """A module below the target, not imported yet; *plain*: it may be imported to look at it."""

    name: str
    spec: Any
    plain: bool = True

    def imported(self, unreadable: list[tuple[str, str]]) -> ModuleType | None:
        """Import it, where that does no harm; a failure goes to *unreadable*."""
        # Importing __main__ would run the program; a file in a folder that is no package may be a
        # script just as well.
        if self.name.endswith(".__main__") or not (self.plain or self.name in sys.modules):
            return None
        try:
            return _import(self.name)
        except _ImportFailed as error:
            reason = (
                "importing it failed, only its source was read: "
                f"{error}{self._hint(error.__cause__)}"
            )
            unreadable.append((self.name, reason))
            return None

    def _hint(self, cause: BaseException | None) -> str:
        """Hint at a folder of scripts, whose files import each other by bare names."""
        lost = cause.name if isinstance(cause, ModuleNotFoundError) else None
        source = _source(self.spec)
        if lost is None or source is None or not source.with_name(f"{lost}.py").is_file():
            return ""
        return f"; {lost}.py stands beside it: plan the file instead of the folder"


def _walk(
    path: Iterable[str], prefix: str, without_init: bool, plain: bool = True
) -> Iterator[_Module]:
    """Yield the modules in the folders of *path* and below; those of folders without `__init__.py`
    come last.

    Args:
        without_init: whether folders without `__init__.py` are packages here.
        plain: whether the modules are those of a package.

    """
    folders = list(path)
    for info in sorted(pkgutil.iter_modules(folders, prefix), key=lambda info: info.name):
        if _TESTS.fullmatch(info.name.rpartition(".")[2]):
            continue
        finder: Any = info.module_finder
        spec = finder.find_spec(info.name, None)
        yield _Module(info.name, spec, plain)
        if info.ispkg:
            yield from _walk(_folders(info.name, spec), f"{info.name}.", without_init, plain)
    for folder in _bare_folders(folders):
        yield from _walk(
            [str(folder)], f"{prefix}{folder.name}.", without_init, plain and without_init
        )


def _bare_folders(folders: Iterable[str]) -> Iterator[Path]:
    """Folders in *folders* that hold modules although they have no `__init__.py`; `pkgutil` passes
    them over.
    """
    for folder in map(Path, folders):
        for child in sorted(folder.iterdir()) if folder.is_dir() else ():
            named = (
                child.name.isidentifier()
                and child.name != "__pycache__"
                and not _TESTS.fullmatch(child.name)
            )
            if named and child.is_dir() and not (child / "__init__.py").exists():
                yield child


def _folders(name: str, spec: Any) -> Iterable[str]:
    """Where the modules of a sub-package are, also when it could not be imported."""
    loaded = sys.modules.get(name)
    found = getattr(loaded, "__path__", None) if loaded is not None else None
    return list(found or getattr(spec, "submodule_search_locations", None) or ())


def imported(name: str) -> ModuleType:
    """Return the module *name*, imported from the current directory, from `src` in it, or from what
    is installed.

    Raises:
        DefinitionError: there is none, or importing it failed.

    """
    try:
        return _import(name)
    except _ImportFailed as error:
        raise DefinitionError(
            f"{name} cannot be imported: {error}{_hint(name, error.__cause__)}"
        ) from error


def _hint(name: str, cause: BaseException | None) -> str:
    if not isinstance(cause, ModuleNotFoundError) or not cause.name:
        return ""
    if f"{name}.".startswith(f"{cause.name}."):
        return "; is the current directory the right one?"
    return "; is what it needs installed in this environment?"


class _ImportFailed(Exception):  # noqa: N818
    """Importing a module raised, or ended the program."""


def _import(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise _ImportFailed(f"{name!r} is not the name of a module")
    _prepend(Path.cwd())
    top = name.partition(".")[0]
    source = Path.cwd() / "src"
    if top not in sys.modules and ((source / top).is_dir() or (source / f"{top}.py").is_file()):
        # Behind everything else: an installed package comes first, as it does when the program
        # runs.
        _append(source)
    return _guarded(lambda: importlib.import_module(name))


def _guarded(load: Callable[[], ModuleType]) -> ModuleType:
    try:
        return load()
    except _ImportFailed:
        raise
    except LDInstrumentError as error:
        raise _ImportFailed(str(error)) from error
    except (Exception, SystemExit) as error:
        raise _ImportFailed(f"{type(error).__name__}: {error}") from error


# -- by path -------------------------------------------------------------------------------------


def _folder(path: Path) -> str:
    """Return the name that the package in the folder *path* is imported by."""
    if path.is_file():
        raise DefinitionError(f"{path} cannot be imported: it is no Python file")
    if not path.is_dir():
        raise DefinitionError(f"{path} does not exist")
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise DefinitionError(
            f"{path} cannot be imported: name a package, a module or a file in it"
        )
    return _importable(path.resolve())


def _importable(path: Path) -> str:
    """Return the dotted name of the module or package at *path*, with the folder of its top-level
    package on `sys.path`.
    """
    parts = [path.stem if path.suffix == ".py" else path.name]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    _prepend(folder)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _imported_file(path: Path) -> Found:
    """Return a module by its path, under the name that a `python path` next to it would import it
    by.
    """
    if not path.is_file():
        raise DefinitionError(f"{path} does not exist")
    path = path.resolve()
    if (path.parent / "__init__.py").is_file():
        name = _importable(path)
        return name, imported(name), path
    _prepend(path.parent)
    for name, loaded in list(sys.modules.items()):
        if getattr(loaded, "__file__", None) == str(path):
            return name, loaded, path
    # Two programs may both be called app.py, and one may be called like a module of the standard
    # library.
    name = path.stem if path.stem not in sys.modules else f"{path.parent.name}_{path.stem}"
    try:
        return name, _guarded(lambda: _executed(name, path)), path
    except _ImportFailed as error:
        raise DefinitionError(f"{path} cannot be imported: {error}") from error


def _program(path: Path) -> Iterator[Found]:
    """Yield a file, and the modules beside and below it that it imports."""
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


def _append(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.append(str(directory))


def _source(spec: Any) -> Path | None:
    origin = getattr(spec, "origin", None)
    return Path(origin) if isinstance(origin, str) and origin.endswith(".py") else None
