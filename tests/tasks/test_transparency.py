"""What is decorated stays what it was: kind, signature, descriptors, errors, pickling."""

from __future__ import annotations

import abc
import asyncio
import collections.abc
import contextlib
import copy
import functools
import gc
import inspect
import pickle
import sys
import traceback
import typing
import warnings
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

import ldinstrument as ld
from ldinstrument.errors import DefinitionError

pytestmark = pytest.mark.filterwarnings("ignore:.*use this key, so their runs are one metric")
BOTH = pytest.mark.parametrize(
    "decorate", [ld.track_task("both"), ld.session(name="visit")], ids=["track_task", "session"]
)


def counts(session: ld.Session, key: str = "k") -> tuple[int, ...]:
    tasks = session.summary().tasks
    return tuple(int(number) for number in tuple(tasks[key])[:4]) if key in tasks else (0, 0, 0, 0)


# -- inspect ---------------------------------------------------------------------------------------


def sync(
    a: int,
    b: str = "x",
    /,
    c: float = 1.0,
    *args: int,
    d: bool,
    e: list[int] | None = None,
    **rest: Any,
) -> str:
    """Say."""
    return f"{a}{b}{c}{args}{d}{e}{rest}"


async def coro(a: int, *, b: int = 2) -> int:
    return a + b


def gen(a: int) -> Generator[int, None, None]:
    yield a


async def agen(a: int) -> AsyncGenerator[int, None]:
    yield a


@BOTH
@pytest.mark.parametrize("fn", [sync, coro, gen, agen], ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("at_sign", [True, False])
def test_inspect_gives_the_same_answers(decorate: Any, fn: Any, at_sign: bool) -> None:
    """Kind, signature, names, doc, annotations and the code's parameters, as a closure and as a
    proxy.
    """
    original = _local(fn) if at_sign else fn
    wrapped = decorate(original)
    for ask in (
        inspect.isfunction,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.signature,
        inspect.getfullargspec,
        typing.get_type_hints,
        inspect.getsource,
        inspect.getdoc,
        asyncio.iscoroutinefunction if sys.version_info < (3, 14) else inspect.iscoroutinefunction,
    ):
        assert ask(wrapped) == ask(original), ask
    for name in (
        "__name__",
        "__qualname__",
        "__module__",
        "__doc__",
        "__annotations__",
        "__defaults__",
        "__kwdefaults__",
    ):
        assert getattr(wrapped, name) == getattr(original, name)
    assert wrapped.__globals__ is original.__globals__
    assert wrapped.__code__.co_varnames[:1] == original.__code__.co_varnames[:1]
    assert inspect.unwrap(wrapped) is original


def _local(fn: Any) -> Any:
    """A copy that pickle does not find in the module, as at the moment of `@decorator`."""
    import types

    made = types.FunctionType(
        fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__
    )
    made.__kwdefaults__ = fn.__kwdefaults__
    made.__annotations__ = fn.__annotations__
    made.__doc__ = fn.__doc__
    return made


@BOTH
def test_every_parameter_arrives(decorate: Any) -> None:
    """Positional-only, defaults, *args, keyword-only and **kwargs reach the function as given."""
    wrapped = decorate(_local(sync))
    for args, kwargs in [
        ((1,), {"d": True}),
        ((1, "y", 2.0, 3, 4), {"d": False, "e": [1], "f": 9}),
        ((1, "y"), {"c": 5.0, "d": True, "a": "in rest"}),
    ]:
        with ld.session("u"):
            assert wrapped(*args, **kwargs) == sync(*args, **kwargs)


@BOTH
@pytest.mark.parametrize("fn", [sync, coro, gen, agen], ids=lambda fn: fn.__name__)
def test_a_wrong_call_fails_where_it_is_made(decorate: Any, fn: Any) -> None:
    """At the call, with Python's own message, for every kind; nothing has run, so nothing is
    recorded.
    """
    local = _local(fn)
    with pytest.raises(TypeError) as plain:
        local(1, 2, 3, 4, x=5, unknown=6) if fn is not sync else local()
    for wrapped in (decorate(local), decorate(functools.partial(local))):
        with ld.session("u") as s, pytest.raises(TypeError) as ours:
            wrapped(1, 2, 3, 4, x=5, unknown=6) if fn is not sync else wrapped()
        assert str(ours.value) == str(plain.value)
        del s


def test_a_wrong_call_of_a_function_is_no_run() -> None:
    """The function never started."""
    wrapped = ld.track_task("k")(_local(sync))
    with ld.session("u") as s, pytest.raises(TypeError):
        wrapped()
    assert counts(s) == (0, 0, 0, 0)


def test_parameters_with_our_own_names() -> None:
    """Names that our code uses inside are free for the application."""

    @ld.track_task("k")
    def odd(
        _session: int, _fn: int, _result: int = 3, *_args: int, _started: int = 5, **_kwargs: int
    ) -> tuple[Any, ...]:
        return _session, _fn, _result, _args, _started, _kwargs

    with ld.session("u") as s:
        assert odd(1, 2) == (1, 2, 3, (), 5, {})
        assert odd(1, 2, 3, 4, _started=6, type=7) == (1, 2, 3, (4,), 6, {"type": 7})
        assert counts(s) == (2, 0, 0, 0)


def test_names_of_the_application_are_not_ours() -> None:
    """A module that calls something of its own `type` or `len` is measured like any other."""
    source = "len = type = BaseException = None\ndef work(x):\n    return x\n"
    module: dict[str, Any] = {"__name__": "odd"}
    exec(source, module)
    wrapped = ld.track_task("k")(module["work"])
    with ld.session("u") as s:
        assert wrapped(3) == 3
        assert counts(s) == (1, 0, 0, 0)


# -- errors ----------------------------------------------------------------------------------------


def _frames(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def _ours(error: BaseException) -> int:
    return sum(
        "ldinstrument" in frame.filename for frame in traceback.extract_tb(error.__traceback__)
    )


class Failing:
    def __call__(self) -> None:
        fail()


def fail() -> None:
    try:
        raise KeyError("first")
    except KeyError as cause:
        raise ValueError("second") from cause


async def afail() -> None:
    fail()


def gfail() -> Generator[int, None, None]:
    yield 1
    fail()


async def agfail() -> AsyncGenerator[int, None]:
    yield 1
    fail()


def _run(made: Any) -> None:
    if inspect.isawaitable(made):
        asyncio.run(_awaiting(made))
    elif inspect.isgenerator(made):
        list(made)
    elif inspect.isasyncgen(made):
        asyncio.run(_consuming(made))


async def _awaiting(made: Any) -> None:
    await made


async def _consuming(made: Any) -> None:
    async for _ in made:
        pass


@BOTH
@pytest.mark.parametrize("inside", [True, False], ids=["in a session", "without"])
@pytest.mark.parametrize(
    "make",
    [
        lambda d: d(_local(fail)),
        lambda d: d(fail),
        lambda d: d(_local(afail)),
        lambda d: d(_local(gfail)),
        lambda d: d(_local(agfail)),
        lambda d: d(functools.partial(fail)),
        lambda d: d(functools.partial(afail)),
        lambda d: d(functools.partial(gfail)),
        lambda d: d(functools.partial(agfail)),
        lambda d: d(Failing()),
    ],
    ids=[
        "sync",
        "proxy",
        "coro",
        "gen",
        "agen",
        "partial",
        "partial coro",
        "partial gen",
        "partial agen",
        "object",
    ],
)
def test_an_exception_comes_out_as_it_went_in(decorate: Any, make: Any, inside: bool) -> None:
    """The same object, cause and context, with one more frame at most in its traceback."""
    with (
        ld.session("u") if inside else contextlib.nullcontext(),
        pytest.raises(ValueError, match="second") as caught,
    ):
        _run(make(decorate)())
    error = caught.value
    assert isinstance(error.__cause__, KeyError)
    assert error.__context__ is error.__cause__
    assert error.__cause__.__context__ is None
    assert _ours(error) <= 1
    assert _frames(error)[-1] == "fail"


@BOTH
def test_a_thrown_exception_keeps_its_traceback(decorate: Any) -> None:
    """Thrown in and coming out again: our frame is in it once, however often it passed through."""

    def items() -> Generator[int, None, None]:
        while True:
            yield 1

    async def aitems() -> AsyncGenerator[int, None]:
        while True:
            yield 1

    async def throwing() -> ValueError:
        generator = decorate(aitems)()
        await generator.__anext__()
        with pytest.raises(ValueError, match="in") as caught:
            await generator.athrow(ValueError("in"))
        return caught.value

    timed = ld.track_task("k", metrics=("time_to_first_item",))
    errors: list[BaseException] = []
    for function in (decorate(items), timed(_local(gfail))):
        generator = function()
        next(generator)
        with pytest.raises(ValueError, match="in") as caught:
            generator.throw(ValueError("in"))
        errors.append(caught.value)
    errors.append(asyncio.run(throwing()))
    for error in errors:
        assert _ours(error) == 1
        assert error.__context__ is None


def test_a_traceback_shows_our_line() -> None:
    """The one frame of ours has its source, as a dataclass's generated method has not."""
    wrapped = ld.track_task("k")(_local(fail))
    with pytest.raises(ValueError, match="second") as caught:
        wrapped()
    ours = next(
        frame
        for frame in traceback.extract_tb(caught.value.__traceback__)
        if "ldinstrument" in frame.filename
    )
    assert ours.line == "_result = _fn()"


def test_runaway_recursion_is_the_recursion_error() -> None:
    """At the limit there is no room left for us either; the program's own error comes out."""

    @ld.track_task("k")
    def deep(n: int) -> int:
        return deep(n + 1)

    gc.collect()  # finalisers of what other tests left would fail at the limit, too
    with ld.session("u") as s:
        with pytest.raises(RecursionError):
            deep(0)
        successes, failures, *_ = counts(s)
        assert successes == 0
        assert failures > 0


def test_recursion_counts_each_call() -> None:
    """Five nested calls are five runs."""

    @ld.track_task("k")
    def down(n: int) -> int:
        return 0 if n == 0 else down(n - 1) + 1

    with ld.session("u") as s:
        assert down(4) == 4
        assert counts(s) == (5, 0, 0, 0)


def test_our_garbage_holds_nothing_alive() -> None:
    """After a failure no cycle of ours keeps the exception, or what its frames hold, alive."""
    import weakref

    class Big:
        pass

    @ld.track_task("k", metrics=("time_to_first_item",))
    def items(big: Any) -> Generator[int, None, None]:
        yield 1

    @ld.track_task("k2")
    def call(big: Any) -> None:
        raise ValueError("x")

    def use() -> list[weakref.ref[Any]]:
        one, two = Big(), Big()
        generator = items(one)
        next(generator)
        with contextlib.suppress(ValueError):
            generator.throw(ValueError("y"))
        with contextlib.suppress(ValueError):
            call(two)
        return [weakref.ref(one), weakref.ref(two)]

    gc.disable()
    try:
        with ld.session("u"):
            assert [ref() for ref in use()] == [None, None]
    finally:
        gc.enable()


# -- descriptors -----------------------------------------------------------------------------------


@BOTH
def test_abstract_methods_stay_abstract(decorate: Any) -> None:
    """Above and below `abstractmethod`."""

    class Base(abc.ABC):
        @abc.abstractmethod
        @decorate
        def below(self) -> int: ...

        @decorate
        @abc.abstractmethod
        def above(self) -> int: ...

        @decorate
        @classmethod
        @abc.abstractmethod
        def factory(cls) -> int: ...

    assert Base.__abstractmethods__ == {"below", "above", "factory"}
    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]


@BOTH
def test_plain_methods_bind(decorate: Any) -> None:
    """To instances, from the class, through `super()`, partial and async."""

    class Thing:
        def __init__(self, x: int) -> None:
            self.x = x

        @decorate
        def method(self, y: int = 1) -> int:
            return self.x + y

        def _added(self, y: int) -> int:
            return self.x + y

        partial = decorate(functools.partialmethod(_added, 5))

        @decorate
        async def coroutine(self) -> int:
            return self.x

    class Sub(Thing):
        def method(self, y: int = 1) -> int:
            return super().method(y) * 10

    thing = Thing(3)
    with ld.session("u"):
        assert (thing.method(), thing.method(2), Thing.method(thing, 4)) == (4, 5, 7)
        assert Sub(1).method() == 20
        assert thing.partial() == 8
        assert asyncio.run(_awaited(thing.coroutine())) == 3
    assert inspect.ismethod(thing.method)
    assert str(inspect.signature(thing.method)) == "(y: 'int' = 1) -> 'int'"


@BOTH
def test_class_and_static_methods_bind(decorate: Any) -> None:
    """Decorated above and below `classmethod` and `staticmethod`, of classes and instances."""

    class Thing:
        @decorate
        @classmethod
        def class_above(cls) -> Thing:
            return cls()

        @classmethod
        @decorate
        def class_below(cls) -> Thing:
            return cls()

        @decorate
        @staticmethod
        def static_above(x: int) -> int:
            return x

        @staticmethod
        @decorate
        def static_below(x: int) -> int:
            return x

    class Sub(Thing): ...

    thing = Thing()
    with ld.session("u"):
        assert type(Sub.class_above()) is type(Sub.class_below()) is Sub
        assert type(thing.class_above()) is type(Thing.class_below()) is Thing
        assert Thing.static_above(1) == thing.static_above(1) == 1
        assert Thing.static_below(1) == thing.static_below(1) == 1
    assert isinstance(vars(Thing)["class_above"], classmethod)
    assert isinstance(vars(Thing)["static_above"], staticmethod)


@BOTH
def test_properties_stay_properties(decorate: Any) -> None:
    """With setter and doc; a cached one is worked out once."""

    class Thing:
        def __init__(self, x: int) -> None:
            self.x = x

        @decorate
        @property
        def above(self) -> int:
            """Documented."""
            return self.x

        @above.setter
        def above(self, x: int) -> None:
            self.x = x

        @property
        @decorate
        def below(self) -> int:
            return self.x

        @decorate
        @functools.cached_property
        def cached_above(self) -> int:
            return self.x

        @functools.cached_property
        @decorate
        def cached_below(self) -> int:
            return self.x

    thing = Thing(3)
    with ld.session("u"):
        assert thing.above == thing.below == thing.cached_above == thing.cached_below == 3
        thing.above = 8
        assert (thing.above, thing.below, thing.cached_above, thing.cached_below) == (8, 8, 3, 3)
    assert Thing.above.__doc__ == "Documented."


async def _awaited(made: Any) -> Any:
    return await made


@BOTH
def test_classes_are_refused(decorate: Any) -> None:
    """A wrapped class breaks pickling of its instances, so it is refused with the reason."""

    class Thing:
        pass

    with pytest.raises(
        DefinitionError, match=r"Thing is a class; .*pickling.*decorate __init__ or the methods"
    ):
        decorate(Thing)


@BOTH
def test_what_is_no_callable_is_refused(decorate: Any) -> None:
    """A coroutine or generator object was called already; a number was never a function."""
    coroutine = coro(1)
    with pytest.raises(DefinitionError, match=r"coro\(...\) was called already"):
        decorate(coroutine)
    coroutine.close()
    with pytest.raises(DefinitionError, match=r"gen\(...\) was called already"):
        decorate(gen(1))
    with pytest.raises(DefinitionError, match="int object cannot be called"):
        decorate(3)
    with pytest.raises(DefinitionError, match="without a getter"):
        decorate(property(None))


# -- other decorators ------------------------------------------------------------------------------


def test_lru_cache_above_and_below() -> None:
    """Above, hits do not run the function; below, every call is a run, and the cache's own methods
    are there.
    """

    @functools.lru_cache
    @ld.track_task("inner")
    def above(x: int) -> int:
        return x

    @ld.track_task("outer")
    @functools.lru_cache(maxsize=3)
    def below(x: int) -> int:
        return x

    with ld.session("u") as s:
        assert [above(1), above(1), below(1), below(1)] == [1] * 4
        assert (counts(s, "inner"), counts(s, "outer")) == ((1, 0, 0, 0), (2, 0, 0, 0))
    assert below.cache_info().hits == 1
    below.cache_clear()
    assert below.cache_info().currsize == 0
    assert below.cache_parameters()["maxsize"] == 3


def test_a_cached_method() -> None:
    """An `lru_cache` object binds like a function, and so does its stand-in."""

    class Thing:
        @ld.track_task("k")
        @functools.lru_cache  # noqa: B019
        def method(self, x: int) -> int:
            return x

    thing = Thing()
    with ld.session("u") as s:
        assert (thing.method(1), Thing.method(thing, 1)) == (1, 1)
        assert counts(s) == (2, 0, 0, 0)
    assert thing.method.__self__ is thing
    assert Thing.method.cache_info().hits == 1


def test_a_class_that_is_there_already() -> None:
    """What is decorated after its class was made, as monkey-patching tools do, knows its name all
    the same.
    """

    class Report:
        @functools.cached_property
        def total(self) -> int:
            """All of it."""
            return 3

        @property
        def name(self) -> str:
            """Its name."""
            return "r"

    Report.total = ld.track_task("k")(vars(Report)["total"])
    Report.name = ld.track_task("other")(vars(Report)["name"])  # type: ignore[method-assign]
    report = Report()
    with ld.session("u") as s:
        assert [report.total, report.total, report.name] == [3, 3, "r"]
        assert counts(s) == counts(s, "other") == (1, 0, 0, 0)
    assert vars(report) == {"total": 3}
    assert [vars(Report)["total"].__doc__, vars(Report)["name"].__doc__] == [
        "All of it.",
        "Its name.",
    ]


class Stored:
    """A data descriptor, as those of ORMs: it is told its name, and takes part in assignment and
    deletion.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self.function, instance)

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[f"set {self.name}"] = value

    def __delete__(self, instance: Any) -> None:
        del instance.__dict__[f"set {self.name}"]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def test_a_data_descriptor_stays_one() -> None:
    """Its name, its assignment and its deletion are its own, and a call is measured."""

    class Row:
        @ld.track_task("k")
        @Stored
        def total(self, n: int) -> int:
            return n

    row = Row()
    with ld.session("u") as s:
        assert row.total(3) == 3  # type: ignore[operator]
        assert counts(s) == (1, 0, 0, 0)
    row.total = 7  # type: ignore[assignment, method-assign]
    assert vars(row) == {"set total": 7}
    del row.total
    assert vars(row) == {}


def test_builtin_and_foreign_descriptors() -> None:
    """A method descriptor written in C, and one of another library, bind as before."""
    import wrapt

    @wrapt.decorator
    def passing(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(*args, **kwargs)

    class Thing(list):  # type: ignore[type-arg]
        add = ld.track_task("add")(list.append)

        @ld.track_task("over")
        @passing
        def over(self, x: int) -> tuple[Any, int]:
            return self, x

    thing = Thing()
    with ld.session("u") as s:
        thing.add(3)
        assert thing == [3]
        assert thing.over(4) == (thing, 4)
        assert Thing.over(thing, 5) == (thing, 5)
        assert counts(s, "add") == (1, 0, 0, 0)
        assert counts(s, "over") == (2, 0, 0, 0)


def test_context_managers_above_and_below() -> None:
    """The task of a context manager is its `with` block: timed to its end, failed by its
    exception.
    """

    @contextlib.contextmanager
    @ld.track_task("below")
    def below() -> Iterator[str]:
        yield "b"

    @ld.track_task("above")
    @contextlib.contextmanager
    def above() -> Iterator[str]:
        yield "a"

    @ld.track_task("both")
    @contextlib.asynccontextmanager
    async def both() -> Any:
        yield "c"

    async def main() -> None:
        async with both() as got:
            assert got == "c"
        with pytest.raises(KeyError):
            async with both():
                raise KeyError

    with ld.session("u") as s:
        for manager, key in ((below, "below"), (above, "above")):
            with manager() as got:
                assert got == key[0]
                assert counts(s, key) == (0, 0, 0, 0)
            assert counts(s, key) == (1, 0, 0, 0)
            with pytest.raises(KeyError) as caught, manager():
                raise KeyError("inside")
            assert caught.value.__context__ is None
            assert counts(s, key) == (1, 1, 0, 0)

            @manager()
            def decorated() -> int:
                return 4

            assert decorated() == 4
        asyncio.run(main())
        assert counts(s, "both") == (1, 1, 0, 0)


def test_singledispatch_above_and_below() -> None:
    """Registration stays possible on the decorated function; decorated implementations dispatch."""

    @ld.track_task("outer")
    @functools.singledispatch
    def show(x: object) -> str:
        return "object"

    @show.register
    def _(x: int) -> str:
        return "int"

    @functools.singledispatch
    def render(x: object) -> str:
        return "object"

    @render.register
    @ld.track_task("inner")
    def _inner(x: int) -> str:
        return "int"

    class Thing:
        @ld.track_task("method")
        @functools.singledispatchmethod
        def take(self, x: object) -> str:
            return "object"

        @take.register
        def _(self, x: int) -> str:
            return "int"

    with ld.session("u") as s:
        assert (show(1), show("x"), render(1), render("x")) == ("int", "object", "int", "object")
        assert (Thing().take(1), Thing().take("x")) == ("int", "object")
        assert {key: counts(s, key)[0] for key in s.summary().tasks} == {
            "outer": 2,
            "inner": 1,
            "method": 2,
        }


def test_other_wrappers_above_and_below() -> None:
    """A decorator made with `functools.wraps`, on either side."""

    def doubling(fn: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> int:
            return fn(*args, **kwargs) * 2

        return wrapper

    @doubling
    @ld.track_task("low")
    def low(x: int) -> int:
        return x

    @ld.track_task("high")
    @doubling
    def high(x: int) -> int:
        return x

    with ld.session("u") as s:
        assert (low(1), high(2)) == (2, 4)
        assert (counts(s, "low"), counts(s, "high")) == ((1, 0, 0, 0), (1, 0, 0, 0))
    assert inspect.signature(low) == inspect.signature(high)


# -- warnings with the caller's line ---------------------------------------------------------------


def _only(caught: list[warnings.WarningMessage]) -> warnings.WarningMessage:
    assert [str(warning.message) for warning in caught][1:] == []
    assert caught[0].filename == __file__
    return caught[0]


def test_above_a_fixture_or_a_setter() -> None:
    """Where it cannot work it says so, with the line, and leaves what is there intact."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        @ld.track_task("k")
        @pytest.fixture
        def thing() -> int:
            return 1

    assert "above @pytest.fixture has no effect" in str(_only(caught).message)
    assert type(thing).__module__ == "_pytest.fixtures"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        class Thing:
            @property
            def x(self) -> int:
                return 1

            @ld.track_task("x")
            @x.setter
            def x(self, value: int) -> None: ...

    assert "measures the getter" in str(_only(caught).message)
    Thing().x = 4
    with ld.session("u") as s:
        assert Thing().x == 1
        assert counts(s, "x") == (1, 0, 0, 0)


def test_above_a_task_queue_or_a_command() -> None:
    """Celery and click keep the function they were given; so does the object that they return."""
    celery = pytest.importorskip("celery")
    click = pytest.importorskip("click")
    app = celery.Celery("test", broker="memory://")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        @ld.track_task("k")
        @app.task
        def job() -> int:
            return 1

        @ld.track_task("c")
        @click.command
        def command() -> None: ...

    said = [str(warning.message) for warning in caught if "has no effect" in str(warning.message)]
    assert ["@app.task" in said[0], "@click.command" in said[1], len(said)] == [True, True, 2]
    assert {warning.filename for warning in caught if "has no effect" in str(warning.message)} == {
        __file__
    }
    assert job() == 1
    assert isinstance(command, click.Command)


def test_below_a_task_queue() -> None:
    """Written below, it measures what the worker runs."""
    celery = pytest.importorskip("celery")
    app = celery.Celery("test", broker="memory://")

    @app.task(name="add")
    @ld.track_task("k")
    def add(x: int, y: int) -> int:
        return x + y

    with ld.session("u") as s:
        assert add.apply((1, 2)).get() == 3
        with pytest.raises(TypeError):
            add.delay(1)  # Celery checks the arguments against the signature
        assert counts(s) == (1, 0, 0, 0)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
def test_a_function_marked_as_a_coroutine_function() -> None:
    """It still runs its own code at the call, and is still seen as marked."""
    ran: list[str] = []

    def marked() -> Any:
        ran.append("at the call")
        return coro(1)

    inspect.markcoroutinefunction(marked)  # type: ignore[attr-defined, unused-ignore]
    wrapped = ld.track_task("k")(marked)
    assert inspect.iscoroutinefunction(wrapped)
    with ld.session("u") as s:
        made = wrapped()
        assert ran == ["at the call"]
        assert asyncio.run(_awaited(made)) == 3
        assert counts(s) == (1, 0, 0, 0)


def test_mocks_can_be_decorated() -> None:
    """A mock answers to every name; it is proxied and called like any object."""
    from unittest.mock import MagicMock

    mock = MagicMock(return_value=3)
    with ld.session("u") as s:
        assert ld.track_task("k")(mock)(1) == 3
        assert counts(s) == (1, 0, 0, 0)
    mock.assert_called_once_with(1)


# -- pickle and copy -------------------------------------------------------------------------------


@ld.track_task("module.function")
def module_function(x: int) -> int:
    """Found by pickle under its name."""
    return x + 1


def plain_function(x: int) -> int:
    return x + 2


async def plain_coroutine(x: int) -> int:
    return x + 2


class Scaled:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return x * self.factor

    @ld.track_task("module.method")
    def method(self, x: int) -> int:
        return x * self.factor

    @ld.track_task("module.cached")
    @functools.lru_cache  # noqa: B019
    def cached(self, x: int) -> int:
        return x


@ld.track_task("module.lru")
@functools.lru_cache
def cached_function(x: int) -> int:
    return x


renamed = ld.track_task("module.renamed")(plain_function)
renamed_session = ld.session(name="pickled")(plain_function)
partial = ld.track_task("module.partial", data=None)(functools.partial(plain_function, 5))
instance = ld.track_task("module.instance")(Scaled(3))


@pytest.mark.parametrize(
    ("thing", "args", "result"),
    [
        (module_function, (1,), 2),
        (cached_function, (1,), 1),
        (renamed, (1,), 3),
        (renamed_session, (1,), 3),
        (partial, (), 7),
        (instance, (2,), 6),
        (Scaled(4).method, (2,), 8),
        (Scaled(4).cached, (2,), 2),
        (ld.track_task("module.bound")(Scaled(4).method), (2,), 8),
    ],
    ids=[
        "function",
        "lru",
        "renamed",
        "session",
        "partial",
        "object",
        "method",
        "lru method",
        "bound",
    ],
)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_pickled_and_copied(thing: Any, args: tuple[Any, ...], result: int, protocol: int) -> None:
    """Pickled, copied and deep-copied things do and count what the original does."""
    if protocol == 2 and "." in getattr(thing, "__qualname__", "") and not inspect.ismethod(thing):
        pytest.skip("protocol 2 does not find a method of a class by its name")
    for made in (
        pickle.loads(pickle.dumps(thing, protocol)),
        copy.copy(thing),
        copy.deepcopy(thing),
    ):
        with ld.session("u", name="outer") as s:
            assert made(*args) == result
            if thing is not renamed_session:
                assert sum(counts(s, key)[0] for key in s.summary().tasks) >= 1
        assert type(made).__name__ == type(thing).__name__


def test_by_reference_where_the_original_is() -> None:
    """A function in a module is pickled by name, so the other side gets its own; a deep copy is the
    very same.
    """
    assert pickle.loads(pickle.dumps(module_function)) is module_function
    assert pickle.loads(pickle.dumps(cached_function)) is cached_function
    assert copy.deepcopy(module_function) is module_function
    assert copy.deepcopy(renamed) is renamed
    assert copy.deepcopy({"handler": instance})["handler"].factor == 3


def test_options_are_pickled_with_the_function() -> None:
    """Extractors and expected exceptions that pickle finds by name travel along."""
    made = pickle.loads(
        pickle.dumps(
            ld.track_task("k", success=bool, expected=KeyError)(functools.partial(int, "0"))
        )
    )
    with ld.session("u") as s:
        assert made() == 0
        assert counts(s) == (0, 1, 0, 0)


def _measured_there(fn: Any, *args: Any) -> tuple[Any, int]:
    with ld.session("u") as s:
        return fn(*args), sum(counts(s, key)[0] for key in s.summary().tasks)


def test_process_pool() -> None:
    """Decorated functions, partials and methods run in a worker process, and are measured there."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        for fn, args, result in (
            (module_function, (1,), 2),
            (renamed, (1,), 3),
            (partial, (), 7),
            (Scaled(2).method, (2,), 4),
        ):
            assert pool.submit(fn, *args).result(30) == result
            assert pool.submit(_measured_there, fn, *args).result(30) == (result, 1)


@pytest.mark.filterwarnings("ignore:functools.partial will be a method descriptor:FutureWarning")
def test_proxies_are_what_they_stand_for() -> None:
    """Class, attributes, equality, module and doc are those of the original; a proxy of a partial
    is no descriptor.
    """
    assert isinstance(instance, Scaled)
    assert instance.factor == 3
    assert instance.__doc__ == Scaled.__doc__
    assert instance.__module__ == Scaled.__module__
    assert isinstance(partial, functools.partial)
    assert renamed.__doc__ == plain_function.__doc__
    assert renamed.__module__ == __name__
    assert inspect.isfunction(renamed)
    assert isinstance(ld.track_task("c")(plain_coroutine), collections.abc.Callable)  # type: ignore[arg-type]
    assert inspect.iscoroutinefunction(ld.track_task("c")(plain_coroutine))

    class Thing:
        call = ld.track_task("thing")(functools.partial(plain_function, 1))

    assert Thing().call() == 3
