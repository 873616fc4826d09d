"""The catalog from code: what importing declares, what only the source tells, and what neither
can.
"""

from __future__ import annotations

import itertools
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.errors import DefinitionError
from ldinstrument.scan import Scan, scan
from ldinstrument.scan.source import uses_in
from ldinstrument.sessions.registry import stats

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


def keys(found: Scan) -> set[str]:
    return {metric.key for metric in found.metrics}


def runs(*tasks: str) -> set[str]:
    return {f"{task}.{suffix}" for task in tasks for suffix in ("success_rate", "duration")}


def test_decorators_at_the_top_level(package: Callable[..., str]) -> None:
    """Every form of the decorators, through every way of importing them, with file and line."""
    name = package(
        a="""
            import ldinstrument as ld
            from ldinstrument import track_task, track_interaction as interaction
            from ldinstrument.tasks.decorators import track_task as direct

            KEY = "from.constant"

            @track_task
            def plain(): ...

            @ld.track_task("with.key", metrics=("duration",))
            async def keyed(): ...

            @interaction(KEY)
            def talk(): ...

            class Shop:
                @direct("shop.buy")
                def buy(self): ...

            for number in range(2):
                direct(f"looped.n{number}")(plain)
        """
    )
    found = scan(name)
    assert keys(found) == runs(
        "task.plain", "from.constant", "shop.buy", "looped.n0", "looped.n1"
    ) | {"with.key.duration", "from.constant.unfinished"}
    assert found.place("with.key.duration") == f"{name}/a.py:11"
    assert found.place("shop.buy.duration") == f"{name}/a.py:18"
    assert found.dynamic == ()
    assert found.modules == (name, f"{name}.a")


def test_what_only_function_bodies_declare(package: Callable[..., str]) -> None:
    """`with` blocks, closures, record, patterns, sessions: read from the source, never run."""
    name = package(
        keys="TALK = 'talk.' + 'back'",
        a="""
            import ldinstrument as ld
            from ldinstrument import Metric, Session, current_session
            from . import keys

            PRICE = Metric("cart.price", unit="dollars", success_criteria="HigherThanBaseline")

            def work(request):
                raise SystemExit("must not run")
                with ld.track_task("rerank") as task:
                    task.fail("empty")

                @ld.track_interaction(keys.TALK, record={"cart.price": len})
                def closure(): ...

                @ld.track_task
                def bare_closure(): ...

                with ld.session("user-1", name="chat") as s:
                    s.record(PRICE, 3)
                    s.record(Metric("cart.adds", measure="count"))
                    s.satisfaction(80)
                if (found := current_session()) is not None:
                    found.revenue(3)
                ld.track_task_success("x", True)

            def takes(s: Session | None):
                s.conversion(2)

            async def streams():
                async with ld.track_task("stream", metrics=["time_to_first_item"]):
                    yield
        """,
    )
    found = scan(name)
    assert keys(found) == runs("rerank", "talk.back", "task.bare_closure") | {
        "talk.back.unfinished",
        "chat.duration", "chat.success_rate", "chat.interactions", "cart.price", "cart.adds", "user.satisfaction",
        "user.negative_feedback", "revenue.impact", "task.success_rate", "business.conversion",
        "stream.time_to_first_item",
    }  # fmt: skip
    assert found.undeclared == ()
    assert found.place("rerank.duration") == f"{name}/a.py:10"


def test_standard_metrics_only_where_something_uses_them(package: Callable[..., str]) -> None:
    """The default catalog has them all; a program needs those that it feeds."""
    assert keys(scan(package(a="import ldinstrument"))) == set()
    assert keys(scan(package(a="from ldinstrument import track_feedback\ndef f(): track_feedback(True)"))) == {
        "user.satisfaction", "user.negative_feedback",
    }  # fmt: skip
    assert keys(scan(package(a="import ldinstrument as ld\n@ld.session\ndef f(): ..."))) == {
        "session.duration", "session.success_rate", "session.interactions",
    }  # fmt: skip
    assert keys(scan(package(a="import ldinstrument as ld\ndef f(): ld.SessionMetricsTracker()"))) == {
        "session.duration", "session.success_rate", "session.interactions",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (
            "from ldinstrument.integrations.wsgi import SessionMiddleware\napp = "
            "SessionMiddleware(print)",
            "request",
        ),
        (
            "from ldinstrument.integrations import wsgi\napp = wsgi.SessionMiddleware(print, "
            "name='page')",
            "page",
        ),
        (
            "from ldinstrument.integrations.flask import instrument\ndef make(app): "
            "instrument(app)",
            "request",
        ),
        (
            "from ldinstrument.integrations.aws_lambda import "
            "lambda_handler\n@lambda_handler\ndef f(e, c): ...",
            "invocation",
        ),
        ("MIDDLEWARE = ['ldinstrument.integrations.django.SessionMiddleware']", "request"),
        ("from ldinstrument.integrations.celery import instrument\ninstrument(print)", "job"),
        (
            "from ldinstrument.integrations import flask\nflask.instrument(print, "
            "store='sqlite:///x.db')",
            "session",
        ),
        (
            "from ldinstrument.integrations.wsgi import SessionMiddleware as W\nW(print, "
            "store=None, name=None)",
            "request",
        ),
    ],
)
def test_boundaries_open_sessions(source: str, name: str) -> None:
    """Flask, WSGI, Lambda and Django's settings: their sessions' metrics, under their default or
    given name.
    """
    assert {(use.kind, use.key) for use in uses_in(source)} == {("session", name)}


def test_djangos_settings_name_the_sessions(package: Callable[..., str]) -> None:
    """`LDINSTRUMENT = {...}` beside MIDDLEWARE."""
    middleware = "MIDDLEWARE = ['ldinstrument.integrations.django.SessionMiddleware']\n"
    assert "page.duration" in keys(
        scan(package(settings=f"{middleware}LDINSTRUMENT = {{'name': 'page'}}"))
    )
    visits = package(settings=f"{middleware}LDINSTRUMENT = {{'store': 'sqlite:///x.db'}}")
    assert "session.duration" in keys(scan(visits))


def test_helpers_of_the_integrations_are_no_boundaries() -> None:
    """Not everything in there opens sessions."""
    source = (
        "from ldinstrument.integrations.gunicorn import post_fork\n"
        "from ldinstrument.integrations.flask import logged_in, end_session\n"
        "post_fork(1, 2); logged_in(3); end_session()\n"
    )
    assert list(uses_in(source)) == []


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


def test_keys_that_nobody_declared(package: Callable[..., str]) -> None:
    """A misspelt key, one that differs by case, and one that is simply new."""
    name = package(
        a="""
            import ldinstrument as ld
            ld.catalog.add(ld.Metric("cart.size", measure="count", event_key="Cart size"))

            def work(session):
                session.record("cart.size")
                session.record("Cart size")
                session.record("Cart Size")
                ld.current_session().record("cart.sise")
                session.record("entirely.new")
        """
    )
    found = scan(name)
    assert keys(found) == {"cart.size"}
    assert [(one.key, one.place) for one in found.undeclared] == [
        ("Cart Size", f"{name}/a.py:8"), ("cart.sise", f"{name}/a.py:9"), ("entirely.new", f"{name}/a.py:10"),
    ]  # fmt: skip
    assert "only by case from 'Cart size'" in found.undeclared[0].advice()
    assert "catalog.add(Metric('entirely.new'" in found.undeclared[2].advice()


def test_dynamic_keys_are_counted_with_their_places(package: Callable[..., str]) -> None:
    """What only running would tell: f-strings, parameters, tables."""
    name = package(
        a="""
            import ldinstrument as ld

            def work(kind, s: "ld.Session", KEY):
                with ld.track_task(f"work.{kind}"): ...
                ld.current_session().record(kind)
                with ld.session("u", name=kind): ...
                ld.track_task(KEY, record=dict(a=len))
                ld.Metric(kind, measure="count")

            KEY = "shadowed"
        """
    )
    found = scan(name)
    assert [(int(place.rpartition(":")[2]), what) for place, what in found.dynamic] == [
        (5, "track_task(f'work.{kind}')"), (6, "record(kind)"), (7, "session(name=kind)"), (8, "track_task(KEY)"),
        (8, "track_task(record=...)"), (9, "Metric(kind)"),
    ]  # fmt: skip
    assert keys(found) == set()


def test_strangers_with_the_same_names_are_left_alone(package: Callable[..., str]) -> None:
    """`record`, `session` and `Metric` are other libraries' words, too."""
    name = package(
        a="""
            class Recorder:
                def record(self, key): ...
            import ldinstrument
            measured = ldinstrument.track_task
            def session(name): ...
            def track_task(key): ...
            def shadowed(measured):
                measured("not.ours")
            def work(session_factory):
                Recorder().record("not.ours")
                session("not-ours")
                track_task("not.ours")
                s = session_factory()
                s.record("not.ours")
        """
    )
    found = scan(name)
    assert (keys(found), found.undeclared, found.dynamic) == (set(), (), ())


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


def test_proxies_are_not_woken(package: Callable[..., str]) -> None:
    """Flask's request, and worse: nothing in a module's namespace is asked for attributes."""
    name = package(
        a="""
            from flask import request, current_app
            import ldinstrument as ld

            class Trap:
                @property
                def __class__(self): raise SystemError("woken")
                def __getattr__(self, name): raise SystemError("woken")

            trap = Trap()

            def work():
                trap.record("x")
                request.session.record(trap.key)
                with ld.track_task(trap): ...
                with ld.track_task(trap.key): ...
                trap()
        """
    )
    found = scan(name)
    assert [what for _, what in found.dynamic] == [
        "record(trap.key)",
        "track_task(trap)",
        "track_task(trap.key)",
    ]
    assert found.unreadable == ()


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


def test_sources_in_other_encodings(package: Callable[..., str], tmp_path: Path) -> None:
    """A byte order mark, and a coding line: Python reads both."""
    name = package()
    text = "import ldinstrument as ld\ndef f():\n    with ld.track_task('KEY'): return 'é'\n"
    (tmp_path / name / "marked.py").write_bytes(text.replace("KEY", "marked").encode("utf-8-sig"))
    latin = "# -*- coding: latin-1 -*-\n" + text.replace("KEY", "latin")
    (tmp_path / name / "latin.py").write_bytes(latin.encode("latin-1"))
    found = scan(name)
    assert keys(found) == runs("marked", "latin")
    assert found.unreadable == ()


def test_re_exports_and_constants_of_other_modules(package: Callable[..., str]) -> None:
    """What a program gathers in a module of its own is still this library; keys may be constants of
    any kind.
    """
    name = package(
        tools="""
            import ldinstrument
            from ldinstrument import session, track_task
        """,
        a="""
            from enum import Enum
            import PACKAGE.tools as tools

            PREFIX = "pre"
            TABLE = {"one": "table.one"}

            class Keys(str, Enum):
                ONE = "enum.one"
                TWO = "enum.two"

            class Base:
                KEY = "base.key"

            class Child(Base): ...

            class Service:
                def __init__(self):
                    self._held = tools.session("u")

                def work(self, which):
                    with tools.track_task("via.module"): ...
                    with tools.ldinstrument.track_task("via.both"): ...
                    with tools.track_task(f"{PREFIX}.formatted"): ...
                    with tools.track_task(TABLE["one"]): ...
                    with tools.track_task(Keys.ONE): ...
                    with tools.track_task(Keys.TWO.value): ...
                    with tools.track_task(Child.KEY): ...
                    with tools.track_task(f"{PREFIX:>5}"): ...
                    with tools.track_task(f"{PREFIX}.{which}"): ...
                    with tools.track_task(TABLE[which]): ...
                    timed = tools.track_task
                    with timed("by.alias"): ...
                    self._held.record("held.key")
        """,
    )
    found = scan(name)
    tasks = (
        "via.module",
        "via.both",
        "pre.formatted",
        "table.one",
        "enum.one",
        "enum.two",
        "base.key",
        "by.alias",
    )
    assert keys(found) - runs(*tasks) == {
        "session.duration",
        "session.success_rate",
        "session.interactions",
    }
    assert keys(found) >= runs(*tasks)
    assert [one.key for one in found.undeclared] == ["held.key"]
    assert len(found.dynamic) == 3


def test_a_broken_module_re_exports_too(package: Callable[..., str]) -> None:
    """Nobody can import it, but the decorators' names are ours."""
    name = package(
        tools="from ldinstrument import track_task",
        a="from .tools import track_task as timed\nimport no_such_library\n@timed('timed')\ndef f(): ...",
    )
    assert keys(scan(name)) == runs("timed")


def test_names_that_read_badly_are_not_warned_about_in_between(package: Callable[..., str]) -> None:
    """The plan remarks on them; a Python warning would name a line of ours."""
    name = package(a="import ldinstrument as ld\ndef f():\n    with ld.track_task('Bad'): ...")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert keys(scan(name)) == runs("Bad")


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


def test_a_catalog_by_name(package: Callable[..., str]) -> None:
    """`module:attribute` is taken as it is: a Catalog, a list, a dotted attribute."""
    name = package(
        a="""
            from ldinstrument import Catalog, Metric, catalog as default
            mine = Catalog([Metric("only.this", measure="count")])
            class Settings:
                metrics = [Metric("that.too", measure="count")]
            default.add(Metric("not.this", measure="count"))
            empty, text = [], "abc"
        """
    )
    assert keys(scan(f"{name}.a:mine")) == {"only.this"}
    assert scan(f"{name}.a:mine").place("only.this") == f"{name}/a.py:3"
    assert keys(scan(f"{name}.a:Settings.metrics")) == {"that.too"}
    for missing in ("empty", "text", "nope", "Settings"):
        with pytest.raises(DefinitionError, match="no Catalog"):
            scan(f"{name}.a:{missing}")


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


def test_a_definition_that_cannot_work_is_reported(package: Callable[..., str]) -> None:
    """In a body nobody has run yet, a metric without a unit is still found."""
    name = package(a="from ldinstrument import Metric\ndef f(s):\n    return Metric('no.unit')")
    found = scan(name)
    assert found.unreadable[0][0] == f"{name}/a.py:3"
    assert "unit" in found.unreadable[0][1]


def test_two_definitions_of_one_key_are_reported(package: Callable[..., str]) -> None:
    """In two bodies that nobody has run: the first counts, the other is named with its place."""
    name = package(
        a="""
            from ldinstrument import Metric
            def f(): return Metric("twice.said", measure="count")
            def g(): return Metric("twice.said", measure="occurrence")
            def h(): return Metric("twice.said", measure="count")
        """
    )
    found = scan(name)
    assert [metric.measure for metric in found.metrics] == ["count"]
    assert found.unreadable == (
        (f"{name}/a.py:4", f"metric 'twice.said' is defined otherwise at {name}/a.py:3"),
    )


def test_a_replaced_standard_metric_belongs_to_the_program(package: Callable[..., str]) -> None:
    """catalog.replace of a standard metric is the program's own definition."""
    name = package(
        a="""
            from ldinstrument import Metric, catalog
            catalog.replace(Metric("revenue.impact", unit="euros", success_criteria="HigherThanBaseline"))
        """
    )
    found = scan(name)
    assert keys(found) == {"revenue.impact"}
    assert found.metrics[0].unit == "euros"


BOUNDARIES_AS_VALUES = {
    "starlette": (
        "app.add_middleware(asgi.SessionMiddleware, context=who)",
        {"request.duration", "request.interactions", "request.success_rate"},
    ),
    "middleware list": (
        "app = Starlette(middleware=[Middleware(asgi.SessionMiddleware)])",
        {"request.duration", "request.interactions", "request.success_rate"},
    ),
    "a bare name in a list": (
        "middleware = [asgi.SessionMiddleware]",
        {"request.duration", "request.interactions", "request.success_rate"},
    ),
    "with a store": (
        "app.add_middleware(asgi.SessionMiddleware, store=open_store('memory:'))",
        {"session.duration", "session.interactions", "session.success_rate"},
    ),
    "with a store that only running tells": (
        "def make(app, store): app.add_middleware(asgi.SessionMiddleware, store=store)",
        {
            f"{name}.{what}"
            for name in ("request", "session")
            for what in ("duration", "interactions", "success_rate")
        },
    ),
    "with a name": (
        "app.add_middleware(asgi.SessionMiddleware, name='page')",
        {"page.duration", "page.interactions", "page.success_rate"},
    ),
}


@pytest.mark.parametrize("case", BOUNDARIES_AS_VALUES)
def test_a_boundary_that_is_given_to_a_framework_is_found(
    package: Callable[..., str], case: str
) -> None:
    """FastAPI and Starlette take the class and its options, and call it themselves."""
    source, wanted = BOUNDARIES_AS_VALUES[case]
    name = package(app=f"import no_such\nfrom ldinstrument.integrations import asgi\n{source}")

    assert {key for key in keys(scan(name)) if not key.startswith("websocket.")} == wanted


CHOSEN = {
    "a session with metrics of its own": (
        "def f():\n    with ld.session(name='visit', metrics=('successes', 'unfinished')): ...",
        {"visit.successes", "visit.unfinished"},
    ),
    "a boundary with metrics of its own": (
        "app.add_middleware(asgi.SessionMiddleware, metrics=['duration'], websocket=None)",
        {"request.duration"},
    ),
    "requests as units": (
        "def f(): return wsgi.SessionMiddleware(app, metrics='duration', request_metrics=True)",
        {
            "request.duration",
            "http.request.duration_ms",
            "http.response.4xx",
            "http.response.5xx",
        },
    ),
    "requests that are no units": (
        "def f(): return wsgi.SessionMiddleware(app, metrics='duration', request_metrics=False)",
        {"request.duration"},
    ),
    "websockets": (
        "app.add_middleware(asgi.SessionMiddleware, metrics='duration', websocket='socket')",
        {"request.duration", "socket.duration"},
    ),
    "websockets in a store": (
        "app.add_middleware(asgi.SessionMiddleware, metrics='duration', store='sqlite:///s.db')",
        {"session.duration"},
    ),
    "tasks with metrics of their own": (
        "@ld.track_task('a.b', metrics=('unfinished',), within=2.0)\ndef f(): ...",
        {"a.b.unfinished", "a.b.within"},
    ),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_the_metrics_that_are_asked_for_are_found(package: Callable[..., str], case: str) -> None:
    """`metrics=`, `request_metrics=`, `websocket=` and `within=` decide, in bodies, too."""
    source, wanted = CHOSEN[case]
    heads = "import no_such\nimport ldinstrument as ld\nfrom ldinstrument.integrations import"
    name = package(app=f"{heads} asgi, wsgi\n{source}")

    assert keys(scan(name)) == wanted


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


def test_model_calls(package: Callable[..., str]) -> None:
    """`track_ai` inside a function body, which importing never runs: its task's metrics and those
    of the model; no cost where none is wanted.
    """
    found = scan(
        package(
            a="""
            import ldinstrument as ld

            def app():
                @ld.track_ai("answer", cost=False)
                def answer(): ...

                with ld.track_ai("rerank", metrics=("success_rate", "tokens.total")):
                    pass
            """,
        )
    )
    assert keys(found) == {
        "answer.success_rate", "answer.duration", "answer.unfinished", "answer.time_to_first_token",
        "answer.tokens.input", "answer.tokens.output", "answer.tokens.total", "answer.tokens.cached",
        "answer.tokens.reasoning", "answer.tool_calls", "answer.attempts",
        "rerank.success_rate", "rerank.tokens.total",
    }  # fmt: skip
