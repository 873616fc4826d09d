"""Importing a program to look at it: packages, folders, files, and what cannot be imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from scanned import keys, runs

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.errors import DefinitionError
from ldinstrument.scan import scan
from ldinstrument.sessions.registry import stats


def test_modules_of_tests_are_left_out(package: Callable[..., str]) -> None:
    """What only tests record, LaunchDarkly needs not know; and their imports may not even be
    installed.
    """
    task = "import ldinstrument as ld\n@ld.track_task('{}')\ndef f(): ..."
    name = package(
        app=task.format("app"),
        tests__sub__test_app=task.format("tests"),
        test_more=task.format("more"),
        conftest=task.format("conftest"),
    )
    found = scan(name)
    assert keys(found) == runs("app")
    assert scan(f"{name}.test_more").modules == (f"{name}.test_more",)


def test_a_module_that_cannot_be_imported_is_still_read(package: Callable[..., str]) -> None:
    """Reported with the reason; its literals count, and a __main__ is never run."""
    name = package(
        good="import ldinstrument as ld\n@ld.track_task('good')\ndef f(): ...",
        bad="""
            import ldinstrument as ld
            import no_such_library
            KEY = "bad.key"

            @ld.track_task(KEY)
            def f(): ...
        """,
        exits="import sys; sys.exit('no configuration')",
        broken="def (",
        __main__="import ldinstrument as ld\nraise RuntimeError\n@ld.track_task('main.work')\ndef f(): ...",
        sub__sub__deep="from ldinstrument import track_task\n@track_task('deep')\ndef f(): ...",
    )
    found = scan(name)
    assert keys(found) == runs("good", "bad.key", "main.work", "deep")
    reasons = {where: why for where, why in found.unreadable if not where.endswith(".py")}
    assert "no_such_library" in reasons[f"{name}.bad"]
    assert "no configuration" in reasons[f"{name}.exits"]
    assert "SyntaxError" in reasons[f"{name}.broken"]
    assert len(found.unreadable) == 4


def test_a_sub_package_that_cannot_be_imported_is_still_read(
    package: Callable[..., str], tmp_path: Path
) -> None:
    """Its __init__ fails, so its modules cannot be imported either; their literals count."""
    name = package(
        sub__sub__inner="import ldinstrument as ld\n@ld.track_task('inner')\ndef f(): ..."
    )
    (tmp_path / name / "sub" / "__init__.py").write_text("import no_such_library")
    found = scan(name)
    assert keys(found) == runs("inner")
    assert [where for where, _ in found.unreadable] == [f"{name}.sub", f"{name}.sub.inner"]


def test_one_module_of_a_package(package: Callable[..., str]) -> None:
    """Only the named one, and what it imports."""
    name = package(
        a="import ldinstrument as ld\n@ld.track_task('a')\ndef f(): ...",
        b="import ldinstrument as ld\n@ld.track_task('b')\ndef f(): ...",
    )
    assert keys(scan(f"{name}.a")) == runs("a")
    assert keys(scan([f"{name}.a", f"{name}.b"])) == runs("a", "b")


def test_folders_without_init(package: Callable[..., str], tmp_path: Path) -> None:
    """Python imports them as packages, so their code runs; a script in one is read and not run."""
    name = package(a="import ldinstrument as ld\n@ld.track_task('a')\ndef f(): ...")
    for folder, text in {
        f"{name}/handlers": "import ldinstrument as ld\nimport not_there\n@ld.track_task('bare')\ndef f(): ...",
        f"{name}/handlers/deep": "import ldinstrument as ld\ndef f():\n    with ld.track_task('bare.deep'): ...",
        f"{name}/empty": "",
        f"{name}/tests": "import ldinstrument as ld\n@ld.track_task('of.a.test')\ndef f(): ...",
    }.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").write_text(text)
    found = scan(name)
    assert keys(found) == runs("a", "bare", "bare.deep")
    assert found.unreadable == ()


def test_a_namespace_package_has_modules_below(package: Callable[..., str], tmp_path: Path) -> None:
    """No __init__.py anywhere: its modules are imported at every depth, so what they declare at run
    time is known.
    """
    package()
    (tmp_path / "scanned_space" / "part" / "deep").mkdir(parents=True)
    text = "import ldinstrument as ld\nfor name in ['KEY']:\n    ld.track_task(name)(lambda: 0)"
    for number, folder in enumerate(
        ("scanned_space", "scanned_space/part", "scanned_space/part/deep")
    ):
        (tmp_path / folder / "module.py").write_text(text.replace("KEY", f"depth.{number}"))
    found = scan("scanned_space")
    assert keys(found) == runs("depth.0", "depth.1", "depth.2")
    assert (found.dynamic, found.unreadable) == ((), ())


def test_the_src_layout(package: Callable[..., str], tmp_path: Path) -> None:
    """A package that is not installed, by its name, by its folder, and by a file of it with
    relative imports.
    """
    package()
    folder = tmp_path / "src" / "scanned_src"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "import ldinstrument as ld\n@ld.track_task('top')\ndef f(): ..."
    )
    (folder / "views.py").write_text("from . import f, ld\n@ld.track_task('view')\ndef g(): ...")
    for target in ("scanned_src", "src/scanned_src", "./src/scanned_src/", str(folder)):
        assert keys(scan(target)) == runs("top", "view"), target
    # A file by its path is one module of its package, whose __init__ Python imports before it.
    assert keys(scan("src/scanned_src/views.py")) == runs("top", "view")
    assert scan("src/scanned_src/views.py").unreadable == ()
    assert scan("src/scanned_src/__init__.py").modules == ("scanned_src",)


@pytest.mark.parametrize(
    ("target", "words"),
    [("./", "name a package"), ("./notes.txt", "no Python file"), ("./nowhere", "does not exist")],
)
def test_paths_that_are_no_package(
    package: Callable[..., str], tmp_path: Path, target: str, words: str
) -> None:
    """Each with what is wrong with it."""
    package()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DefinitionError, match=words):
        scan(target)


def test_why_a_target_cannot_be_imported(package: Callable[..., str], tmp_path: Path) -> None:
    """The wrong directory and a missing library are two things."""
    name = package()
    (tmp_path / name / "__init__.py").write_text("import no_such_library")
    with pytest.raises(DefinitionError, match=r"no_such_library.*is what it needs installed"):
        scan(name)
    with pytest.raises(DefinitionError, match="is the current directory the right one"):
        scan("no_such_package_here")


def test_a_folder_of_scripts_is_told_from_a_package(
    package: Callable[..., str], tmp_path: Path
) -> None:
    """Its files import each other by their bare names."""
    package()
    (tmp_path / "scanned_scripts").mkdir()
    (tmp_path / "scanned_scripts" / "program_start.py").write_text("import program_part")
    (tmp_path / "scanned_scripts" / "program_part.py").write_text(
        "import ldinstrument as ld\n@ld.track_task('part')\ndef f(): ..."
    )
    found = scan("scanned_scripts")
    assert [
        (where, "program_part.py stands beside it: plan the file" in why)
        for where, why in found.unreadable
    ] == [("scanned_scripts.program_start", True)]


def test_a_broken_module_re_exports_too(package: Callable[..., str]) -> None:
    """Nobody can import it, but the decorators' names are ours."""
    name = package(
        tools="from ldinstrument import track_task",
        a="from .tools import track_task as timed\nimport no_such_library\n@timed('timed')\ndef f(): ...",
    )
    assert keys(scan(name)) == runs("timed")


def test_a_file_by_its_path(tmp_path: Path, package: Callable[..., str]) -> None:
    """Two programs that are both called app.py."""
    package()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "program.py").write_text(
            f"import ldinstrument as ld\n@ld.track_task('{folder}')\ndef f(): ..."
        )
    found = scan(["one/program.py", "two/program.py"])
    assert keys(found) == runs("one", "two")
    assert found.place("two.duration") == "two/program.py:2"


def test_a_file_brings_its_neighbours(tmp_path: Path, package: Callable[..., str]) -> None:
    """What a program imports from its own folder belongs to it."""
    package()
    (tmp_path / "program_main.py").write_text("import program_helper, json")
    (tmp_path / "program_helper.py").write_text(
        "import ldinstrument as ld\ndef f():\n    with ld.track_task('helped'): ..."
    )
    found = scan("program_main.py")
    assert keys(found) == runs("helped")
    assert found.modules == ("program_main", "program_helper")


@pytest.mark.parametrize(
    "target", ["no_such_package_here", "not a module", "missing.py", "..", "os.nope"]
)
def test_targets_that_do_not_exist(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear word, and where it was looked for."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefinitionError, match=r"cannot be imported|does not exist"):
        scan(target)


def test_a_program_that_is_read_records_nothing(
    package: Callable[..., str], ld: LocalLaunchDarkly
) -> None:
    """Its top level runs, and neither a session nor a direct track of ours leaves."""
    name = package(
        app="import ldinstrument as ld\n"
        "with ld.session('user-1') as s:\n    s.conversion(49.0)\n"
        "ld.track_conversion(49.0, context='user-1')\n"
        "@ld.track_task('work')\ndef work(): ...\n"
        "work()\nld.flush(0.1)",
    )
    before = stats()

    found = keys(scan(name))

    assert {"work.duration", "business.conversion"} <= found
    assert stats().values == before.values
    assert stats().events == before.events
    assert ld.custom_events() == []
