"""AI configs of the old SDK: each way a call can end, what LaunchDarkly's SDK sends, what we add."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import ldclient
import pytest
from ldai.client import LDAIClient
from ldai.evaluator import Evaluator
from ldai.judge import Judge
from ldai.managed_agent_graph import ManagedAgentGraph
from ldai.managed_model import ManagedModel
from ldai.models import AICompletionConfigDefault, AIJudgeConfig, ModelConfig, ProviderConfig
from ldai.providers.types import AgentGraphRunnerResult, AIGraphMetrics, LDAIMetrics, RunnerResult
from ldai.tracker import TokenUsage
from ldclient.integrations.test_data import TestData

import ldinstrument as ld
from ldinstrument.ai.calls import current_call

DURATION, SUCCESS, ERROR = "duration:total", "generation:success", "generation:error"
TOKENS = ["tokens:input", "tokens:output", "tokens:total"]
TTF = "tokens:ttf"


class Kept:
    """An event processor that keeps what is tracked."""

    def __init__(self, events: list[Any]) -> None:
        self.events = events

    def send_event(self, event: Any) -> None:
        if type(event).__name__ == "EventInputCustom":
            self.events.append((event.key, event.context, event.data, event.metric_value))

    def flush(self) -> None:
        pass

    def stop(self) -> None:
        pass


class Sent:
    """A client of LaunchDarkly's, and what is tracked by it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any, Any, Any]] = []
        self.flags = TestData.data_source()
        config = ldclient.Config(
            "sdk-key",
            update_processor_class=self.flags,
            event_processor_class=lambda config: Kept(self.events),
        )
        self.client = ldclient.LDClient(config)

    def kinds(self) -> list[str]:
        """LaunchDarkly's events of runs, by what is after `$ld:ai:`, sorted."""
        found = [
            key.removeprefix("$ld:ai:") for key, *_ in self.events if key.startswith("$ld:ai:")
        ]
        return sorted(key for key in found if not key.startswith(("sdk:", "usage:")))

    def values(self, key: str) -> list[Any]:
        """The values of our own events."""
        return [value for event, _, _, value in self.events if event == key]

    def data(self, key: str) -> dict[str, Any]:
        """The data of the first event with this key."""
        return next(dict(data or {}) for event, _, data, _ in self.events if event == key)


@pytest.fixture
def sent(caplog: pytest.LogCaptureFixture) -> Iterator[Sent]:
    """The client. Whatever a test does, a tracker never has to say that it was given a thing twice."""
    made = Sent()
    yield made
    made.client.close()
    said = [record.getMessage() for record in caplog.get_records("call")]
    assert not [line for line in said if line.startswith("Skipping")]


@pytest.fixture
def config(sent: Sent) -> Any:
    """An AI config for `u-1`."""
    default = AICompletionConfigDefault(
        enabled=True, model=ModelConfig("gpt-4o-mini"), provider=ProviderConfig("openai")
    )
    context = ldclient.Context.create("u-1")
    return LDAIClient(sent.client).completion_config("support", context, default)


def run_data(sent: Sent, key: str) -> tuple[Any, Any]:
    """Run and config of an event."""
    data = sent.data(key)
    return data.get("runId"), data.get("configKey")


def test_success(models: Any, sdks: ModuleType, sent: Sent, config: Any) -> None:
    """Nobody else tracks the run: duration, success and tokens go by its own tracker; ours carry it."""
    with ld.session("u-1", client=sent.client):
        ld.track_ai("k", config=config)(sdks.openai_chat)(models.url)
    assert sent.kinds() == sorted([DURATION, SUCCESS, *TOKENS])
    assert run_data(sent, "k.success_rate") == run_data(sent, "$ld:ai:duration:total")
    assert run_data(sent, "k.tokens.total") == run_data(sent, "$ld:ai:tokens:total")
    assert sent.data("k.success_rate")["modelName"] == "gpt-4o-mini"


def test_stream(models: Any, sdks: ModuleType, sent: Sent, config: Any) -> None:
    """A stream that is read to its end has a time to first token, too."""
    with ld.session("u-1", client=sent.client):
        list(ld.track_ai("k", config=config)(sdks.openai_chat_stream)(models.url))
    assert sent.kinds() == sorted([DURATION, SUCCESS, TTF, *TOKENS])


def test_no_usage_told(models: Any, sdks: ModuleType, sent: Sent, config: Any) -> None:
    """Nobody invents tokens."""
    models.behave(usage=False)
    with ld.session("u-1", client=sent.client):
        ld.track_ai("k", config=config)(sdks.openai_chat)(models.url)
    assert sent.kinds() == sorted([DURATION, SUCCESS])


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_stream_that_fails(
    models: Any, sdks: ModuleType, sent: Sent, config: Any, sdk: str
) -> None:
    """Cut off: duration, error, time to first token; input tokens alone are no token event."""
    models.behave(cut_after=5)
    stream = {"openai": sdks.openai_chat_stream, "anthropic": sdks.anthropic_stream}[sdk]
    with ld.session("u-1", client=sent.client), pytest.raises(Exception):
        list(ld.track_ai("k", config=config)(stream)(models.url))
    assert sent.kinds() == sorted([DURATION, ERROR, TTF])
    assert sent.values("k.success_rate") == [0]


@pytest.mark.parametrize("way", ["dropped", "cancelled"])
def test_streams_that_break_off(
    models: Any, sdks: ModuleType, sent: Sent, config: Any, way: str
) -> None:
    """Dropped, or the consumer cancelled in the middle: time to first token, and our own key."""
    models.behave(goes_on=(goes_on := threading.Event()), waits_at=2)  # the second word
    seen: list[Any] = []

    async def read(stream: Any) -> None:
        async for item in stream:
            seen.append(item)

    async def main() -> None:
        async with sdks.async_openai_client(models.url) as client:
            ask = ld.track_ai("k", config=config)(client.chat.completions.create)
            async with ld.session("u-1", client=sent.client):
                stream = await ask(model="m", messages=sdks.ASK, stream=True)
                if way == "cancelled":
                    reading = asyncio.create_task(read(stream))
                    while len(seen) < 2:
                        await asyncio.sleep(0.01)
                    reading.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await reading
                    del reading
                else:
                    await anext(stream)
                    await anext(stream)
                del stream
                gc.collect()

    asyncio.run(main())
    goes_on.set()
    assert sent.kinds() == [TTF]
    assert sent.values("k.unfinished") == [1]


def test_tracked_by_the_user(models: Any, sdks: ModuleType, sent: Sent, config: Any) -> None:
    """What the user's own `track_metrics_of` has sent is not sent again."""

    def ask(url: str) -> Any:
        tracker = current_call().bind(config)  # type: ignore[union-attr]

        def metrics(answer: Any) -> LDAIMetrics:
            return LDAIMetrics(success=True, tokens=TokenUsage(26, 20, 6))

        return tracker.track_metrics_of(metrics, lambda: sdks.openai_chat(url))

    with ld.session("u-1", client=sent.client):
        ld.track_ai("k")(ask)(models.url)
    assert sent.kinds() == sorted([DURATION, SUCCESS, *TOKENS])
    assert sent.values("k.tokens.total") == [26]


def test_failure(models: Any, sdks: ModuleType, sent: Sent, config: Any) -> None:
    """A refused call: duration and error, once, also when the user's tracker had them already."""
    models.behave(refuse=9)

    def ask(url: str) -> Any:
        tracker = current_call().bind(config)  # type: ignore[union-attr]
        return tracker.track_metrics_of(lambda answer: None, lambda: sdks.openai_chat(url))

    with ld.session("u-1", client=sent.client):
        with pytest.raises(Exception):
            ld.track_ai("k", config=config)(sdks.openai_chat)(models.url)
        assert sent.kinds() == sorted([DURATION, ERROR])
        models.behave(refuse=9)
        with pytest.raises(Exception):
            ld.track_ai("own")(ask)(models.url)
    assert sent.kinds() == sorted([DURATION, ERROR] * 2)
    assert sent.values("own.success_rate") == [0]


def test_tokens_of_a_failed_call(models: Any, sdks: ModuleType, sent: Sent, config: Any) -> None:
    """Tokens that were used before something failed are added: LaunchDarkly's SDK has none."""

    def ask(url: str) -> Any:
        tracker = current_call().bind(config)  # type: ignore[union-attr]

        def call() -> Any:
            current_call().read(sdks.openai_chat(url))  # type: ignore[union-attr]
            raise ValueError("no JSON in it")

        return tracker.track_metrics_of(lambda answer: None, call)

    with ld.session("u-1", client=sent.client), pytest.raises(ValueError):
        ld.track_ai("k")(ask)(models.url)
    assert sent.kinds() == sorted([DURATION, ERROR, *TOKENS])


def test_failure_by_the_users_word(models: Any, sdks: ModuleType, sent: Sent, config: Any) -> None:
    """An answer that `success=` refuses is an error of the run."""
    with ld.session("u-1", client=sent.client):
        ld.track_ai("k", config=config, success=lambda answer: False)(sdks.openai_chat)(models.url)
    assert sent.kinds() == sorted([DURATION, ERROR, *TOKENS])


def test_abandoned_stream(models: Any, sdks: ModuleType, sent: Sent, config: Any) -> None:
    """Closed after some words: no duration, no success or error; time to first token, and our own
    key with the run's data.
    """
    with ld.session("u-1", client=sent.client):
        stream = ld.track_ai("k", config=config)(sdks.openai_chat_stream)(models.url)
        for _ in range(3):
            next(stream)
        stream.close()
    assert sent.kinds() == [TTF]
    assert sent.values("k.unfinished") == [1]
    assert run_data(sent, "k.unfinished") == run_data(sent, "$ld:ai:tokens:ttf")


def test_timed_out(models: Any, sdks: ModuleType, sent: Sent, config: Any) -> None:
    """Cancelled: nothing of LaunchDarkly's, and our own key with the run's data."""
    models.behave(pause=5.0)

    async def main() -> None:
        async with sdks.async_openai_client(models.url) as client:
            ask = ld.track_ai("k", config=config)(client.chat.completions.create)
            async with ld.session("u-1", client=sent.client):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(ask(model="m", messages=sdks.ASK), 0.2)

    asyncio.run(main())
    assert sent.kinds() == []
    assert sent.values("k.unfinished") == [1]
    assert run_data(sent, "k.unfinished")[1] == "support"


def test_each_call_is_a_run(models: Any, sdks: ModuleType, sent: Sent, config: Any) -> None:
    """Two calls with one config are two runs; a function of the arguments chooses the config."""
    seen: list[str] = []

    def choose(url: str) -> Any:
        seen.append(url)
        return config

    with ld.session("u-1", client=sent.client):
        ask = ld.track_ai("k", config=choose)(sdks.openai_chat)
        ask(models.url)
        ask(models.url)
    runs = {data["runId"] for key, _, data, _ in sent.events if key == "$ld:ai:duration:total"}
    assert (len(runs), seen) == (2, [models.url] * 2)


def test_config_that_fails(sent: Sent, caplog: pytest.LogCaptureFixture) -> None:
    """A `config=` that raises costs the binding, never the call."""
    with ld.session("u-1", client=sent.client), caplog.at_level(logging.WARNING, "ldinstrument"):
        assert ld.track_ai("k", config=lambda: 1 / 0)(lambda: "x")() == "x"
    assert "config= of k" in caplog.text
    assert sent.values("k.success_rate") == [1]


def test_feedback(models: Any, sdks: ModuleType, sent: Sent, config: Any) -> None:
    """Feedback in the session goes by the run's tracker as well, once."""
    with ld.session("u-1", client=sent.client):
        ld.track_ai("k", config=config)(sdks.openai_chat)(models.url)
        ld.track_feedback(True)
        ld.track_feedback(True)
    assert sent.kinds().count("feedback:user:positive") == 1
    assert sent.values("user.satisfaction") == [100, 100]


def test_deferred_feedback(
    models: Any, sdks: ModuleType, sent: Sent, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token made in the session names the run; redeemed elsewhere, feedback is that run's."""
    monkeypatch.setenv("LDINSTRUMENT_FEEDBACK_SECRET", "a-secret-of-the-test")
    with ld.session("u-1", client=sent.client):
        ld.track_ai("k", config=config)(sdks.openai_chat)(models.url)
        token = ld.feedback_token()
    assert ld.track_feedback(False, token=token, client=sent.client)
    assert run_data(sent, "$ld:ai:feedback:user:negative") == run_data(
        sent, "$ld:ai:duration:total"
    )


def test_nobodys_keys_are_defined() -> None:
    """LaunchDarkly's own keys are never declared as metrics of ours."""
    ld.track_ai("k", config=None)
    assert not [metric.key for metric in ld.catalog if metric.key.startswith("$ld:")]


# -- managed calls, judges and graphs of the old SDK -----------------------------------------------


class Answering:
    """A runner of a model, as LaunchDarkly's provider packages make them."""

    def __init__(self, *, score: float | None = None, pause: float = 0.0) -> None:
        self.score = score
        self.pause = pause

    async def run(self, input: Any, output_type: Any = None) -> Any:
        await asyncio.sleep(self.pause)
        parsed = None if self.score is None else {"score": self.score, "reasoning": "fine"}
        metrics = LDAIMetrics(success=True, tokens=TokenUsage(26, 20, 6))
        return RunnerResult(content="Tents.", metrics=metrics, parsed=parsed)


def managed(sent: Sent, config: Any, judge: Any = None) -> Any:
    """A managed model, judged by *judge* where there is one."""
    if judge is not None:
        judged = AIJudgeConfig(
            key="accuracy", enabled=True, create_tracker=config.create_tracker,
            evaluation_metric_key="$ld:ai:judge:accuracy",
        )  # fmt: skip
        config = replace(config, evaluator=Evaluator([Judge(judged, judge)]))
    return ManagedModel(config, Answering())


async def in_a_session(sent: Sent, ask: Any) -> Any:
    async with ld.session("u-1", client=sent.client):
        result = await ask("Will it rain?")
    if getattr(result, "evaluations", None) is not None:
        await result.evaluations
        await asyncio.sleep(0)
    return result


@pytest.mark.parametrize("with_config", [False, True])
def test_a_managed_call_is_a_run_of_its_own(sent: Sent, config: Any, with_config: bool) -> None:
    """Its events are its own tracker's, once, also where `config=` is given too; ours carry them."""
    given = {"config": config} if with_config else {}
    ask = ld.track_ai("k", **given)(managed(sent, config).run)
    asyncio.run(in_a_session(sent, ask))
    assert sent.kinds() == sorted([DURATION, SUCCESS, *TOKENS])
    assert sent.values("k.tokens.total") == [26]
    assert run_data(sent, "k.tokens.total") == run_data(sent, "$ld:ai:duration:total")


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_judges_that_run_in_a_task(sent: Sent, config: Any, pause: float) -> None:
    """Their scores are values of the session that was judged, also when it has ended."""
    ask = ld.track_ai("k")(managed(sent, config, Answering(score=0.8, pause=pause)).run)
    asyncio.run(in_a_session(sent, ask))
    assert sent.values("judge.accuracy") == [0.8]
    whose = {context.key for key, context, *_ in sent.events if key == "judge.accuracy"}
    assert whose == {"u-1"}


def graph(sent: Sent) -> Any:
    """A graph of two agents."""
    meta = {"enabled": True, "variationKey": "v-1", "version": 1}
    for key in ("planner", "booker"):
        agent = {"_ldMeta": {**meta, "mode": "agent"}, "model": {"name": "gpt-4o-mini"}}
        sent.flags.update(sent.flags.flag(key).variations(agent).variation_for_all(0))
    topology = {"_ldMeta": meta, "root": "planner", "edges": {"planner": [{"key": "booker"}]}}
    sent.flags.update(sent.flags.flag("trip").variations(topology).variation_for_all(0))
    return LDAIClient(sent.client).agent_graph("trip", ldclient.Context.create("u-1"))


def test_a_graph_that_is_traversed(models: Any, sdks: ModuleType, sent: Sent) -> None:
    """Each node is a run of its own config, within the graph; the graph's own tracker is theirs."""
    found = graph(sent)
    tracker = found.create_tracker()

    def visit(node: Any, _: Any) -> Any:
        ask = ld.track_ai("k", config=node.get_config())
        return ask(lambda: sdks.openai_chat(models.url))()

    with ld.session("u-1", client=sent.client):
        tracker.track_path(["planner", "booker"])
        found.traverse(visit)
        tracker.track_invocation_success()
    assert sent.kinds().count(DURATION) == 2
    ours = [data for key, _, data, _ in sent.events if key == "k.success_rate"]
    assert [data["configKey"] for data in ours] == ["planner", "booker"]
    assert {data["graphKey"] for data in ours} == {"trip"}
    assert len({data["runId"] for data in ours}) == 2
    assert "graph:invocation_success" in sent.kinds()


def test_a_managed_graph_passes_through(sent: Sent) -> None:
    """It sends what it sends without us, and its tokens are a call's."""

    class Runner:
        async def run(self, input: str) -> Any:
            node = LDAIMetrics(success=True, tokens=TokenUsage(26, 20, 6))
            metrics = AIGraphMetrics(
                success=True, path=["planner"], duration_ms=5, tokens=TokenUsage(26, 20, 6),
                node_metrics={"planner": node},
            )  # fmt: skip
            return AgentGraphRunnerResult(content="Norway", raw=None, metrics=metrics)

    made = ManagedAgentGraph(graph(sent), Runner())
    bare = asyncio.run(in_a_session(sent, made.run))
    theirs = sent.kinds()
    sent.events.clear()
    tracked = asyncio.run(in_a_session(sent, ld.track_ai("k")(made.run)))
    assert tracked.content == bare.content
    assert sent.kinds() == theirs
    assert sent.values("k.success_rate") == [1]
    assert sent.values("k.tokens.total") == [26]
