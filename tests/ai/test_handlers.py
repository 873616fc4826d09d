"""Handlers of LaunchDarkly's new AI SDK: each way a call can end, what that SDK sends, what we add.

It needs Python 3.12: where the default is older, `make test` runs this file in a second environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

ai = pytest.importorskip("launchdarkly_ai_server", reason="needs Python 3.12: see make test")

import ldclient  # noqa: E402
from launchdarkly_ai_server import lifecycle  # noqa: E402
from ldclient.integrations.test_data import TestData  # noqa: E402

import ldinstrument as ld  # noqa: E402

DURATION, SUCCESS, ERROR, TTF = (
    "duration:total",
    "generation:success",
    "generation:error",
    "tokens:ttf",
)
TOKENS = ["tokens:input", "tokens:output", "tokens:total"]
USER = {"kind": "user", "key": "u-1"}
USAGE = {"input_tokens": 20, "output_tokens": 6}


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
    """The client that the AI SDK was given, with an AI config in it, and what is tracked by it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any, Any, Any]] = []
        self.flags = TestData.data_source()
        config = ldclient.Config(
            "sdk-key",
            update_processor_class=self.flags,
            event_processor_class=lambda config: Kept(self.events),
        )
        self.client = ldclient.LDClient(config)
        self.define("support")

    def define(self, key: str, **more: Any) -> None:
        """Define an AI config."""
        value = {
            "_ldMeta": {"enabled": True, "variationKey": "v-1", "version": 3, "mode": "completion"},
            "model": {"name": "gpt-4o-mini"},
            "provider": {"name": "OpenAI"},
            "messages": [{"role": "system", "content": "Be brief."}],
            **more,
        }
        self.flags.update(self.flags.flag(key).variations(value).variation_for_all(0))

    def kinds(self) -> list[str]:
        """LaunchDarkly's events of runs, by what is after `$ld:ai:`, sorted."""
        found = [
            key.removeprefix("$ld:ai:") for key, *_ in self.events if key.startswith("$ld:ai:")
        ]
        return sorted(key for key in found if not key.startswith(("sdk:", "usage:", "judge:")))

    def values(self, key: str) -> list[Any]:
        """The values of our own events."""
        return [value for event, _, _, value in self.events if event == key]

    def runs(self, key: str) -> set[tuple[Any, Any, Any]]:
        """Run, config and variation of the events with this key."""
        return {
            (data.get("runId"), data.get("configKey"), data.get("variationKey"))
            for event, _, data, _ in self.events
            if event == key
        }


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    """The client, given to `init_client`."""
    made = Sent()
    monkeypatch.setattr(lifecycle, "_client", None)
    asyncio.run(ai.init_client(client=made.client))
    yield made
    made.client.close()
    monkeypatch.setattr(lifecycle, "_client", None)


def handler(
    *,
    usage: Any = USAGE,
    error: BaseException | None = None,
    pause: float = 0.0,
    output: str = "Tents.",
) -> Any:
    """A handler that answers, fails or takes its time, plain and streamed."""

    async def answer(config: Any, user_input: Any, tools: Any, variables: Any, history: Any) -> Any:
        await asyncio.sleep(pause)
        if error is not None:
            raise error
        return {"output": output, "usage": usage}

    async def stream(config: Any, user_input: Any, tools: Any, variables: Any, history: Any) -> Any:
        for word in ("Tents ", "keep ", "you ", "dry."):
            await asyncio.sleep(pause)
            yield {"type": "chunk", "text": word}
        if error is not None:
            raise error
        yield {"type": "done", "output": "Tents keep you dry.", "usage": usage}

    return ai.ProviderHandler(answer, ("OpenAI", "messages"), stream)


def configured(sent: Sent, made: Any, *, bare: bool = False, **options: Any) -> Any:
    """The AI config with the measured handler, or the handler as it is."""
    handler = made if bare else ld.track_ai("k")(made)
    return ai.config(key="support", handler=handler, **options)


async def invoke(sent: Sent, made: Any, timeout: float = 30.0, **options: Any) -> Any:
    """One call in a session."""
    async with ld.session("u-1", client=sent.client):
        return await asyncio.wait_for(
            configured(sent, made, **options).invoke("Will it rain?", USER), timeout
        )


async def consume(sent: Sent, made: Any, chunks: int = 99, **options: Any) -> list[Any]:
    """One streamed call in a session; left after so many chunks."""
    found = []
    async with ld.session("u-1", client=sent.client):
        stream = configured(sent, made, **options).stream("Will it rain?", USER)
        async for event in stream:
            found.append(event)
            if len(found) == chunks:
                break
        await stream.aclose()
    return found


# -- how a call ends x what their SDK sends x what we add -----------------------------------------


ROWS: dict[str, tuple[Any, dict[str, Any], list[str], list[str]]] = {
    "answered": (invoke, {}, [DURATION, SUCCESS, *TOKENS], []),
    "answered, no usage told": (invoke, {"usage": None}, [DURATION, SUCCESS], []),
    "streamed to its end": (consume, {}, [DURATION, SUCCESS, *TOKENS], [TTF]),
    "failed": (invoke, {"error": ValueError("no")}, [DURATION, ERROR], []),
    "stream that failed": (consume, {"error": ValueError("no")}, [DURATION, ERROR], [TTF]),
    "timed out": (invoke, {"pause": 5.0, "timeout": 0.1}, [], []),
    "cancelled": (invoke, {"error": asyncio.CancelledError()}, [], []),
    "stream abandoned": (consume, {"chunks": 2}, [], [TTF]),
    "stream timed out": (consume, {"pause": 0.1, "timeout": 0.25}, [], [TTF]),
}
"""How a call ends: what their SDK sends of it by itself, and what we add."""


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("row", ROWS)
def test_how_a_call_ends(sent: Sent, row: str, bare: bool) -> None:
    """The table in docs/ai.md: their own events are the same with us and without."""
    run, given, theirs, ours = ROWS[row]
    options = {name: given[name] for name in given.keys() & {"timeout", "chunks"}}
    made = handler(**{name: given[name] for name in given.keys() - options.keys()})
    timeout = options.pop("timeout", 30.0)
    with contextlib.suppress(ValueError, asyncio.TimeoutError, asyncio.CancelledError):
        asyncio.run(asyncio.wait_for(run(sent, made, bare=bare, **options), timeout))
    assert sent.kinds() == sorted(theirs if bare else theirs + ours)
    unfinished = [] if bare else [0 if DURATION in theirs else 1]
    assert sent.values("k.unfinished") == unfinished
    if not bare:
        assert {config for _, config, _ in sent.runs("k.unfinished")} == {"support"}


def test_answered(sent: Sent) -> None:
    """They send duration, success and tokens; we add nothing, and ours carry their run."""
    response = asyncio.run(invoke(sent, handler()))
    assert response.response == "Tents."
    assert sent.kinds() == sorted([DURATION, SUCCESS, *TOKENS])
    assert (sent.values("k.success_rate"), sent.values("k.tokens.total")) == ([1], [26])
    assert sent.runs("k.success_rate") == sent.runs("$ld:ai:duration:total")
    assert sent.runs("k.tokens.total") == {(response.track_data["runId"], "support", "v-1")}


def test_streamed(sent: Sent) -> None:
    """They send duration, success and tokens; we add time to first token."""
    events = asyncio.run(consume(sent, handler()))
    assert [event["type"] for event in events] == ["chunk"] * 4 + ["done"]
    assert sent.kinds() == sorted([DURATION, SUCCESS, TTF, *TOKENS])
    assert len(sent.values("k.time_to_first_token")) == 1
    assert sent.runs("$ld:ai:tokens:ttf") == sent.runs("$ld:ai:duration:total")


def test_failed(sent: Sent) -> None:
    """They send duration and error; without tokens we add nothing."""
    with pytest.raises(ValueError):
        asyncio.run(invoke(sent, handler(error=ValueError("no"))))
    assert sent.kinds() == sorted([DURATION, ERROR])
    assert (sent.values("k.success_rate"), sent.values("k.unfinished")) == ([0], [0])


def test_failed_after_using_tokens(sent: Sent) -> None:
    """They send duration and error; the tokens that were used we add."""

    async def answer(config: Any, user_input: Any, tools: Any, variables: Any, history: Any) -> Any:
        from ldinstrument.ai import current_call

        call = current_call()
        assert call is not None
        call.read({"usage": USAGE})
        raise ValueError("no JSON in it")

    with pytest.raises(ValueError):
        asyncio.run(invoke(sent, ai.ProviderHandler(answer, ("OpenAI", "messages"))))
    assert sent.kinds() == sorted([DURATION, ERROR, *TOKENS])
    assert sent.runs("$ld:ai:tokens:total") == sent.runs("$ld:ai:generation:error")


def test_stream_that_fails(sent: Sent) -> None:
    """They send duration and error; we add time to first token."""
    with pytest.raises(ValueError):
        asyncio.run(consume(sent, handler(error=ValueError("no"))))
    assert sent.kinds() == sorted([DURATION, ERROR, TTF])


def test_without_usage(sent: Sent) -> None:
    """They send duration and success; nobody invents tokens."""
    asyncio.run(invoke(sent, handler(usage=None)))
    assert sent.kinds() == sorted([DURATION, SUCCESS])
    assert sent.values("k.tokens.total") == []


def test_timed_out(sent: Sent) -> None:
    """They send nothing; we add our own key with their run, and no duration."""
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(invoke(sent, handler(pause=60.0), timeout=2.0))
    assert sent.kinds() == []
    assert sent.values("k.unfinished") == [1]
    ((run, config, variation),) = sent.runs("k.unfinished")
    assert run
    assert (config, variation) == ("support", "v-1")


def test_abandoned_stream(sent: Sent) -> None:
    """They send nothing; we add time to first token and our own key with their run."""
    events = asyncio.run(consume(sent, handler(), chunks=2))
    assert len(events) == 2
    assert sent.kinds() == [TTF]
    assert sent.values("k.unfinished") == [1]
    assert sent.runs("k.unfinished") == sent.runs("$ld:ai:tokens:ttf")


def test_dropped_stream(sent: Sent) -> None:
    """A stream that nobody holds any more, likewise."""

    async def main() -> None:
        async with ld.session("u-1", client=sent.client) as session:
            stream = configured(sent, handler()).stream("Will it rain?", USER)
            await stream.__anext__()
            del stream
            gc.collect()
            while not session.summary().abandoned:  # the event loop closes it
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 60))
    assert sent.values("k.unfinished") == [1]


# -- around it -------------------------------------------------------------------------------------


def test_judges_are_not_the_users_calls(sent: Sent) -> None:
    """The judges of a config use its handlers: their calls are in no metric of ours."""
    judged(sent)
    response = asyncio.run(invoke(sent, handler(output='{"score": 0.8, "reasoning": "fine"}')))
    assert response.judge_results["accuracy"].score == 0.8
    assert sent.values("k.success_rate") == [1]
    assert sent.values("$ld:ai:judge:accuracy") == [0.8]
    assert len(sent.runs("$ld:ai:duration:total")) == 2


def judged(sent: Sent) -> None:
    """Define a judge of every answer."""
    sent.define(
        "support", judgeConfiguration={"judges": [{"key": "accuracy", "samplingRate": 1.0}]}
    )
    sent.define("accuracy", evaluationMetricKey="$ld:ai:judge:accuracy")


def test_scores_of_judges(sent: Sent) -> None:
    """The score of a judge is a metric of the session, with the run that it judged."""
    judged(sent)

    @ld.track_ai("around")
    async def ask() -> Any:
        made = handler(output='{"score": 0.8, "reasoning": "fine"}')
        return await ai.config(key="support", handler=made).invoke("x", USER)

    async def main() -> Any:
        async with ld.session("u-1", client=sent.client):
            return await ask()

    response = asyncio.run(main())
    assert sent.values("judge.accuracy") == [0.8]
    assert sent.runs("judge.accuracy") == {(response.track_data["runId"], "support", "v-1")}


def test_judge_that_runs_later(sent: Sent) -> None:
    """A judge that runs later, anywhere, is recorded for the context that was judged."""
    from ldinstrument.ai import track_judge

    judged(sent)
    made = handler(output='{"score": 0.8, "reasoning": "fine"}')
    response = asyncio.run(invoke(sent, made, skip_judges=True))
    (task,) = response.judge_tasks
    result = asyncio.run(ai.run_judge(task, [made]))
    assert track_judge(result, context=task.user_context, client=sent.client) == 1
    assert sent.values("judge.accuracy") == [0.8]
    assert sent.runs("judge.accuracy") == {(response.track_data["runId"], "support", "v-1")}


def test_through_a_registry(sent: Sent) -> None:
    """A handler in a registry is bound to the run of each config that is served by it."""
    registry = ai.Registry(handlers=[ld.track_ai("k")(handler())])

    async def main() -> None:
        async with ld.session("u-1", client=sent.client):
            for _ in range(2):
                await ai.config(key="support", registry=registry).invoke("x", USER)

    asyncio.run(main())
    assert len(sent.runs("k.success_rate")) == 2
    assert sent.runs("k.success_rate") == sent.runs("$ld:ai:duration:total")


def test_stays_a_handler(sent: Sent) -> None:
    """What is decorated stays a handler: what it provides for, whether it streams or keeps content."""
    plain = ai.ProviderHandler(handler(), ("anthropic", "agent"), capture_content=True)
    tracked = ld.track_ai("k")(plain)
    assert isinstance(tracked, ai.ProviderHandler)
    assert (tracked.provides_for, tracked.has_stream) == (("anthropic", "agent"), False)
    assert tracked.capture_content is True
    plain.capture_content = False
    assert tracked.capture_content is False


def test_response_around_a_plain_handler(sent: Sent) -> None:
    """A function that returns their response is bound by it, without a measured handler."""

    @ld.track_ai("k")
    async def ask() -> Any:
        return await ai.config(key="support", handler=handler()).invoke("x", USER)

    async def main() -> Any:
        async with ld.session("u-1", client=sent.client):
            return await ask()

    response = asyncio.run(main())
    assert sent.kinds() == sorted([DURATION, SUCCESS, *TOKENS])
    assert sent.runs("k.success_rate") == {(response.track_data["runId"], "support", "v-1")}
    assert sent.values("k.tokens.total") == [26]


def test_feedback_later(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their SDK has no feedback: ours carries their run, for their context."""
    monkeypatch.setenv("LDINSTRUMENT_FEEDBACK_SECRET", "a-secret-of-the-test")

    async def main() -> str | None:
        async with ld.session("u-1", client=sent.client):
            await configured(sent, handler()).invoke("x", USER)
            return ld.feedback_token()

    token = asyncio.run(main())
    assert ld.track_feedback(True, token=token, client=sent.client)
    assert sent.runs("$ld:ai:feedback:user:positive") == sent.runs("$ld:ai:duration:total")


@pytest.mark.parametrize("streams", [False, True])
def test_their_openai_handler(
    models: Any, sdks: ModuleType, sent: Sent, monkeypatch: pytest.MonkeyPatch, streams: bool
) -> None:
    """Their own handler for OpenAI, against the loopback server: one set of events, tokens as told."""
    from launchdarkly_ai_openai_messages import create_openai_messages_handler

    monkeypatch.setenv("OPENAI_BASE_URL", f"{models.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    made = create_openai_messages_handler()
    if streams:
        asyncio.run(consume(sent, made))
        assert sent.kinds() == sorted([DURATION, SUCCESS, TTF, *TOKENS])
    else:
        asyncio.run(invoke(sent, made))
        assert sent.kinds() == sorted([DURATION, SUCCESS, *TOKENS])
    assert sent.values("k.tokens.total") == [26]
    assert sent.values("$ld:ai:tokens:total") == [26]


# -- whose session, and graphs ---------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
def test_the_session_adopts_the_context(sent: Sent, streamed: bool) -> None:
    """Nobody is known, and the client is a plain one that tells no evaluations: the session then
    belongs to whom the AI config was evaluated for, and its events go to that client.
    """

    async def main() -> None:
        async with ld.session() as session:
            asked = configured(sent, handler())
            if streamed:
                async for _ in asked.stream("Will it rain?", USER):
                    pass
            else:
                await asked.invoke("Will it rain?", USER)
            assert session.context is not None
            assert session.context.key == "u-1"

    asyncio.run(main())
    assert sent.values("k.success_rate") == [1]
    assert len(sent.values("session.duration")) == 1
    whose = {context.key for key, context, *_ in sent.events if key.startswith(("k.", "session."))}
    assert whose == {"u-1"}


def test_a_session_that_knows_stays(sent: Sent) -> None:
    """A judge's or a colleague's config does not make it somebody else's."""

    async def main() -> None:
        async with ld.session("ada", client=sent.client) as session:
            await configured(sent, handler()).invoke("Will it rain?", USER)
            assert session.context is not None
            assert session.context.key == "ada"

    asyncio.run(main())


def test_agent_graphs_pass_through(sent: Sent) -> None:
    """A graph of agents runs as without us and sends what it does without us; each call of a node
    is measured, with its own run.
    """
    for key in ("planner", "booker"):
        sent.define(key)
    meta = {"enabled": True, "variationKey": "g-1", "version": 1}
    topology = {"_ldMeta": meta, "root": "planner", "edges": {"planner": [{"key": "booker"}]}}
    sent.flags.update(sent.flags.flag("trip").variations(topology).variation_for_all(0))

    async def run(made: Any) -> tuple[Any, list[str]]:
        sent.events.clear()
        async with ld.session("u-1", client=sent.client):
            answer = await ai.graph("trip", handlers=[made]).invoke("Where to?", USER)
        return answer, sent.kinds()

    bare, theirs = asyncio.run(run(handler()))
    tracked, with_ours = asyncio.run(run(ld.track_ai("k")(handler())))
    assert tracked.response == bare.response
    assert with_ours == theirs
    calls = theirs.count(DURATION) - theirs.count("graph:duration:total")
    assert calls >= 1
    assert len(sent.values("k.success_rate")) >= 1
    assert {config for _, config, _ in sent.runs("k.duration")} <= {"planner", "booker"}
    assert None not in {run for run, _, _ in sent.runs("k.duration")}
