"""Check arguments where they are given: one wording for each kind of mistake, for every package.

Each function returns its argument, so that a check can stand where the value is used, and takes
*what* as the user spells it, such as `EventProcessor: max_age=`.
"""

from __future__ import annotations

from typing import Any, TypeVar

from .errors import DefinitionError

T = TypeVar("T")


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


def _refused(what: str, wanted: str, value: object) -> DefinitionError:
    # A number may be shown; anything else could be somebody's data.
    given = repr(value) if is_number(value) else type(value).__name__
    return DefinitionError(f"{what} is {wanted}, not {given}")
