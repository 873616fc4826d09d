"""A package to be scanned, of a name that no other test has."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


_numbers = itertools.count()


@pytest.fixture(name="package")
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Writes a package of a name that no other test has, and returns the name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(**sources: str) -> str:
        name = f"scanned{next(_numbers)}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        for module, source in sources.items():
            path = folder / f"{module.replace('__sub__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            if path.parent != folder:
                (path.parent / "__init__.py").touch()
            path.write_text(textwrap.dedent(source).replace("PACKAGE", name))
        return name

    yield write
    for module in set(sys.modules) - before:
        if module.startswith(("scanned", "program")):
            del sys.modules[module]
