"""The pytest fixture `ld_events`. Kept tiny: pytest imports it before anything else, coverage
included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .testing import RecordingClient


@pytest.fixture(name="ld_events")
def _ld_events() -> Iterator[RecordingClient]:
    """Every event that the test's code tracks, recorded instead of sent; the ledger starts at
    zero.
    """
    from . import testing

    testing.forget_everything()
    with testing.recording() as client:
        yield client
    testing.forget_everything()
