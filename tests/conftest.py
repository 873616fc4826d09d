"""Fixtures that every test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ldinstrument import testing
from ldinstrument.metrics import catalog

# The SDK honours a proxy even for loopback servers.
for _name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ.pop(_name, None)
for _name in [name for name in os.environ if name.startswith(("LDINSTRUMENT_", "LAUNCHDARKLY_", "LD_"))]:
    os.environ.pop(_name)


@pytest.fixture(autouse=True)
def _clean_slate() -> Iterator[None]:
    """Every test begins with an empty ledger and no open session; what it declares is forgotten after it."""
    declared_by_imports = list(catalog)
    testing.reset()
    catalog.add(*declared_by_imports)
    yield
    testing.reset()
    catalog.add(*declared_by_imports)
