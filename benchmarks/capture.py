"""What becomes of a model call that does not go well, by four that watch it: `track_ai`, and the
instrumentors of OpenTelemetry, OpenLLMetry and OpenInference, where they are installed.

The same calls of the real SDKs against the loopback server of the tests, each watcher in a process
of its own: `python benchmarks/capture.py`. It exits with 1 when `track_ai` is wrong in a row.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests" / "ai"
INSTRUMENTORS = {
    "OpenTelemetry": [
        "opentelemetry.instrumentation.genai.openai:OpenAIInstrumentor",
        "opentelemetry.instrumentation.genai.anthropic:AnthropicInstrumentor",
    ],
    "OpenLLMetry": [
        "opentelemetry.instrumentation.openai:OpenAIInstrumentor",
        "opentelemetry.instrumentation.anthropic:AnthropicInstrumentor",
    ],
    "OpenInference": [
        "openinference.instrumentation.openai:OpenAIInstrumentor",
        "openinference.instrumentation.anthropic:AnthropicInstrumentor",
    ],
}
OURS = "track_ai"


def beside(name: str) -> Any:
    """A module of the tests of `ai`."""
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# -- the calls -------------------------------------------------------------------------------------


def whole(models: Any, sdks: Any, track: Any) -> None:
    list(track(sdks.openai_chat_stream)(models.url, usage=False))


def closed(models: Any, sdks: Any, track: Any) -> None:
    stream = track(sdks.openai_chat_stream)(models.url)
    for _ in range(3):
        next(iter(stream))
    stream.close()


def dropped(models: Any, sdks: Any, track: Any) -> None:
    stream = track(sdks.openai_chat_stream)(models.url)
    for _ in range(3):
        next(iter(stream))
    del stream
    gc.collect()


async def _async(models: Any, sdks: Any, track: Any, *, stream: bool) -> None:
    models.behave(pause=0.15 if stream else 1.0)
    async with sdks.async_openai_client(models.url) as client:

        @track
        async def ask() -> Any:
            return await client.chat.completions.create(model="m", messages=sdks.ASK, stream=stream)

        async def use() -> None:
            answer = await ask()
            if stream:
                async for _ in answer:
                    pass

        try:
            await asyncio.wait_for(use(), 0.35)
        except asyncio.TimeoutError:
            return
        raise AssertionError("it was to time out")


def async_stream(models: Any, sdks: Any, track: Any) -> None:
    asyncio.run(_async(models, sdks, track, stream=True))


def async_plain(models: Any, sdks: Any, track: Any) -> None:
    asyncio.run(_async(models, sdks, track, stream=False))


def cut(models: Any, sdks: Any, track: Any) -> None:
    models.behave(cut_after=3)
    try:
        list(track(sdks.openai_chat_stream)(models.url))
    except Exception:
        return
    raise AssertionError("it was to break")


def refused(models: Any, sdks: Any, track: Any) -> None:
    models.behave(refuse=9)
    try:
        track(sdks.openai_chat)(models.url)
    except Exception:
        return
    raise AssertionError("it was to be refused")


def anthropic(models: Any, sdks: Any, track: Any) -> None:
    track(sdks.anthropic_message)(models.url)


Case = Callable[[Any, Any, Any], None]
CASES: dict[str, tuple[Case, str]] = {
    "OpenAI stream, usage not asked for": (whole, "1 call, success, no tokens"),
    "closed after three chunks": (closed, "1 call, unfinished, no tokens"),
    "dropped after three chunks": (dropped, "1 call, unfinished, no tokens"),
    "async stream, timed out": (async_stream, "1 call, unfinished, no tokens"),
    "async call, timed out": (async_plain, "1 call, unfinished, no tokens"),
    "cut in the middle": (cut, "1 call, failure, no tokens"),
    "429 three times": (refused, "1 call, failure, no tokens, 3 attempts"),
    "Anthropic, answered": (anthropic, "1 call, success, 26 tokens"),
}


# -- who watches -----------------------------------------------------------------------------------


def watch_by_us(case: Case, models: Any, sdks: Any) -> str:
    """Say what `track_ai` records."""
    import ldinstrument as ld
    from ldinstrument.testing import forget_everything, recording

    forget_everything()
    with recording() as events, ld.session("u"):
        case(models, sdks, ld.track_ai("k", cost=False))
        gc.collect()
    unfinished = events.values("k.unfinished")
    rate = events.values("k.success_rate")
    ended = {(): "unfinished", (1.0,): "success", (0.0,): "failure"}[tuple(rate)]  # type: ignore[arg-type]
    tokens, attempts = events.values("k.tokens.total"), events.values("k.attempts")
    return ", ".join(
        [
            _many(len(unfinished), "call"),
            ended,
            f"{tokens[0]} tokens" if tokens else "no tokens",
            *(f"{number} attempts" for number in attempts if number != 1),
        ]
    )


def watch_by(name: str, case: Case, models: Any, sdks: Any) -> str:
    """Say what an instrumentor's spans tell."""
    from opentelemetry import trace

    exporter = _exporter(name)
    exporter.clear()
    case(models, sdks, lambda function: function)
    gc.collect()
    provider: Any = trace.get_tracer_provider()
    provider.force_flush()
    spans = exporter.get_finished_spans()
    tokens = [span.attributes.get("gen_ai.usage.output_tokens") for span in spans]
    told = [str(number) for number in tokens if number is not None]
    status = "/".join(span.status.status_code.name for span in spans)
    return ", ".join(
        filter(None, [_many(len(spans), "span"), status, f"{'+'.join(told) or 'no'} output tokens"])
    )


_exporters: dict[str, Any] = {}


def _exporter(name: str) -> Any:
    if name not in _exporters:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        _exporters[name] = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(_exporters[name]))
        trace.set_tracer_provider(provider)
        for path in INSTRUMENTORS[name]:
            module, _, kind = path.partition(":")
            getattr(importlib.import_module(module), kind)().instrument()
    return _exporters[name]


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def is_installed(name: str) -> bool:
    """Tell whether all instrumentors of *name* are there."""
    try:
        return all(importlib.util.find_spec(path.partition(":")[0]) for path in INSTRUMENTORS[name])
    except ModuleNotFoundError:
        return False


def run_as(watcher: str) -> None:
    """Run every case under one watcher, and print what it says as JSON."""
    models_of, sdks = beside("model_server"), beside("clients")
    with models_of.ModelServer() as models:
        found = {}
        for title, (case, _) in CASES.items():
            models.behave()
            if watcher == OURS:
                found[title] = watch_by_us(case, models, sdks)
            else:
                found[title] = watch_by(watcher, case, models, sdks)
    print(json.dumps(found))


def main() -> int:
    """Print the table; return 1 when a row of ours is wrong."""
    watchers = [OURS, *(name for name in INSTRUMENTORS if is_installed(name))]
    found: dict[str, dict[str, str]] = {}
    for watcher in watchers:
        done = subprocess.run(
            [sys.executable, __file__, "--as", watcher], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        found[watcher] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
        if done.returncode:
            print(
                f"{watcher} did not run: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr
            )
    wrong = 0
    for title, (_, right) in CASES.items():
        mine = found[OURS].get(title)
        wrong += mine != right
        print(f"{title}{'' if mine == right else f'  -- WRONG, it was: {right}'}")
        for watcher in watchers:
            print(f"    {watcher:14} {found[watcher].get(title, '?')}")
    for name in INSTRUMENTORS.keys() - set(watchers):
        print(f"({name} is not installed)")
    return min(wrong, 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as"]:
        run_as(sys.argv[2])
    else:
        sys.exit(main())
