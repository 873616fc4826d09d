"""scipy, loaded when the first figure needs it: Beta, binomial, chi-square and t distributions."""

from __future__ import annotations

from typing import Any

from ..errors import missing_extra


def scipy_special() -> Any:
    """Load `scipy.special`.

    Raises:
        MissingExtra: scipy is not installed; the message is the command that installs it.
    """
    try:
        from scipy import special
    except ImportError as error:
        raise missing_extra("stats", "scipy") from error
    return special


def load_numpy() -> Any:
    """Load numpy, which scipy brings.

    Raises:
        MissingExtra: as `scipy_special` does.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise missing_extra("stats", "scipy") from error
    return np


def load_statistics() -> None:
    """Load all that figures need, which takes some tenths of a second.

    Raises:
        MissingExtra: as `scipy_special` does.
    """
    scipy_special()
    load_numpy()
