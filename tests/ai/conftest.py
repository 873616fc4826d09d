"""The loopback model server and the real SDKs that talk to it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def _beside(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    full = f"ldinstrument_tests_ai_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


clients = _beside("clients")
model_server = _beside("model_server")


@pytest.fixture(scope="session")
def _serving() -> Iterator[Any]:
    with model_server.ModelServer() as serving:
        yield serving


@pytest.fixture
def models(_serving: Any) -> Iterator[Any]:
    """The loopback model server, behaving well."""
    _serving.behave()
    _serving.requests.clear()
    yield _serving
    _serving.behave()


@pytest.fixture(autouse=True)
def _no_call_is_left() -> Iterator[None]:
    """After a test, no call is anybody's current one: the next test would be read into it."""
    yield
    from ldinstrument.ai.calls import current_call

    assert current_call() is None


@pytest.fixture
def sdks() -> ModuleType:
    """The real SDKs: `tests/ai/clients.py`."""
    return clients


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let LiteLLM warn: it takes a warning that is an error for one of the provider's."""
    for item in items:
        if item.path.parent == Path(__file__).parent and "litellm" in item.name:
            item.add_marker(pytest.mark.filterwarnings("ignore"))
