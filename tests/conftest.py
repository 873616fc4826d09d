"""Fixtures that every test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ldinstrument import testing

# The SDK honours a proxy even for loopback servers.
for _name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ.pop(_name, None)
for _name in [name for name in os.environ if name.startswith(("LDINSTRUMENT_", "LAUNCHDARKLY_", "LD_"))]:
    os.environ.pop(_name)


@pytest.fixture(autouse=True)
def _clean_slate() -> Iterator[None]:
    """Every test begins and ends with an empty ledger, no open session and the standard catalog."""
    testing.reset()
    yield
    testing.reset()
