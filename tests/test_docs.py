"""What the documentation names exists: arguments and attributes in its programs, files, targets."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ldinstrument as ld

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/*/*.md"),
        *ROOT.glob("skills/**/*.md"),
    ]
)
# A snippet leaves out what a reader knows; an argument that does not exist is never right.
MISTAKES = ("call-arg", "attr-defined", "arg-type", "call-overload")


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def programs(page: Path) -> list[str]:
    """The fenced Python of *page* that parses by itself; a list of single lines does not."""
    found = []
    for block in re.findall(r"```python\n(.*?)```", text(page), re.DOTALL):
        try:
            compile(block, str(page), "exec", flags=0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT
        except SyntaxError:
            continue
        found.append(block)
    return found


def mistakes(folder: Path) -> list[str]:
    """What mypy says about the programs in *folder*, but for what a snippet leaves out."""
    pytest.importorskip("mypy", reason="mypy comes with `make check`")
    command = [sys.executable, "-m", "mypy", "--config-file=", "--ignore-missing-imports"]
    command += ["--check-untyped-defs", "--cache-dir", str(folder / "cache")]
    done = subprocess.run(
        [*command, *sorted(map(str, folder.glob("*.py")))],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [
        line
        for line in done.stdout.splitlines()
        if line.endswith(tuple(f"[{m}]" for m in MISTAKES))
    ]


def test_no_program_in_the_docs_uses_an_argument_that_does_not_exist(tmp_path: Path) -> None:
    """Of any page; a program with a wrong argument beside them is noticed."""
    for page in PAGES:
        for number, program in enumerate(programs(page)):
            name = f"{page.parent.name}_{page.stem}_{number}".replace("-", "_").replace(".", "_")
            (tmp_path / f"{name}.py").write_text(program, encoding="utf-8")
    assert len(list(tmp_path.glob("*.py"))) > 25
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import ldinstrument as ld\nld.session('u', nmae='chat')\n", encoding="utf-8")

    found = mistakes(tmp_path)

    assert [line for line in found if line.startswith("wrong.py:2:")]
    assert [line for line in found if not line.startswith("wrong.py:")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_target_of_a_page_exists(page: Path) -> None:
    """Files that are linked, and what `make` is asked for."""
    targets = set(re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), re.MULTILINE))
    asked = set(re.findall(r"`make ([a-z-]+)", text(page)))
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text(page))
    local = [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]

    assert asked <= targets
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_dotted_name_of_a_page_can_be_imported(page: Path) -> None:
    """Modules, classes and functions below `ldinstrument`."""
    names = set(re.findall(r"`(ldinstrument(?:\.[A-Za-z_]\w*)+)", text(page)))
    packages = {path.name for path in (ROOT / "ldinstrument").iterdir() if path.is_dir()}
    modules = packages | {path.stem for path in (ROOT / "ldinstrument").glob("*.py")}
    ours = {
        name for name in names if name.split(".")[1] in modules or hasattr(ld, name.split(".")[1])
    }

    assert [name for name in ours if not importable(name)] == []


def importable(name: str) -> bool:
    """Whether a module or an attribute of one is called *name*."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found is not None
    return False
