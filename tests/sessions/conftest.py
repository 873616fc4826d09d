"""Fixtures of the tests of sessions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import ldclient
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from laboratory import Laboratory, laboratory


@pytest.fixture(autouse=True)
def _no_singleton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test may have configured the singleton."""
    for name in ("__client", "__config"):
        monkeypatch.setitem(vars(ldclient), name, None)


@pytest.fixture
def lab() -> Iterator[Laboratory]:
    """A local LaunchDarkly with one experiment, and a client."""
    with laboratory() as made:
        yield made
