"""Decorate anything callable and leave it what it was: the same kind of descriptor, function or
object.

A plain function becomes a function with the same signature (see `compiler`). What is no plain
function (partials, `lru_cache` objects, callable objects, bound methods) becomes a proxy of
`wrapt`, so that its own attributes stay reachable.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, overload
from weakref import WeakKeyDictionary

from ..diagnostics import warn_caller
from ..errors import DefinitionError
from .compiler import Unawaited, is_shaped, shaped
from .templates import PASSING

if TYPE_CHECKING:
    # What may be decorated; it keeps its very type, so the decorators are typed `F -> F`.
    Decorated: TypeAlias = (
        Callable[..., Any]
        | classmethod[Any, Any, Any]
        | property
        | functools.cached_property[Any]
        | functools.partialmethod[Any]
        | functools.singledispatchmethod[Any]
    )


class Wrapper(Protocol):
    """Knows how to wrap each kind of callable; must be picklable where the decorated object is."""

    @property
    def what(self) -> str:
        """How the user calls it, for messages: `track_task`."""

    def wrap(self, fn: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """Return a function that runs *fn*, which is of this *kind*: `call`, `coroutine`,
        `generator`, `async_generator`.
        """

    def stream(self, kind: str) -> Callable[[Any], Any]:
        """Return a function that watches a coroutine or generator that nobody has started yet."""


def rebuilt(target: Any, wrapper: Wrapper) -> Any:
    """*target*, wrapped at its innermost function, with the descriptors around it made anew.

    Raises:
        DefinitionError: for a class, and for what cannot be called.
    """
    if isinstance(target, type):
        raise DefinitionError(
            f"{wrapper.what}: {target.__qualname__} is a class; decorating one would break "
            f"pickling and isinstance of "
            "its instances: decorate __init__ or the methods"
        )
    for kind, remake in _DESCRIPTORS:
        if isinstance(target, kind):
            return remake(target, wrapper)
    if type(target) is types.FunctionType:
        return _rebuilt_function(target, wrapper)
    if (above := _registered_by(target)) is not None:
        warn_caller(
            f"{wrapper.what} above {above} has no effect: that decorator keeps the function below "
            f"it; "
            f"write {above} above {wrapper.what}"
        )
        return target
    if not callable(target) and not isinstance(target, functools.singledispatchmethod):
        raise DefinitionError(
            f"{wrapper.what}: {_problem(target)}; decorate a function, method or callable object"
        )
    return proxied(target, wrapper)


class Rebinder:
    """Wraps what a framework decorates anew in each request: the same method, bound to a new
    object.

    Django's `method_decorator` does so, with a `partial` whose `__wrapped__` is the method. From
    the second time on, one class made for the method serves all its partials.
    """

    def __init__(self) -> None:
        self._types: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def rebound(self, target: Any, wrapper: Callable[[], Wrapper]) -> Any | None:
        """Return *target* wrapped; None when it is no such partial, or the first one.

        Args:
            target: what is decorated.
            wrapper: makes the wrapper, when a class has to be made.
        """
        method = getattr(target, "__wrapped__", None)
        if type(target) is not functools.partial or type(method) is not types.FunctionType:
            return None
        if method not in self._types:
            self._types[method] = None
            return None
        made = self._types[method]
        if made is None:
            made = self._types[method] = _bound_type(target, wrapper())
        return made(target)


def _problem(target: Any) -> str:
    if isinstance(target, (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)):
        return f"{target.__qualname__}(...) was called already, this is its {type(target).__name__}"
    return f"{type(target).__qualname__} object cannot be called"


def kind_of(fn: Any) -> str:
    """Return what calling *fn* makes, as far as that shows beforehand: `coroutine`, `generator`,
    `async_generator`, `call`.

    By what the code is, not by what it is marked as: `inspect.markcoroutinefunction` marks
    functions that run at once.
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not isinstance(fn, (types.FunctionType, types.MethodType)):
        fn = getattr(type(fn), "__call__", fn)  # noqa: B004 - not whether, but which
    flags = getattr(getattr(fn, "__code__", None), "co_flags", 0)
    if flags & inspect.CO_COROUTINE:
        return "coroutine"
    if flags & inspect.CO_ASYNC_GENERATOR:
        return "async_generator"
    return "generator" if flags & inspect.CO_GENERATOR else "call"


# -- functions, and the descriptors around them ----------------------------------------------------


def _rebuilt_function(target: types.FunctionType, wrapper: Wrapper) -> Any:
    remake = _CONTEXT_MANAGERS.get(target.__code__)
    if remake is not None and hasattr(target, "__wrapped__"):
        # The task of a context manager is its `with` block, so the generator inside is what must be
        # wrapped.
        return remake(rebuilt(target.__wrapped__, wrapper))
    if "." not in target.__qualname__ and _global_name(target):
        # Called as `other = track_task("key")(function)`: pickle finds `function` under its name,
        # not what we make.
        return proxied(target, wrapper)
    return wrapper.wrap(target, kind_of(target))


_CONTEXT_MANAGERS: dict[types.CodeType, Callable[[Any], Any]] = {
    remake(lambda: None).__code__: remake  # type: ignore[arg-type, return-value]
    for remake in (contextlib.contextmanager, contextlib.asynccontextmanager)
}


def _rebuilt_method(target: Any, wrapper: Wrapper) -> Any:
    return type(target)(rebuilt(target.__func__, wrapper))


def _rebuilt_property(target: property, wrapper: Wrapper) -> property:
    if target.fget is None:
        raise DefinitionError(
            f"{wrapper.what}: a property without a getter; decorate its setter function"
        )
    if target.fset is not None or target.fdel is not None:
        warn_caller(
            f"{wrapper.what} above @{target.fget.__name__}.setter measures the getter, not the "
            f"setter; "
            "write it below @...setter, or above @property"
        )
    getter = target.fget if is_shaped(target.fget) else rebuilt(target.fget, wrapper)
    return type(target)(getter, target.fset, target.fdel, target.__doc__)


def _rebuilt_cached_property(target: functools.cached_property[Any], wrapper: Wrapper) -> Any:
    made = type(target)(rebuilt(target.func, wrapper))
    made.attrname, made.__doc__ = target.attrname, target.__doc__
    return made


def _rebuilt_partialmethod(target: functools.partialmethod[Any], wrapper: Wrapper) -> Any:
    return type(target)(rebuilt(target.func, wrapper), *target.args, **target.keywords)


_DESCRIPTORS: tuple[tuple[Any, Callable[[Any, Wrapper], Any]], ...] = (
    ((classmethod, staticmethod), _rebuilt_method),
    (property, _rebuilt_property),
    (functools.cached_property, _rebuilt_cached_property),
    (functools.partialmethod, _rebuilt_partialmethod),
)


# -- what is no plain function ---------------------------------------------------------------------


def proxied(target: Any, wrapper: Wrapper) -> Any:
    """Return a transparent proxy of *target* that runs it through *wrapper*; picklable and
    deep-copyable like *target*.

    Each has a class of its own, so that the call goes straight to the function that measures: half
    the cost of `wrapt.FunctionWrapper`, and one frame in a traceback.
    """
    body: dict[str, Any] = dict(_FORWARDED)
    if callable(target):
        body["__call__"] = staticmethod(_running(target, wrapper))
    if hasattr(type(target), "__get__"):
        body["__get__"] = _bind
    # Python looks these up on the type, and no proxy of wrapt has them.
    body.update(
        {name: _passed_on(name) for name in _DESCRIPTOR_PROTOCOL if hasattr(type(target), name)}
    )
    made = type("Tracked", (_proxy_type(),), body)(target)
    made._self_wrapper = wrapper
    made._self_bound_type = None
    return made


def _forwarded(name: str) -> Any:
    def get(self: Any) -> Any:
        return getattr(self.__wrapped__, name)

    def put(self: Any, value: Any) -> None:
        setattr(self.__wrapped__, name, value)

    return property(get, put)


_DESCRIPTOR_PROTOCOL = ("__set_name__", "__set__", "__delete__")


def _passed_on(name: str) -> Any:
    return lambda self, *args: getattr(self.__wrapped__, name)(*args)


# Every class has these two of its own, which would hide those of what is wrapped.
_FORWARDED = {name: _forwarded(name) for name in ("__module__", "__doc__")}


def _running(target: Any, wrapper: Wrapper) -> Callable[..., Any]:
    kind = kind_of(target)
    if kind == "call" or type(target) is types.FunctionType or _has_async_call(target):
        return wrapper.wrap(target, kind)
    # Call at once, as without us, so that a wrong call fails here; the run begins with the first
    # item or the await.
    stream = wrapper.stream(kind)
    held = (lambda inner: stream(Unawaited(inner))) if kind == "coroutine" else stream
    made: Callable[..., Any] = shaped(PASSING, target, {"_stream": held})
    return made


def _has_async_call(target: Any) -> bool:
    """Tell whether frameworks see that *target* is async by asking its `__call__`, so that ours
    must be async, too.
    """
    call = getattr(type(target), "__call__", None)  # noqa: B004 - not whether, but which
    return inspect.iscoroutinefunction(call)


@functools.lru_cache(maxsize=1)
def _proxy_type() -> Any:
    # wrapt 2.x imports asyncio (50 ms): only a program that decorates such an object pays.
    import wrapt

    class TrackedCallable(wrapt.ObjectProxy):  # type: ignore[type-arg, misc, unused-ignore]
        """A decorated callable that is no plain function."""

        def __reduce_ex__(self, protocol: Any) -> Any:
            where = _global_name(self)
            return where if where else (proxied, (self.__wrapped__, self._self_wrapper))

        def __reduce__(self) -> Any:
            return self.__reduce_ex__(2)

        def __copy__(self) -> Any:
            return _copied(self, copy.copy(self.__wrapped__))

        def __deepcopy__(self, memo: Any) -> Any:
            return _copied(self, copy.deepcopy(self.__wrapped__, memo))

    return TrackedCallable


def _copied(proxy: Any, inner: Any) -> Any:
    return proxy if inner is proxy.__wrapped__ else proxied(inner, proxy._self_wrapper)


def _bind(self: Any, instance: Any, owner: Any = None) -> Any:
    """Bind as what is wrapped binds: to the same instance, as the same kind of method."""
    inner = self.__wrapped__
    bound = inner.__get__(instance, owner)
    if bound is inner:
        return self
    if type(bound) is types.MethodType and bound.__func__ is inner:
        return types.MethodType(self, bound.__self__)
    if not callable(bound):
        return bound
    if self._self_bound_type is None:
        self._self_bound_type = _bound_type(bound, self._self_wrapper)
    return self._self_bound_type(bound)


def _bound_type(bound: Any, wrapper: Wrapper) -> Any:
    """Make the class of what a descriptor of another library hands out; one for all instances, as
    making one is slow.
    """
    import wrapt

    run = wrapper.wrap(wrapt.CallableObjectProxy.__call__, kind_of(bound))
    return type("Tracked", (wrapt.CallableObjectProxy,), {**_FORWARDED, "__call__": run})


def _global_name(found: Any) -> str:
    """Return the name under which pickle finds this very object in its module, else ""."""
    name = getattr(found, "__qualname__", None)
    place: Any = sys.modules.get(getattr(found, "__module__", None) or "")
    if not isinstance(name, str) or place is None:
        return ""
    for part in name.split("."):
        place = inspect.getattr_static(place, part, None)
    return name if place is found else ""


# -- where it cannot work --------------------------------------------------------------------------

_REGISTERING = {
    "_pytest": "@pytest.fixture",
    "celery": "@app.task",
    "click": "@click.command",
    "typer": "@app.command",
}


def _registered_by(target: Any) -> str | None:
    """Name the decorator that made *target* and that goes on calling the function it was given, not
    what we would return.
    """
    module = type(target).__module__
    return _REGISTERING.get(module.partition(".")[0]) if isinstance(module, str) else None


# -- a decorator with or without options ----------------------------------------------------------

F = TypeVar("F", bound="Decorated")
P = ParamSpec("P")
S = TypeVar("S")


class ScopeDecorator(Generic[P, S]):
    """`@track`, `@track("key", ...)` and `with track("key", ...):`.

    Args:
        name: how the user calls it; it is pickled by that name.
        make: makes the scope of a key and options; its docstring and parameters are shown.
    """

    def __init__(self, name: str, make: Callable[P, S]) -> None:
        self._make = make
        self._bare: Any = None
        self.__name__ = self.__qualname__ = name
        self.__module__ = make.__module__
        self.__doc__ = make.__doc__
        self.__wrapped__ = make

    @overload
    def __call__(self, target: F, /) -> F: ...

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> S: ...

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Decorate the function that is given, or return the scope of the key and options."""
        if len(args) != 1 or args[0] is None or isinstance(args[0], str):
            return self._make(*args, **options)
        if options:
            return self._scope(**options)(args[0])
        if self._bare is None:  # one for all: it knows the methods that it is given anew each time
            self._bare = self._scope()
        return self._bare(args[0])

    def _scope(self, **options: Any) -> Any:
        return self._make(None, **options)  # type: ignore[arg-type]

    def __reduce__(self) -> str:
        return self.__name__

    def __repr__(self) -> str:
        return f"<decorator {self.__name__}>"
