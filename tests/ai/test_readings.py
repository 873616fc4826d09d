"""Readings: what is known of one operation, each answer once, and what is estimated or told."""

from __future__ import annotations

from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
from recorded_calls import data, values

import ldinstrument as ld
from ldinstrument.ai.calls import current_call
from ldinstrument.ai.cost import Cost, Price, PriceTable
from ldinstrument.ai.options import CallOptions
from ldinstrument.ai.readings import Reading
from ldinstrument.ai.usage import Generation, Usage
from ldinstrument.testing import RecordingClient


def test_usage_not_asked_for(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenAI's stream without usage leaves the tokens out; time and finish reason are known. What to
    ask for is said once.
    """
    with ld.session("u-1"):
        list(ld.track_ai("other")(sdks.openai_chat_stream)(models.url))
        assert "include_usage" not in caplog.text
        list(ld.track_ai("k")(sdks.openai_chat_stream)(models.url, usage=False))
    assert caplog.text.count("stream_options={'include_usage': True}") == 1
    found = values(ld_events)
    assert "tokens.output" not in found
    assert "cost" not in found
    assert len(found["time_to_first_token"]) == 1
    assert "usage" not in data(ld_events)
    assert data(ld_events)["finishReason"] == "stop"


@pytest.mark.parametrize("estimate", [True, lambda text: len(text.split())])
def test_estimate(models: Any, sdks: ModuleType, ld_events: RecordingClient, estimate: Any) -> None:
    """Where it is asked for, the output of a broken-off stream is estimated, and marked so."""
    with ld.session("u-1"):
        stream = ld.track_ai("k", estimate=estimate)(sdks.anthropic_stream)(models.url)
        for _ in range(4):
            next(stream)
        stream.close()
    found = values(ld_events)
    expected = 3 if estimate is True else 2  # "Tents keep "
    assert (found["tokens.input"], found["tokens.output"]) == ([20], [expected])
    assert data(ld_events, "tokens.output")["usage"] == "estimated"


def test_estimate_of_a_whole_stream(
    models: Any, sdks: ModuleType, ld_events: RecordingClient
) -> None:
    """What the provider tells is never replaced by an estimate."""
    with ld.session("u-1"):
        list(ld.track_ai("k", estimate=lambda text: 999)(sdks.anthropic_stream)(models.url))
    assert values(ld_events)["tokens.output"] == [6]
    assert data(ld_events)["usage"] == "known"


def test_inference_calls(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """On request: how many model calls one operation made."""
    metrics = ("success_rate", "inference_calls")
    with ld.session("u-1"), ld.track_ai("agent", metrics=metrics) as call:
        for _ in range(3):
            call.read(sdks.openai_chat(models.url))
    with ld.session("u-1"), ld.track_ai("agent", metrics=metrics):
        pass
    assert ld_events.values("agent.inference_calls") == [3]


def test_one_answer_without_an_id(ld_events: RecordingClient) -> None:
    """The same answer counts once, also when nothing in it says which it is; an equal one is another."""
    answer = {"input": 1, "output": 2}
    with ld.session("u-1"), ld.track_ai("k") as call:
        call.read(answer)
        call.read(answer)
        call.read(dict(answer))
    assert values(ld_events)["tokens.total"] == [6]


def test_read_and_returned(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """An answer that is read and returned as well counts once."""

    @ld.track_ai("k")
    def ask() -> Any:
        answer = sdks.openai_chat(models.url)
        current_call().read(answer)  # type: ignore[union-attr]
        return answer

    with ld.session("u-1"):
        ask()
    assert values(ld_events)["tokens.total"] == [26]


def test_extract(models: Any, sdks: ModuleType, ld_events: RecordingClient) -> None:
    """`extract=` says what is to be read; one that fails costs the tokens only."""
    with ld.session("u-1"):
        ld.track_ai("k", extract=lambda result: result[1])(
            lambda: ("text", sdks.openai_chat(models.url))
        )()
        ld.track_ai("own", extract=lambda result: {"input": 3, "output": 4, "model": "m"})(
            lambda: "x"
        )()
        assert ld.track_ai("bad", extract=lambda result: 1 / 0)(lambda: "x")() == "x"
    assert values(ld_events)["tokens.total"] == [26]
    assert values(ld_events, "own")["tokens.total"] == [7]
    assert values(ld_events, "bad")["success_rate"] == [1]


def test_extract_of_a_stream(
    models: Any, sdks: ModuleType, ld_events: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream has no result to extract from: it is read as it is, and nothing is complained of."""
    with ld.session("u-1"):
        list(
            ld.track_ai("k", extract=lambda result: result.usage)(sdks.openai_chat_stream)(
                models.url
            )
        )
    assert values(ld_events)["tokens.total"] == [26]
    assert "extract=" not in caplog.text


def reading(**options: Any) -> Reading:
    return Reading("k", CallOptions({}, **options))


def test_names_of_the_user_stand_in_for_missing_ones() -> None:
    """What an answer says of its model comes first, then the options, then an AI config."""
    one = reading(model="mine")
    one.name("the config's", "openai")
    one.answer({"input": 1, "output": 2})
    one.answer({"input": 1, "output": 2, "model": "its own"})
    assert [(known.model, known.provider) for known in one.generations()] == [
        ("mine", "openai"),
        ("its own", "openai"),
    ]


def test_spans_count_where_answers_told_less() -> None:
    """Spans stand in for answers without usage, or when more calls ran than were read; never both."""
    spans = [Generation(Usage(5, 1, 6), id="a"), Generation(Usage(7, 1, 8), id="b")]
    one = reading()
    one.answer({"model": "m"})
    one.span(spans[0])
    assert one.total().usage == Usage(5, 1, 6)
    one = reading()
    one.answer({"input": 50, "output": 1})
    one.span(spans[0])
    assert one.total().usage == Usage(50, 1, 51)
    one.span(spans[1])
    assert one.total().usage == Usage(12, 2, 14)
    assert one.inference_calls() == 2


def test_nothing_is_known_of_an_operation_that_was_not_read() -> None:
    """No usage, no cost, no number of calls; requests that were counted stay known."""
    one = reading(prices=PriceTable({"": Price(1, 1)}))
    assert (one.total(), one.cost(), one.inference_calls()) == (Generation(), None, None)
    one.attempts(2)
    one.attempts_of_error(9)
    assert one.total() == Generation(attempts=2)
    one.attempts(None)
    assert one.total() == Generation()


def test_a_cost_is_whole_or_none() -> None:
    """The calls of an operation add up; one without a price leaves no part of a bill."""
    one = reading(prices=PriceTable({"m": Price(1, 1)}, version="v"))
    one.answer({"input": 1, "output": 2, "model": "m"})
    one.answer({"input": 3, "output": 4, "model": "m"})
    assert one.cost() == Cost(Decimal("0.00001"), "v")
    one.answer({"input": 3, "output": 4, "model": "nobody's"})
    assert one.cost() is None


def test_a_hushed_reading_runs_nothing_of_the_users() -> None:
    """Neither prices nor the estimate."""
    ran: list[str] = []
    one = reading(prices=PriceTable({"": Price(1, 1)}), estimate=ran.append)
    one.answer({"input": 1, "output": 2, "model": "m"})
    assert one.cost() is not None
    one.hush()
    assert one.cost() is None
    one.stream().reader.add("Tents ")
    assert one.total(broken_off=True).usage == Usage(1, 2, 3, state="partial")
    assert ran == []


def test_an_estimate_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The words stay unknown rather than wrong."""
    one = reading(estimate=lambda text: 1 // 0)
    one.stream().reader.add("Tents ")
    assert one.total().usage is None
    assert one.total().usage is None
    assert caplog.text.count("estimate= of k") == 1


def test_attempts_of_several_calls(
    models: Any, sdks: ModuleType, ld_events: RecordingClient
) -> None:
    """Attempts are told where each model call tells its own: a plain answer does not, so the
    error after it tells of a part only.
    """

    def ask(*calls: Any) -> None:
        for call in calls:
            current_call().read(call(models.url))  # type: ignore[union-attr]
        models.behave(refuse=99)
        sdks.openai_chat(models.url)

    with ld.session("u-1"):
        for key, calls in (("plain", [sdks.openai_chat]), ("aws", [sdks.bedrock_converse] * 2)):
            models.behave()
            with pytest.raises(Exception, match="slow down"):
                ld.track_ai(key)(lambda *given: ask(*given))(*calls)
    assert "attempts" not in values(ld_events, "plain")
    assert values(ld_events, "aws")["attempts"] == [5]


def test_attempts_that_the_user_counts(ld_events: RecordingClient) -> None:
    """Who retries by themselves counts by themselves, whatever the answers tell beside it."""
    with ld.session("u-1"), ld.track_ai("k") as call:
        for _ in range(3):
            call.attempt()
        call.read({"input": 1, "output": 2, "model": "m"})
    assert values(ld_events)["attempts"] == [3]


def test_texts_that_say_nothing_cost_nothing(ld_events: RecordingClient) -> None:
    """A stream of which only texts are seen is no model call without a price."""
    prices = PriceTable({"m": Price(input=1, output=1)})

    def words() -> Any:
        yield {"type": "strange"}
        current_call().read({"input": 1, "output": 2, "model": "m"})  # type: ignore[union-attr]

    with ld.session("u-1"):
        list(ld.track_ai("k", cost=prices)(words)())
    assert values(ld_events)["cost"] == [3e-06]
