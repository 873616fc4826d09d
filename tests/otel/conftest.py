"""The loopback model server and the real SDKs of `tests/ai`, and a tracer provider with the bridge."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util._once import Once

from ldinstrument.otel import SpanBridge, install_bridge

sys.path.insert(0, str(Path(__file__).parent))

AI = Path(__file__).parent.parent / "ai"


def _of_ai(name: str) -> ModuleType:
    full = f"ldinstrument_tests_ai_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, AI / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


@pytest.fixture(scope="session")
def _serving() -> Iterator[Any]:
    with _of_ai("model_server").ModelServer() as serving:
        yield serving


@pytest.fixture
def models(_serving: Any) -> Iterator[Any]:
    """The loopback model server, behaving well."""
    _serving.behave()
    _serving.requests.clear()
    yield _serving
    _serving.behave()


@pytest.fixture
def sdks() -> ModuleType:
    """The real SDKs."""
    return _of_ai("clients")


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    """The global tracer provider, of this test alone."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    made = TracerProvider()
    trace.set_tracer_provider(made)
    yield made
    made.shutdown()


@pytest.fixture
def bridge(provider: TracerProvider) -> SpanBridge:
    """The bridge, installed in it."""
    installed = install_bridge()
    assert installed is not None
    return installed
