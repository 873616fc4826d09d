"""Values of expressions in the source, without running any of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scanned import keys, runs

from ldinstrument.scan import scan


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
    assert [unread.key for unread in found.undeclared] == ["held.key"]
    assert len(found.dynamic) == 3
