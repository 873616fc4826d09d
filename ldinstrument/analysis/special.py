"""scipy, loaded when the first figure needs it: Beta, binomial, chi-square and t distributions."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import missing_extra


def scipy_special() -> Any:
    """Load `scipy.special`.

    Raises:
        MissingExtra: scipy is not installed; the message is the command that installs it.
    """
    return _load("scipy.special")


def load_numpy() -> Any:
    """Load numpy, which scipy brings.

    Raises:
        MissingExtra: as `scipy_special` does.
    """
    return _load("numpy")


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_extra("stats", "scipy") from error


def load_statistics() -> None:
    """Load all that figures need, which takes some tenths of a second.

    Raises:
        MissingExtra: as `scipy_special` does.
    """
    scipy_special()
    load_numpy()
