"""Which function uses which key: taken from its name, and never by two of them unsaid."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.errors import DefinitionError
from ldinstrument.tasks.tracked_functions import innermost, key_from_name, note_function

pytestmark = pytest.mark.filterwarnings("ignore:.*use this key, so their runs are one metric")


def counts(session: ld.Session, key: str = "k") -> tuple[int, ...]:
    tasks = session.summary().tasks
    return tuple(int(number) for number in tuple(tasks[key])[:4]) if key in tasks else (0, 0, 0, 0)


def _only(caught: list[warnings.WarningMessage]) -> warnings.WarningMessage:
    assert [str(warning.message) for warning in caught][1:] == []
    assert caught[0].filename == __file__
    return caught[0]


def test_bare_decorators_take_their_key_from_the_function_inside() -> None:
    """Each descriptor has a name of its own; the key is `task.` and that name."""

    class Thing:
        @ld.track_task
        @classmethod
        def made(cls) -> int:
            return 1

        @ld.track_task
        @staticmethod
        def fixed() -> int:
            return 1

        @ld.track_task
        @property
        def shown(self) -> int:
            return 1

        @ld.track_task
        @functools.cached_property
        def kept(self) -> int:
            return 1

        @ld.track_task
        def method(self) -> int:
            return 1

    thing = Thing()
    with ld.session("u") as s:
        assert [
            thing.made(),
            thing.fixed(),
            thing.shown,
            thing.kept,
            thing.kept,
            thing.method(),
        ] == [1] * 6
        assert {key: counts(s, key)[0] for key in s.summary().tasks} == {
            "task.made": 1,
            "task.fixed": 1,
            "task.shown": 1,
            "task.kept": 1,
            "task.method": 1,
        }


def test_decorated_twice_with_one_key() -> None:
    """Each call would count twice; it is said, with the line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        @ld.track_task("k")
        @ld.track_task("k")
        def twice() -> None: ...

    assert "decorated twice" in str(_only(caught).message)
    first = twice.__wrapped__.__wrapped__.__code__.co_firstlineno  # type: ignore[attr-defined]
    assert first <= caught[0].lineno <= first + 2  # Python 3.10 names the line of the `def`
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ld.track_task("p")(ld.track_task("p")(functools.partial(int)))
    assert "decorated twice" in str(_only(caught).message)


def test_two_functions_with_one_key() -> None:
    """Their runs would be one metric; it is said, with both names and the line."""

    @ld.track_task("k")
    def one() -> None: ...

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        @ld.track_task("k")
        def two() -> None: ...

    assert "two" in str(_only(caught).message)
    assert "one" in str(caught[0].message)
    assert one() is two() is None


def test_two_lambdas_with_one_key() -> None:
    """They have one name, so it is their lines that tell them apart; one lambda decorated again and
    again is one.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        same = [ld.track_task("k")(lambda: 1) for _ in range(3)]
        assert caught == []
        other = ld.track_task("k")(lambda: 2)

    assert [*(function() for function in same), other()] == [1, 1, 1, 2]
    assert str(_only(caught).message).count("of line") == 2


def plain() -> None: ...


@pytest.mark.parametrize(
    "descriptor",
    [
        plain,
        classmethod(plain),
        staticmethod(plain),
        property(plain),
        functools.cached_property(plain),
        functools.partialmethod(plain),
        functools.singledispatchmethod(plain),
    ],
    ids=lambda descriptor: type(descriptor).__name__,
)
def test_a_key_is_made_of_the_name_of_the_function_inside(descriptor: Any) -> None:
    """Of whatever descriptor it is in."""
    assert innermost(descriptor) is plain
    assert key_from_name("track_task", descriptor) == "task.plain"


@pytest.mark.parametrize(
    ("nameless", "kind"), [(lambda: 1, "lambda"), (functools.partial(plain), "partial")]
)
def test_what_has_no_name_needs_a_key(nameless: Any, kind: str) -> None:
    """The error shows how to give one."""
    with pytest.raises(DefinitionError, match=f"track_task: a {kind} has no name.*checkout.total"):
        key_from_name("track_task", nameless)


def test_a_function_may_be_noted_again_and_again() -> None:
    """As reloading and decorating in a loop do; a dummy of a framework's own is nobody's."""

    def dummy() -> None: ...

    dummy.__module__ = "django.utils.decorators"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for fn in (plain, plain, dummy, plain):
            note_function("track_task", "area.noted", fn)
    assert caught == []


def test_a_key_is_found_below_other_decorators() -> None:
    """A function that is measured under it already, however deep, is decorated twice."""

    @ld.track_task("area.deep")
    def measured() -> None: ...

    @functools.wraps(measured)
    def around() -> None:
        measured()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        note_function("track_task", "area.other", around)
        assert caught == []
        note_function("track_task", "area.deep", around)
    assert "decorated twice" in str(caught[0].message)
