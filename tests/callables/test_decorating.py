"""What a decorator leaves as it was: `super()` in classes made anew, methods bound per request."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ldinstrument as ld

BOTH = pytest.mark.parametrize(
    "decorate",
    [ld.track_task("k"), ld.track_task("k", success=bool), ld.session(name="visit")],
    ids=["plain", "with options", "session"],
)
pytestmark = pytest.mark.filterwarnings("ignore:.*use this key, so their runs are one metric")


class Base:
    def plain(self) -> str:
        return "base"

    async def waiting(self) -> str:
        return "base"

    @classmethod
    def made(cls) -> str:
        return "base"


@BOTH
def test_super_in_a_slots_class_of_attrs(decorate: Any) -> None:
    """attrs makes the class anew and puts it into the closures of its methods: into ours, too."""
    attrs = pytest.importorskip("attrs")

    @attrs.define
    class Child(Base):
        @decorate
        def plain(self) -> str:
            return "child of " + super().plain()

        @decorate
        async def waiting(self) -> str:
            return "child of " + await super().waiting()

        @decorate
        def items(self) -> Iterator[str]:
            yield "child of " + super().plain()

        @classmethod
        @decorate
        def made(cls) -> str:
            return "child of " + super().made()

        @property
        @decorate
        def name(self) -> str:
            return __class__.__name__  # type: ignore[name-defined]

        @decorate
        @ld.track_task("inside")
        def twice(self) -> str:
            return "child of " + super().plain()

    child = Child()
    assert child.plain() == child.twice() == Child.made() == "child of base"
    assert asyncio.run(child.waiting()) == next(child.items()) == "child of base"
    assert child.name == "Child"


def test_super_in_an_ordinary_class() -> None:
    """As ever; the class is the one that the method is in."""

    class Child(Base):
        @ld.track_task("k")
        def plain(self) -> str:
            return f"{__class__.__name__} of {super().plain()}"  # type: ignore[name-defined]

    assert Child().plain() == "Child of base"


VIEWS = """
import asyncio, warnings
warnings.simplefilter("error")
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=[], SECRET_KEY="x")
import django
django.setup()
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
import ldinstrument as ld
from ldinstrument.callables import decorating
from ldinstrument.testing import recording

@method_decorator(ld.session(context="u-1"), name="dispatch")
@method_decorator(ld.track_task("dispatch"), name="dispatch")
class Page(View):
    @method_decorator(ld.track_interaction("page.get"))
    def get(self, request):
        return HttpResponse("got")

    @method_decorator(ld.track_interaction)
    def post(self, request):
        return HttpResponse("posted")

class Slow(View):
    @method_decorator(ld.track_interaction("slow.get"))
    async def get(self, request):
        await asyncio.sleep(0.02)
        return HttpResponse("slow")

urlpatterns = [path("page", Page.as_view()), path("slow", Slow.as_view())]
made = []
bound_type = decorating._bound_type
decorating._bound_type = lambda *args: made.append(1) or bound_type(*args)
with recording() as events, ld.session("u-1", name="test") as s:
    for _ in range(5):
        assert Client().get("/page").content == b"got"
        assert Client().post("/page").content == b"posted"
        assert asyncio.run(AsyncClient().get("/slow")).content == b"slow"
    with ld.session("u-1") as visit:
        pass
    slow = s.summary().tasks["slow.get"]
print(len(events.of("page.get.success_rate")), len(events.of("task.post.success_rate")))
print(len(events.of("dispatch.duration")), slow.successes, slow.duration_ms >= 90)
print(len(made))
"""


def test_djangos_method_decorator(tmp_path: Path) -> None:
    """It decorates a function of its own first, and the bound method anew in each request: without
    a warning, and with one class for each method.
    """
    pytest.importorskip("django")
    views = tmp_path / "views.py"
    views.write_text(VIEWS)
    done = subprocess.run(
        [sys.executable, str(views)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["5 5", "10 5 True", "5"]


def test_a_partial_of_a_method_that_is_decorated_once() -> None:
    """It is a proxy like any other partial: its own attributes are there."""
    import functools

    def method(self: object, x: int) -> int:
        return x

    bound: Any = functools.update_wrapper(functools.partial(method, None), method)
    tracked = ld.track_task("k")(bound)
    assert tracked.func is method
    assert tracked(3) == 3


@pytest.mark.parametrize("decorator", [ld.track_task, ld.track_ai])
def test_a_decorator_travels_by_its_name(decorator: Any) -> None:
    """It is pickled as what it is called, and says so."""
    assert pickle.loads(pickle.dumps(decorator)) is decorator
    assert copy.deepcopy(decorator) is decorator
    assert repr(decorator) == f"<decorator {decorator.__name__}>"
