"""Check values where they are given, and give classes of values equality without `dataclasses`.

Each check returns its argument, so that it can stand where the value is used, and takes *what* as
the user spells it, such as `EventProcessor: max_age=`. One wording for each kind of mistake, for
every package.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from .errors import DefinitionError

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


# -- classes of values -----------------------------------------------------------------------------


class Fields:
    """A class whose `__slots__` are its fields, in the order of its `__init__`: printed and
    compared by them.

    A dataclass does the same by code that it generates and runs at every import: half a millisecond
    each, which was half of the price of ours.
    """

    __slots__: tuple[str, ...] = ()
    _read: ClassVar[attrgetter[Any]]

    def __init_subclass__(cls) -> None:
        if cls.__slots__:
            cls._read = attrgetter(*cls.__slots__)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with *changes*, by field."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return type(self)(**{**fields, **changes})

    __replace__ = replace  # of `copy.replace`, Python 3.13

    def __repr__(self) -> str:
        fields = ", ".join([f"{name}={getattr(self, name)!r}" for name in self.__slots__])
        return f"{type(self).__name__}({fields})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(self._read(self) == self._read(other))


class Frozen(Fields):
    """Fields that never change, and can be a key of a dictionary; `__init__` calls `_fill`."""

    __slots__: tuple[str, ...] = ()

    def _fill(self, *values: Any) -> None:
        """Set the fields, in order."""
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        _refuse_change("assign to", name)

    def __delattr__(self, name: str) -> NoReturn:
        _refuse_change("delete", name)

    def __hash__(self) -> int:
        return hash(self._read(self))

    def __getstate__(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__slots__])

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._fill(*state)


def _refuse_change(what: str, name: str) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot {what} field {name!r}")


# -- checks ----------------------------------------------------------------------------------------


def is_number(value: object) -> bool:
    """Tell whether *value* is an `int` or `float` that can be compared: no boolean, no NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def above_zero(what: str, value: Any, unit: str = "seconds") -> Any:
    """Return *value*, a number of *unit* above 0; infinity is one.

    Raises:
        DefinitionError: it is none.
    """
    if not is_number(value) or not value > 0:
        raise _refused(what, f"a number of {unit} above 0", value)
    return value


def from_zero(what: str, value: Any, unit: str = "seconds") -> Any:
    """Return *value*, a number of *unit* from 0 on; infinity is one.

    Raises:
        DefinitionError: it is none.
    """
    if not is_number(value) or not value >= 0:
        raise _refused(what, f"a number of {unit} from 0 up", value)
    return value


def whole_above_zero(what: str, value: Any) -> int:
    """Return *value*, a whole number above 0.

    Raises:
        DefinitionError: it is none.
    """
    if not is_number(value) or not isinstance(value, int) or value < 1:
        raise _refused(what, "a whole number above 0", value)
    return value


def seconds_from_text(what: str, text: str) -> float:
    """Return the number of seconds above 0 that *text* says, as in a URL's `?timeout=0.25`.

    Raises:
        DefinitionError: it says none.
    """
    try:
        return float(above_zero(what, float(text)))
    except ValueError:
        raise DefinitionError(f"{what} is a number of seconds above 0, not {text!r:.60}") from None


def callable_or_none(what: str, value: T) -> T:
    """Return *value*, which can be called or is None.

    Raises:
        DefinitionError: it is neither.
    """
    if value is not None and not callable(value):
        raise _refused(what, "something to call, or None", value)
    return value


def one_of(what: str, value: T, choices: tuple[T, ...]) -> T:
    """Return *value*, which is one of *choices*.

    Raises:
        DefinitionError: it is none of them.
    """
    if value not in choices:
        shown = " or ".join(repr(choice) for choice in choices)
        raise DefinitionError(f"{what} is {shown}, not {value!r:.60}")
    return value


def without_surrogates(text: str) -> str:
    """Return *text* with a question mark for each lone surrogate, which UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _refused(what: str, wanted: str, value: object) -> DefinitionError:
    # A number may be shown; anything else could be somebody's data.
    given = repr(value) if is_number(value) else type(value).__name__
    return DefinitionError(f"{what} is {wanted}, not {given}")
