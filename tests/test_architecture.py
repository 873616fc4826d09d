"""The layers: imports point down, module by module; importing us is cheap; the API is one list."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ldinstrument

ROOT = Path(ldinstrument.__file__).parent

# Layer by layer, lowest first: (runtime, control). A module imports from lower layers and from its
# own folder; within a layer, only what ORDER allows. Control and runtime share layer 1, `callables`
# and `metrics`.
LAYERS: list[tuple[set[str], set[str]]] = [
    (
        {
            "errors",
            "settings",
            "diagnostics",
            "ledger",
            "backoff",
            "imports",
            "process",
            "sdk",
            "values",
        },
        set(),
    ),
    ({"callables", "metrics"}, {"analysis"}),
    ({"sessions"}, {"rest"}),
    ({"tasks", "delivery"}, {"plans", "devserver"}),
    ({"stores", "ai", "otel"}, {"doctor", "scan"}),
    (
        {"cli", "demo", "integrations", "tracker", "testing", "pytest_plugin", "__main__"},
        set(),
    ),
]
SHARED = LAYERS[0][0] | {"metrics"}
SEES_BOTH = {"cli", "demo", "__main__", "pytest_plugin"}
# Who may import whom inside one layer; transitively closed by hand, so that it cannot hide a cycle.
ORDER = {
    ("values", "errors"),
    ("ledger", "values"),
    ("settings", "errors"),
    ("diagnostics", "errors"),
    ("process", "diagnostics"),
    ("sdk", "settings"),
    ("process", "imports"),
    ("ledger", "process"),
    ("callables", "metrics"),
    ("ai", "stores"),
    ("otel", "ai"),
    ("doctor", "scan"),
    ("integrations", "tracker"),
    ("pytest_plugin", "testing"),
    ("demo", "integrations"),
    ("cli", "demo"),
    ("__main__", "cli"),
}


def layer(name: str) -> int:
    return next(
        level for level, (runtime, control) in enumerate(LAYERS) if name in runtime | control
    )


def is_control(name: str) -> bool:
    return any(name in control for _, control in LAYERS)


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
MODULES = {dotted(path) for path in FILES}


def folder(module: str) -> str:
    return module.split(".")[0]


def nearest_module(name: str) -> str | None:
    """The module that *name* is, or is a member of; None when it is none of ours."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def imported_names(path: Path, node: ast.AST) -> Iterator[str]:
    """Dotted names under the package, also of imports in functions and under TYPE_CHECKING."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    if isinstance(node, ast.ImportFrom) and node.level:
        base = list(package[: len(package) - node.level + 1])
        base += node.module.split(".") if node.module else []
        yield from (".".join([*base, alias.name]) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ldinstrument"):
        module = (node.module or "").removeprefix("ldinstrument").removeprefix(".")
        yield from (f"{module}.{alias.name}".removeprefix(".") for alias in node.names)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] == "ldinstrument":
                yield alias.name.removeprefix("ldinstrument").removeprefix(".")


def imports(path: Path) -> set[str]:
    """The modules of ours that *path* imports."""
    own = dotted(path)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for name in imported_names(path, node):
            target = nearest_module(name)
            if target is not None and target != own:
                found.add(target)
    return found


GRAPH = {dotted(path): imports(path) for path in FILES}


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_point_down(module: str) -> None:
    """To lower layers only; runtime never meets control above layer 2."""
    own = folder(module)
    for target in {folder(name) for name in GRAPH[module]} - {own}:
        below = layer(target) < layer(own) or (own, target) in ORDER
        assert below, f"{module} imports upwards or sideways: {target}"
        if own in SEES_BOTH:
            continue
        if is_control(own):
            assert is_control(target) or target in SHARED, f"{module} reaches into the runtime"
        else:
            assert not is_control(target), f"{module} reaches into control: {target}"


# The folders of the local LaunchDarkly, lowest first; its own modules are below and above them.
DEVSERVER = ("events", "flags", "readout", "api", "page")


@pytest.mark.parametrize(
    "module",
    [
        name
        for name in sorted(GRAPH)
        if name.startswith(tuple(f"devserver.{own}." for own in DEVSERVER))
    ],
)
def test_folders_of_the_local_launchdarkly_point_down(module: str) -> None:
    """From the page to the events that arrive."""
    own = DEVSERVER.index(module.split(".")[1])
    used = {name.split(".")[1] for name in GRAPH[module] if name.startswith("devserver.")}
    assert used.isdisjoint(DEVSERVER[own + 1 :])


def cycle_through(start: str, graph: dict[str, set[str]]) -> list[str]:
    """A way from *start* back to it; empty when there is none."""
    ways = [[start]]
    seen = {start}
    while ways:
        way = ways.pop()
        for target in graph.get(way[-1], ()):
            if target == start:
                return [*way, start]
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return []


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_no_module_is_in_an_import_cycle(module: str) -> None:
    """Type-only imports and imports inside functions count, and so do those inside one folder."""
    # A package's `__init__` names its modules lazily; what reads it is no tie of its own.
    graph = {name: {t for t in targets if t != folder(name)} for name, targets in GRAPH.items()}
    assert cycle_through(module, graph) == []


def test_a_cycle_is_found() -> None:
    """Also a long one that begins elsewhere."""
    assert cycle_through("a", {"a": {"b"}, "b": {"c"}, "c": {"b", "a"}}) in (["a", "b", "c", "a"],)
    assert cycle_through("a", {"a": {"b"}, "b": {"c"}, "c": {"b"}}) == []


def private_reaches(path: Path) -> list[str]:
    """Private members of other files: `from x import _y`, `module._y`, `other._y`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = {
        name
        for node in ast.walk(tree)
        for name in (
            [node.attr]
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            else [node.name]
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            else [node.target.id]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            else [target.id for target in node.targets if isinstance(target, ast.Name)]
            if isinstance(node, ast.Assign)
            else []
        )
    }
    slots = {
        constant.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == "__slots__" for t in node.targets)
        for constant in ast.walk(node.value)
        if isinstance(constant, ast.Constant)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            found += [
                f"{node.lineno}: import {alias.name}"
                for alias in node.names
                if alias.name.startswith("_") and not alias.name.startswith("__")
            ]
        elif (
            isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
            and node.attr not in defined | slots | FOREIGN_PRIVATE
            and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        ):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


# Members of the standard library that begin with an underscore and have no public spelling.
FOREIGN_PRIVATE = {"_get_running_loop", "_current_frames", "_getframe", "_exit", "_value_", "_exception",
    "_get_current_object"}  # fmt: skip


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_no_private_member_of_another_file_is_touched(module: str) -> None:
    """But in `sdk.py`, the one place that knows the LaunchDarkly SDK's."""
    path = next(path for path in FILES if dotted(path) == module)
    if path.name != "sdk.py":
        assert private_reaches(path) == []


def test_no_class_name_exists_twice() -> None:
    """A name that is read in a log or a traceback leads to one file."""
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name.lstrip("_"), []).append(dotted(path))
    # The middleware has one name in each framework's own module, where users look for it.
    homes.pop("SessionMiddleware")
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_packages_of_the_runtime_export_no_name() -> None:
    """`metrics/`, `sessions/`, `tasks/`, `callables/` are folders: one docstring, nothing else."""
    for name in ("metrics", "sessions", "tasks", "callables"):
        tree = ast.parse((ROOT / name / "__init__.py").read_text(encoding="utf-8"))
        assert len(tree.body) == 1
        assert ast.get_docstring(tree)


def test_importing_us_loads_nothing_heavy() -> None:
    """No SDK, no HTTP, no wrapt, no OpenTelemetry, no framework, no asyncio; also after a task was
    decorated.
    """
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
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_the_public_api_is_one_sorted_list() -> None:
    """Every name in it resolves, has a docstring, and none equals a submodule's."""
    assert sorted(ldinstrument.__all__) == ldinstrument.__all__
    assert set(ldinstrument._HOMES) == set(ldinstrument.__all__)
    modules = {path.stem for path in ROOT.glob("*.py")} | {
        path.parent.name for path in ROOT.glob("*/__init__.py")
    }
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


def test_a_loop_names_the_thing() -> None:
    """`for one in events` says less than `for event in events`; in tests, too."""
    nameless = [
        f"{path.name}: {found}"
        for folder in (ROOT, Path(__file__).parent)
        for path in folder.rglob("*.py")
        for found in re.findall(r"\bfor (?:\w+, )*one in \S+", path.read_text(encoding="utf-8"))
        if path != Path(__file__)
    ]
    assert nameless == []


# Protocols alone: nothing in it can be wrong.
UNTESTED = {"sessions.observers"}
TESTS = Path(__file__).parent


def places_of_tests(module: str) -> list[Path]:
    """Where the tests of *module* may lie."""
    *folders, name = module.split(".")
    places = [TESTS.joinpath(*folders), TESTS.joinpath("control", *folders)]
    files = [place / f"test_{name}.py" for place in places]
    if len(folders) == 2:  # a small folder in a folder, such as integrations/aws_lambda
        files.append(TESTS / folders[0] / f"test_{folders[1]}_{name}.py")
    return files


@pytest.mark.parametrize(
    "module",
    sorted(dotted(path) for path in FILES if path.name not in ("__init__.py", "__main__.py")),
)
def test_the_tests_of_a_module_have_its_name(module: str) -> None:
    """So that who changes a module finds what holds it."""
    assert module in UNTESTED or any(file.is_file() for file in places_of_tests(module))
