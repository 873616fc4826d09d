"""The compiler: a wrapper with the very parameters of what it wraps, from any template."""

from __future__ import annotations

import asyncio
import inspect
import linecache
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ldinstrument.callables.compiler import (
    Unawaited,
    closed_over,
    follower_shaped,
    is_shaped,
    named,
    reserve,
    shaped,
    stream_shaped,
)

CALL = """
def run({params}):
    _note({given})
    return _fn({args})
"""


def wrapped(fn: Callable[..., Any], *, arguments: bool = False) -> tuple[Any, list[Any]]:
    """*fn* in a wrapper that notes each call, and the notes."""
    noted: list[Any] = []
    made = shaped(CALL, fn, {"_note": lambda *given: noted.append(given)}, arguments=arguments)
    return made, noted


def everything(
    a: int, b: int = 2, /, c: int = 3, *more: int, d: int, e: int = 5, **rest: int
) -> Any:
    """Return all of it."""
    return a, b, c, more, d, e, rest


def positional(a: int, b: int = 2, /) -> Any:
    return a, b


def keywords(*, a: int, b: int = 2) -> Any:
    return a, b


def generic(*args: int, **kwargs: int) -> Any:
    return args, kwargs


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (everything, (1,), {"d": 4}),
        (everything, (1, 2, 3, 4, 5), {"d": 4, "x": 6}),
        (positional, (1,), {}),
        (keywords, (), {"a": 1}),
        (generic, (1, 2), {"a": 3}),
        (lambda: 5, (), {}),
    ],
)
def test_every_argument_arrives_where_it_belongs(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """With the defaults of the function inside, which it looks like to everybody."""
    made, noted = wrapped(fn)
    assert made(*args, **kwargs) == fn(*args, **kwargs)
    assert noted == [()]
    assert inspect.signature(made) == inspect.signature(fn)
    own = inspect.signature(made, follow_wrapped=False).parameters.values()
    assert [(parameter.name, parameter.kind, parameter.default) for parameter in own] == [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(fn).parameters.values()
    ]
    assert (made.__name__, made.__doc__, made.__wrapped__) == (fn.__name__, fn.__doc__, fn)
    assert made.__globals__ is fn.__globals__


@pytest.mark.parametrize("fn", [everything, positional, keywords])
def test_a_wrong_call_is_refused_before_anything_runs(fn: Callable[..., Any]) -> None:
    """With the error that the function itself would raise."""
    made, noted = wrapped(fn)
    with pytest.raises(TypeError) as plain:
        fn()
    with pytest.raises(TypeError) as refused:
        made()
    assert str(refused.value).partition("(")[2] == str(plain.value).partition("(")[2]
    assert noted == []


def test_the_arguments_are_given_as_the_caller_gave_them() -> None:
    """To who asks for them: without defaults, by position or by name."""
    made, noted = wrapped(everything, arguments=True)
    made(1, c=7, d=4)
    assert noted == [((1,), {"c": 7, "d": 4})]


def test_anything_that_can_be_called_is_wrapped() -> None:
    """An object or a builtin is called with what comes."""
    assert wrapped(max)[0](3, 7) == 7
    assert wrapped(types.SimpleNamespace)[0](a=1).a == 1


def test_a_reserved_name_of_a_parameter_is_no_clash() -> None:
    """Such a function is called with `*args, **kwargs`."""

    def fn(_fn: int, _args: int = 2) -> Any:
        return _fn, _args

    reserve(CALL)
    made, _ = wrapped(fn)
    assert made(1) == (1, 2)
    assert made(_fn=1, _args=3) == (1, 3)


def test_a_wrapper_of_ours_is_known_and_can_be_looked_into() -> None:
    """By what its template uses; another function has nothing to show."""
    made, _ = wrapped(positional)
    assert is_shaped(made)
    assert closed_over(made, "_fn") is positional
    assert closed_over(made, "_nothing") is None
    assert not is_shaped(positional)
    assert not is_shaped(len)


def test_one_template_is_compiled_once() -> None:
    """Functions of the same parameters share their code, and a traceback shows its lines."""

    def other(a: int, b: int = 3, /) -> Any:
        raise KeyError("mine")

    first, second = wrapped(positional)[0], wrapped(other)[0]
    assert first.__code__ is second.__code__
    assert (first(1), first.__defaults__, second.__defaults__) == ((1, 2), (2,), (3,))
    with pytest.raises(KeyError) as raised:
        second(1)
    shown = traceback.extract_tb(raised.tb)[1]
    assert shown.line == "return _fn(a, b)"
    assert linecache.getline(shown.filename, shown.lineno or 0)


STREAM = """
def run({params}):
    _watch = _begin({given})
    _inner = {inner}
    for _item in _inner:
        _watch.append(_item)
        yield _item
"""


def letters() -> Iterator[str]:
    yield from "abc"


def test_a_template_makes_wrappers_of_streams_too() -> None:
    """Of one that is running, with its watcher; of one that nobody has started."""
    seen: list[str] = []
    assert list(follower_shaped(STREAM)(letters(), seen)) == ["a", "b", "c"]
    watch = stream_shaped(STREAM, {"_begin": lambda: seen})
    assert list(named(watch(letters()), letters())) == ["a", "b", "c"]
    assert seen == ["a", "b", "c"] * 2
    awaitable = follower_shaped(STREAM, awaitable=True)(iter(()), seen)
    assert inspect.isawaitable(awaitable)


def test_a_coroutine_that_nobody_awaits_complains_once() -> None:
    """Its stand-in does; the one inside is closed without a word."""

    async def work() -> int:
        return 3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inner = work()
        holder = Unawaited(inner)
        del holder
        assert inspect.getcoroutinestate(inner) == inspect.CORO_CLOSED

    async def main() -> int:
        return await Unawaited(work())

    assert asyncio.run(main()) == 3


def test_super_works_in_a_wrapped_method() -> None:
    """Also where the class is made anew: the cell of the class is the method's own."""

    class Base:
        def method(self) -> str:
            return "base"

    class Derived(Base):
        @lambda fn: wrapped(fn)[0]
        def method(self) -> str:
            return super().method() + " derived"

    assert Derived().method() == "base derived"
    assert "__class__" in Derived.method.__code__.co_freevars
