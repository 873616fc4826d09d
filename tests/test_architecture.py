"""The house: imports point down, importing us is cheap, and the public API is one list."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ldinstrument

ROOT = Path(ldinstrument.__file__).parent

# Lower rungs first; a module may import from its own rung's package or from lower rungs.
RUNGS = [
    {"errors", "naming", "shapes"},
    {"ledger"},
    {"metrics"},
    {"data", "sdk"},
    {"contexts", "outcomes", "measurements"},
    {"rollups"},
    {"emission", "summaries"},
    {"strays", "accumulator"},
    {"registry"},
    {"sessions"},
    {"following", "decorating", "exposure", "patterns"},
    {"runs", "threads"},
    {"scopes", "tasks"},
    {"delivery", "otel", "ai"},
    {"stores"},
    {"tracker", "testing", "integrations"},
    {"pytest_plugin"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
CONTROL = {"credentials", "rest", "plans", "scan", "doctor", "devserver"}
CONTROL_MAY_USE = {"errors", "naming", "ledger", "metrics"} | CONTROL


def rung(name: str) -> int | None:
    return next((level for level, names in enumerate(RUNGS) if name in names), None)


def room(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The rooms of ours that *path* imports, also inside functions; `if TYPE_CHECKING` does not run."""
    found: set[str] = set()
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.ImportFrom) and child.level:
                base = list(package[: len(package) - child.level + 1])
                base += child.module.split(".") if child.module else []
                found.update([base[0]] if base else [alias.name for alias in child.names])
            elif isinstance(child, (ast.Import, ast.ImportFrom)):
                names = [a.name for a in child.names] if isinstance(child, ast.Import) else [child.module or ""]
                for name in names:
                    assert name != "ldinstrument", f"{path.name} imports the package root"
                    if name.startswith("ldinstrument."):
                        found.add(name.split(".")[1])
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    """Runtime never reaches into control, control never into sessions, and nobody upwards."""
    own = room(path)
    others = imports(path) - {own}
    if own in CONTROL:
        assert others <= CONTROL_MAY_USE
        return
    level = rung(own)
    assert level is not None, f"{own} has no rung: give it one in RUNGS"
    for other in others:
        if own in {"cli", "demo", "__main__"}:
            continue
        assert other not in CONTROL, f"{own} reaches into control: {other}"
        below = rung(other)
        assert below is not None and below < level, f"{own} imports upwards: {other}"


def test_no_import_cycle() -> None:
    """Between modules, at import time."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        graph.setdefault(room(path), set()).update(imports(path) - {room(path)})
    state: dict[str, int] = {}

    def walk(node: str) -> None:
        state[node] = 1
        for target in graph.get(node, ()):
            assert state.get(target) != 1, f"cycle through {node} and {target}"
            if target not in state:
                walk(target)
        state[node] = 2

    for node in graph:
        if node not in state:
            walk(node)


def test_importing_us_loads_nothing_heavy() -> None:
    """No SDK, no HTTP, no wrapt, no OpenTelemetry, no framework, no asyncio; also after a task was decorated."""
    program = (
        "import sys, ldinstrument as ld\n"
        "before = set(sys.modules)\n"
        "@ld.track_task('a.b')\n"
        "def f(): return 1\n"
        "ld.catalog, ld.Metric, ld.session, f()\n"
        "heavy = {'ldclient', 'requests', 'wrapt', 'opentelemetry', 'starlette', 'uvicorn', 'flask', 'django', "
        "'asyncio', 'typer', 'rich', 'sqlite3', 'redis'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_public_api_is_one_sorted_list() -> None:
    """Every name in it resolves, has a docstring, and none equals a submodule's."""
    assert sorted(ldinstrument.__all__) == ldinstrument.__all__
    assert set(ldinstrument._HOME) == set(ldinstrument.__all__)
    modules = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    for name in ldinstrument.__all__:
        assert getattr(ldinstrument, name) is not None
        assert name not in modules
        assert getattr(ldinstrument, name).__doc__
    assert set(dir(ldinstrument)) == set(ldinstrument.__all__)
    with pytest.raises(AttributeError):
        _ = ldinstrument.nothing_of_the_kind  # type: ignore[attr-defined]


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    """A file is a noun."""
    assert not {"utils", "helpers", "common", "base", "misc"} & {path.stem for path in FILES}
