"""What a type checker sees through `track_task`, `track_interaction`, `session` and `propagate`.
Never run.

Checked by `mypy --strict` and pyright; the wrong calls are in `tests/tasks/test_typing.py`.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, overload

import ldinstrument as ld

if TYPE_CHECKING:
    from typing_extensions import assert_type


class Result:
    ok: bool


@ld.track_task
def bare(a: int, *, b: str = "") -> Result:
    return Result()


@ld.track_task("key", success=lambda result: result.ok, expected=(KeyError,), metrics=("duration",))
def called(a: int, *, b: str = "") -> Result:
    return Result()


@ld.track_interaction
async def bare_async(a: int) -> Result:
    return Result()


@ld.track_interaction("key")
async def called_async(a: int) -> Result:
    return Result()


@ld.track_task
def generator(a: int) -> Generator[int, str, bytes]:
    yield a
    return b""


@ld.track_task("key")
async def async_generator(a: int) -> AsyncGenerator[int, str]:
    yield a


@overload
def overloaded(a: int) -> int: ...
@overload
def overloaded(a: str) -> str: ...
@ld.track_task("key")
def overloaded(a: int | str) -> int | str:
    return a


@ld.session
def in_session(a: int) -> Result:
    return Result()


@ld.session(context=lambda a: str(a), name="visit")
async def in_async_session(a: int) -> Result:
    return Result()


class Thing:
    @ld.track_task
    def method(self, a: int) -> Result:
        return Result()

    @ld.track_task("key")
    async def async_method(self, a: int) -> Result:
        return Result()

    @ld.track_task("key")
    @classmethod
    def class_above(cls, a: int) -> Thing:
        return cls()

    @classmethod
    @ld.track_task
    def class_below(cls, a: int) -> Thing:
        return cls()

    @staticmethod
    @ld.track_task
    def static_below(a: int) -> Result:
        return Result()

    @property
    @ld.track_task
    def property_below(self) -> Result:
        return Result()

    @functools.cached_property
    @ld.track_task
    def cached_below(self) -> Result:
        return Result()


async def uses() -> None:
    """Every type as it would be without the decorator."""
    thing = Thing()
    assert_type(bare(1, b="x"), Result)
    assert_type(called(1, b="x"), Result)
    assert_type(await bare_async(1), Result)
    assert_type(await called_async(1), Result)
    assert_type(generator(1), Generator[int, str, bytes])
    assert_type(async_generator(1), AsyncGenerator[int, str])
    assert_type(overloaded(1), int)
    assert_type(overloaded("x"), str)
    assert_type(in_session(1), Result)
    assert_type(await in_async_session(1), Result)
    assert_type(thing.method(1), Result)
    assert_type(await thing.async_method(1), Result)
    assert_type(Thing.class_below(1), Thing)
    assert_type(Thing.static_below(1), Result)
    assert_type(thing.property_below, Result)
    assert_type(thing.cached_below, Result)
    assert_type(ld.propagate(bare)(1, b="x"), Result)
    partial = ld.track_task("key")(functools.partial(bare, 1))
    assert_type(partial, functools.partial[Result])


def given() -> Callable[[int], Result]:
    """A decorated function fits where the original does."""
    return bare


def blocks() -> None:
    """`with` gives the run."""
    with ld.track_task("key") as task:
        task.fail("empty")
        task.add_data(a=1)


async def async_blocks() -> None:
    """`async with` gives the run, too."""
    async with ld.track_task("key") as task:
        task.fail()
