"""The demo's program: what a visitor gets, and what the session around it hears."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

import ldinstrument as ld
from ldinstrument.demo import helpdesk, model
from ldinstrument.demo.helpdesk import FLAG, GOALS, application, context_of, needed, visitor_context
from ldinstrument.testing import RecordingClient


class Client(RecordingClient):
    """Serves every visitor one voice."""

    voice = "long"

    def variation(self, flag: str, context: Any, default: str) -> str:
        assert (flag, default) == (FLAG, "short")
        return self.voice


@pytest.fixture(name="client")
def _client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(model.time, "sleep", lambda seconds: None)
    catalog = list(ld.catalog)
    ld.catalog.add(helpdesk.SEARCH_HITS, helpdesk.ANSWER_P95)
    yield Client()
    ld.catalog.clear()
    ld.catalog.add(*catalog)


def ask(client: Client, visitor: str, question: str = "reset") -> tuple[str, dict[str, Any]]:
    """Status and body of an answer."""
    statuses: list[str] = []
    environ = {"QUERY_STRING": urlencode({"visitor": visitor, "question": question})}
    with ld.session(visitor, client=client):
        body = b"".join(
            application(client)(environ, lambda status, headers: statuses.append(status))
        )
    return statuses[0], json.loads(body)


def test_an_answer_is_what_the_visitor_gets_and_what_is_measured(client: Client) -> None:
    """The voice that was served, its tokens and cost, and the sale where there was one."""
    told = [ask(client, f"visitor-{number}") for number in range(60)]
    answered = [body for status, body in told if status == "200 OK"]
    assert {body["voice"] for _, body in told} == {"long"}
    assert len(answered) < len(told)
    assert len(client.of("assistant.answer.cost")) == len(answered)
    assert len(client.of("assistant.answer.success_rate")) == len(told)
    sales = [body["sale"] for body in answered if body["sale"]]
    assert sales
    assert sorted(client.values("business.conversion")) == pytest.approx(sorted(sales))
    assert {event.data["configKey"] for event in client.of("business.conversion")} == {"long"}


def test_no_answer_is_a_503(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the voice that was served, for the visitors' own account."""
    monkeypatch.setattr(model, "FAILURES", 1.0)
    assert ask(client, "visitor-1") == ("503 Service Unavailable", {"voice": "long"})
    assert client.values("assistant.answer.success_rate") == [0.0]


def test_the_same_visitor_gets_the_same_again(client: Client) -> None:
    """Chance is that of visitor and question."""
    visitors = [f"visitor-{number}" for number in range(12)]
    once, again = ([ask(client, visitor) for visitor in visitors] for _ in range(2))
    assert once == again


def test_whose_a_request_is() -> None:
    """A key from the address; the evaluation knows more of them."""
    assert context_of({"QUERY_STRING": "visitor=ana&question=x"}) == "ana"
    assert context_of({"QUERY_STRING": ""}) is context_of({}) is None
    assert visitor_context("visitor-7").get("plan") == "pro"
    assert visitor_context("visitor-8").get("plan") == "free"


def test_the_metrics_that_it_needs_are_those_that_it_feeds(client: Client) -> None:
    """Its goals among them; nothing of another program."""
    for number in range(30):
        ask(client, f"visitor-{number}")
    keys = {metric.key for metric in needed()}
    assert set(GOALS) <= keys
    fed = {key for key in client.keys() if key.startswith("assistant.")}  # noqa: SIM118
    assert fed <= {metric.event for metric in needed()}
    assert not any(key.startswith("session.") for key in keys)
