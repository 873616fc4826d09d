"""Sessions and their tasks as spans, and model calls in the GenAI instruments: only when asked."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import ldinstrument as ld
from ldinstrument.otel import SpanObserver, install_bridge, install_observer
from ldinstrument.testing import RecordingClient


class Spans:
    """What was exported, by name."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        (found,) = self.named(name)
        return found

    def names(self) -> list[str]:
        return [span.name for span in self._exporter.get_finished_spans()]


@pytest.fixture
def spans(provider: TracerProvider) -> Spans:
    """The real SDK's in-memory exporter."""
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(exporter)


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def observer(spans: Spans, reader: InMemoryMetricReader) -> Iterator[SpanObserver]:
    """The observer, installed."""
    installed = install_observer(meter_provider=MeterProvider([reader]))
    assert installed is not None
    yield installed
    installed.uninstall()


def instruments(reader: InMemoryMetricReader) -> dict[tuple[str, str], Any]:
    """Sum by (instrument, token type)."""
    data = reader.get_metrics_data()
    return {
        (metric.name, str(point.attributes.get("gen_ai.token.type", ""))): point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


# -- the tree --------------------------------------------------------------------------------------


def test_a_session_and_its_tasks(
    spans: Spans, observer: SpanObserver, ld_events: RecordingClient
) -> None:
    """A session's span holds its tasks' spans, those the spans of what they do."""

    @ld.track_task("search")
    def search() -> int:
        with trace.get_tracer("host").start_as_current_span("query"):
            return 1

    with ld.session("u-1", id="visit-9") as session:
        search()
    whole, task, query = (spans.only(name) for name in ("session", "search", "query"))
    assert (parent_of(whole), parent_of(task)) == (None, id_of(whole))
    assert parent_of(query) == id_of(task)
    assert whole.attributes is not None
    assert task.attributes is not None
    assert whole.attributes["session.id"] == task.attributes["session.id"] == session.id
    assert whole.attributes["ldinstrument.session.end_reason"] == "ended"
    assert task.attributes["ldinstrument.outcome"] == "success"
    assert whole.start_time is not None
    assert task.start_time is not None
    assert task.end_time is not None
    assert whole.end_time is not None
    assert whole.start_time <= task.start_time < task.end_time <= whole.end_time
    assert ld_events.only("search.success_rate").value == 1


def test_inside_the_users_spans(spans: Spans, observer: SpanObserver) -> None:
    """A session inside a span is in its trace; a task inside a span of its session is its child."""
    with trace.get_tracer("host").start_as_current_span("request"):
        with ld.session("u-1"):
            with ld.track_task("first"):
                pass
            with trace.get_tracer("host").start_as_current_span("step"):
                with ld.track_task("second"):
                    pass
    assert parent_of(spans.only("session")) == id_of(spans.only("request"))
    assert parent_of(spans.only("first")) == id_of(spans.only("session"))
    assert parent_of(spans.only("second")) == id_of(spans.only("step"))


def test_a_server_span_inside_the_session_stays_the_root(
    spans: Spans, observer: SpanObserver
) -> None:
    """An instrumentor inside our middleware finds no span of ours around it: its own is the root,
    and the session's joins its trace.
    """
    with ld.session("u-1"):
        with trace.get_tracer("host").start_as_current_span("server"):
            with ld.track_task("work"):
                pass
    server, whole = spans.only("server"), spans.only("session")
    assert server.parent is None
    assert parent_of(whole) == id_of(server)
    assert parent_of(spans.only("work")) == id_of(whole)


def test_a_session_inside_a_session(spans: Spans, observer: SpanObserver) -> None:
    """The span of the inner one is inside that of the outer one."""
    with ld.session("u-1"), ld.session("u-1", name="chat"):
        with ld.track_task("work"):
            pass
    assert parent_of(spans.only("chat")) == id_of(spans.only("session"))
    assert parent_of(spans.only("work")) == id_of(spans.only("chat"))


def test_a_session_without_tasks(spans: Spans, observer: SpanObserver) -> None:
    """It has a span all the same, in the trace that it was opened in."""
    with trace.get_tracer("host").start_as_current_span("request"), ld.session("u-1"):
        pass
    assert parent_of(spans.only("session")) == id_of(spans.only("request"))


# -- how it ended ----------------------------------------------------------------------------------


def test_a_failure_names_the_error_and_not_its_message(
    spans: Spans, observer: SpanObserver
) -> None:
    """Status and `error.type`; a message may hold anything."""
    with pytest.raises(ValueError, match="secret"), ld.session("u-1"), ld.track_task("work"):
        raise ValueError("secret")
    task = spans.only("work")
    assert task.status.status_code is StatusCode.ERROR
    assert task.attributes is not None
    assert task.attributes["error.type"] == "ValueError"
    assert "secret" not in str(task.attributes) + str(task.events) + str(task.status.description)
    assert spans.only("session").status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("kind", ["plain", "coroutine", "generator", "async generator"])
@pytest.mark.parametrize("decorate", [ld.track_task, ld.track_interaction, ld.track_ai])
def test_every_kind_of_function(
    kind: str, decorate: Any, spans: Spans, observer: SpanObserver, ld_events: RecordingClient
) -> None:
    """Its code runs inside its span, in each step; between the steps nothing of it is current."""
    seen: list[int] = []

    def here() -> int:
        return trace.get_current_span().get_span_context().span_id

    def plain() -> None:
        seen.append(here())

    async def coroutine() -> None:
        await asyncio.sleep(0)
        seen.append(here())

    def generator() -> Iterator[int]:
        for number in range(3):
            seen.append(here())
            yield number

    async def async_generator() -> AsyncIterator[int]:
        for number in range(3):
            seen.append(here())
            yield number

    functions: dict[str, Callable[..., Any]] = {
        "plain": plain,
        "coroutine": coroutine,
        "generator": generator,
        "async generator": async_generator,
    }
    run = decorate("work")(functions[kind])

    async def consumed() -> None:
        async for _ in run():
            assert here() == 0

    with ld.session("u-1"):
        if kind == "plain":
            run()
        elif kind == "coroutine":
            asyncio.run(run())
        elif kind == "generator":
            for _ in run():
                assert here() == 0
        else:
            asyncio.run(consumed())
        assert here() == 0
    task = spans.only("work")
    assert set(seen) == {id_of(task)}
    assert ld_events.only("work.success_rate").value == 1
    assert ld_events.only("work.duration").value is not None


def test_a_function_decorated_before(spans: Spans, ld_events: RecordingClient) -> None:
    """The observer may come after the decorators, as a main program's does; and go again."""

    @ld.track_task("work")
    def work() -> None:
        pass

    with ld.session("u-1"):
        work()
    assert spans.names() == []
    observer = install_observer()
    assert observer is not None
    with ld.session("u-1"):
        work()
    observer.uninstall()
    with ld.session("u-1"):
        work()
    assert sorted(spans.names()) == ["session", "work"]
    assert len(ld_events.values("work.duration")) == 3


def test_generators_of_other_contexts(
    spans: Spans,
    observer: SpanObserver,
    ld_events: RecordingClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A stream that is resumed in another context and dropped there loses and breaks nothing."""

    @ld.track_task("stream")
    def stream() -> Iterator[int]:
        yield 1
        yield 2

    with ld.session("u-1"):
        items = stream()
        contextvars.copy_context().run(next, items)
        contextvars.copy_context().run(next, items)
        del items
        gc.collect()
    task = spans.only("stream")
    assert task.attributes is not None
    assert task.attributes["ldinstrument.outcome"] == "abandoned"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_concurrent_coroutines(spans: Spans, observer: SpanObserver) -> None:
    """Each task's own work is inside its own span, however they interleave."""

    @ld.track_task("work")
    async def work(number: int) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            with trace.get_tracer("host").start_as_current_span(f"step {number}"):
                await asyncio.sleep(0)

    async def main() -> None:
        async with ld.session("u-1"):
            await asyncio.gather(*(work(number) for number in range(5)))

    asyncio.run(main())
    tasks = {id_of(span) for span in spans.named("work")}
    parents = [{parent_of(span) for span in spans.named(f"step {n}")} for n in range(5)]
    assert all(len(found) == 1 for found in parents)
    assert {parent for found in parents for parent in found} == tasks
    assert len(spans.named("session")) == 1


def test_first_tasks_of_many_threads(spans: Spans, observer: SpanObserver) -> None:
    """One span of the session, whichever thread's task is the first in it."""
    ready, tracer = threading.Barrier(8), observer.tracer

    class SlowTracer:
        def start_span(self, name: str, *args: Any, **options: Any) -> trace.Span:
            time.sleep(0.02 if name == "session" else 0)
            return tracer.start_span(name, *args, **options)

    observer.tracer = SlowTracer()  # type: ignore[assignment]

    @ld.track_task("work")
    def work() -> None:
        pass

    def run() -> None:
        ready.wait()
        work()

    with ld.session("u-1"):
        threads = [threading.Thread(target=ld.propagate(run)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    whole = spans.only("session")
    assert {parent_of(task) for task in spans.named("work")} == {id_of(whole)}


# -- model calls -----------------------------------------------------------------------------------


def test_model_calls(
    models: Any,
    sdks: ModuleType,
    spans: Spans,
    observer: SpanObserver,
    reader: InMemoryMetricReader,
) -> None:
    """What a call used is on its span and in the instruments, by the stable conventions."""
    with ld.session("u-1", id="talk-7"):
        ld.track_ai("answer")(sdks.openai_chat)(models.url)
    span = spans.only("answer")
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.input_tokens"] == 20
    assert span.attributes["gen_ai.usage.output_tokens"] == 6
    assert span.attributes["gen_ai.system"] == "openai"
    assert span.attributes["gen_ai.operation.name"] == "chat"
    assert span.attributes["gen_ai.conversation.id"] == "talk-7"
    found = instruments(reader)
    assert found["gen_ai.client.token.usage", "input"].sum == 20
    assert found["gen_ai.client.token.usage", "output"].sum == 6
    duration = found["gen_ai.client.operation.duration", ""]
    assert (duration.count, duration.attributes["gen_ai.system"]) == (1, "openai")
    assert 0 < duration.sum < 60


def test_the_newest_conventions(
    models: Any, sdks: ModuleType, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for as OpenTelemetry's instrumentors are: other names, and chunks are timed."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http,gen_ai_latest_experimental")
    reader = InMemoryMetricReader()
    assert install_observer(meter_provider=MeterProvider([reader])) is not None
    with ld.session("u-1"):
        list(ld.track_ai("answer")(sdks.openai_chat_stream)(models.url))
    span = spans.only("answer")
    assert span.attributes is not None
    assert span.attributes["gen_ai.provider.name"] == "openai"
    assert span.attributes["gen_ai.usage.cache_read.input_tokens"] == 8
    assert "gen_ai.conversation.id" not in span.attributes
    found = {name for name, _ in instruments(reader)}
    assert {
        "gen_ai.client.inference.usage.input_tokens",
        "gen_ai.client.operation.time_to_first_chunk",
    } <= found
    assert "gen_ai.client.token.usage" not in found


def test_others_spans_are_not_doubled(
    models: Any,
    sdks: ModuleType,
    spans: Spans,
    observer: SpanObserver,
    reader: InMemoryMetricReader,
    ld_events: RecordingClient,
) -> None:
    """Anthropic's SDK makes its span itself: it is inside ours, which says no tokens of its own."""
    assert install_bridge() is not None
    with ld.session("u-1"):
        ld.track_ai("answer")(sdks.anthropic_message)(models.url)
    ours = spans.only("answer")
    (native,) = [spans.only(name) for name in spans.names() if name not in ("answer", "session")]
    assert parent_of(native) == id_of(ours)
    assert native.attributes is not None
    assert ours.attributes is not None
    assert native.attributes["gen_ai.usage.output_tokens"] == 6
    assert not [name for name in ours.attributes if name.startswith("gen_ai.")]
    assert instruments(reader) == {}
    assert ld_events.values("answer.tokens.output") == [6]
    assert ld_events.values("gen_ai.tokens.output") == []


def test_a_failed_model_call(
    models: Any,
    sdks: ModuleType,
    spans: Spans,
    observer: SpanObserver,
    reader: InMemoryMetricReader,
) -> None:
    """Its duration is measured with the kind of its error."""
    models.behave(refuse=9)
    with pytest.raises(Exception, match="429"), ld.session("u-1"):
        ld.track_ai("answer", model="gpt-4o")(sdks.openai_chat)(models.url)
    point = instruments(reader)["gen_ai.client.operation.duration", ""]
    assert point.attributes["error.type"] == "RateLimitError"


# -- on request, and nothing otherwise -------------------------------------------------------------


def test_trace_ids_in_event_data(spans: Spans, ld_events: RecordingClient) -> None:
    """On request, events name the trace they were recorded in."""
    assert install_observer(trace_ids=True) is not None
    with ld.session("u-1"):
        with ld.track_task("work"):
            pass
    context = spans.only("work").context
    assert context is not None
    expected = trace.format_trace_id(context.trace_id)
    assert ld_events.only("work.duration").data["traceId"] == expected
    assert ld_events.only("session.duration").data["traceId"] == expected


def test_no_trace_ids_unless_asked_for(
    spans: Spans, observer: SpanObserver, ld_events: RecordingClient
) -> None:
    """By default events carry none."""
    with ld.session("u-1"), ld.track_task("work"):
        pass
    assert all("traceId" not in (event.data or {}) for event in ld_events.events)


def test_without_a_tracer_provider(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is observed, and that is said once."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    assert install_observer() is None
    with ld.session("u-1") as session:
        assert session.observer is None
    assert "no tracer provider is set up" in caplog.text


def test_no_sdk_is_imported() -> None:
    """Sessions load no OpenTelemetry at all; the observer its API, never its SDK."""
    program = """
import sys
import ldinstrument as ld
with ld.session("u-1"), ld.track_task("work"):
    pass
assert "opentelemetry" not in sys.modules
from ldinstrument.otel import install_observer
assert install_observer() is None
assert "opentelemetry.trace" in sys.modules
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_processor_that_raises_reaches_nobody(
    provider: TracerProvider, observer: SpanObserver, ld_events: RecordingClient
) -> None:
    """The host's work and its values pass, whatever an exporter does."""

    class Broken(SimpleSpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            raise RuntimeError("odd")

        def on_end(self, span: Any) -> None:
            raise RuntimeError("odd")

    provider.add_span_processor(Broken(InMemorySpanExporter()))

    @ld.track_task("work")
    def work() -> int:
        return 7

    with ld.session("u-1"):
        assert work() == 7
    assert ld_events.only("work.success_rate").value == 1
