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
    """Record every event that the test's code tracks, instead of sending it.

    The ledger starts at zero. Sessions that other fixtures opened before go on.
    """
    from . import testing

    with testing.fresh_recording() as client:
        yield client
