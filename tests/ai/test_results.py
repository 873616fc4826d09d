"""What the real SDKs return, read by its shape."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from ldinstrument.ai.results import read, read_error, read_fields
from ldinstrument.ai.usage import Generation, Usage

NEEDS_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="pydantic-ai needs Python 3.11")
PROVIDERS = [
    "openai chat", "openai responses", "anthropic", "google", "bedrock", "langchain", "langgraph", "litellm",
    "openai agents", pytest.param("pydantic-ai", marks=NEEDS_311),
]  # fmt: skip


def figures(generation: Generation | None) -> tuple[int | None, ...]:
    """Input, output, total and cached tokens."""
    usage = generation.usage if generation else None
    return () if usage is None else (usage.input, usage.output, usage.total, usage.cached)


@pytest.mark.parametrize("name", PROVIDERS)
def test_plain_call(models: Any, sdks: ModuleType, name: str) -> None:
    """A plain call tells its tokens, model, provider and why it ended."""
    client = sdks.CLIENTS[name]
    found = read(client.plain(models.url))
    assert found is not None
    assert figures(found) == (20, 6, 26, 8)
    assert (found.provider, found.model, found.finish_reason) == (
        client.provider,
        client.model,
        client.finish_reason,
    )
    assert found.usage is not None
    assert found.usage.state == "known"


@pytest.mark.parametrize(
    "name",
    ["openai chat", "openai responses", "anthropic", "google", "bedrock", "langchain", "litellm"],
)
def test_tool_call(models: Any, sdks: ModuleType, name: str) -> None:
    """An answer that asks for a tool says so."""
    models.behave(tool_call=True)
    found = read(sdks.CLIENTS[name].plain(models.url))
    assert found is not None
    assert found.tool_calls == 1


@pytest.mark.parametrize(
    "name",
    [
        "openai chat",
        "openai responses",
        "langchain",
        "litellm",
        "openai agents",
        pytest.param("pydantic-ai", marks=NEEDS_311),
    ],
)
def test_no_usage(models: Any, sdks: ModuleType, name: str) -> None:
    """A provider that tells no figures leaves them unknown."""
    models.behave(usage=False)
    found = read(sdks.CLIENTS[name].plain(models.url))
    assert figures(found) == ()


def test_agent_of_several_calls(models: Any, sdks: ModuleType) -> None:
    """A run of an agent with a tool is two calls of the model and one of the tool."""
    models.behave(tool_call=True)
    found = read(sdks.agents_run(models.url))
    assert found is not None
    assert figures(found) == (40, 12, 52, 16)
    assert found.tool_calls == 1


def test_graph_repeats_earlier_turns(models: Any, sdks: ModuleType) -> None:
    """Of a graph's state only the messages since the last human one are this turn's."""
    state = sdks.langgraph_state(models.url)
    assert len([entry for entry in state["messages"] if entry.type == "ai"]) == 2
    assert figures(read(state)) == (20, 6, 26, 8)


def test_raw_response(models: Any, sdks: ModuleType) -> None:
    """A raw response tells how many requests were made, too."""
    models.behave(refuse=2)
    raw = sdks.openai_client(models.url).chat.completions.with_raw_response.create(
        model="m", messages=sdks.ASK
    )
    found = read(raw)
    assert found is not None
    assert (found.attempts, figures(found)) == (3, (20, 6, 26, 8))
    assert raw.parse().choices[0].message.content == "Tents keep you dry."


def test_embeddings() -> None:
    """Embeddings have no output: it is unknown, not 0."""
    from openai.types import CreateEmbeddingResponse

    body = {
        "object": "list",
        "data": [],
        "model": "e",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    found = read(CreateEmbeddingResponse.model_validate(body))
    assert figures(found) == (7, None, 7, None)


def test_bedrock_attempts(models: Any, sdks: ModuleType) -> None:
    """Bedrock's answer says how many requests were made, and so does its error."""
    models.behave(refuse=1)
    assert read(sdks.bedrock_converse(models.url)).attempts == 2  # type: ignore[union-attr]
    models.behave(refuse=9)
    with pytest.raises(Exception) as failed:
        sdks.bedrock_client(
            models.url, retries={"total_max_attempts": 2, "mode": "standard"}
        ).converse(**sdks.CONVERSATION)
    assert read_error(failed.value) == Generation(attempts=2)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_error_attempts(models: Any, sdks: ModuleType, name: str) -> None:
    """An error of OpenAI's or Anthropic's says how many requests were made."""
    models.behave(refuse=9)
    call = sdks.openai_chat if name == "openai" else sdks.anthropic_message
    with pytest.raises(Exception) as failed:
        call(models.url)
    assert read_error(failed.value) == Generation(attempts=3)
    assert len(models.requests) == 3


def test_error_without_attempts(models: Any, sdks: ModuleType) -> None:
    """Where the retries cannot be seen they are unknown, not one."""
    models.behave(refuse=9)
    with pytest.raises(Exception) as failed:
        sdks.google_content(models.url)
    assert read_error(failed.value) is None
    assert read_error(ValueError("no")) is None
    assert read_error(mock.MagicMock()) is None


def _mocks() -> list[Any]:
    from openai.types.chat import ChatCompletion

    return [
        mock.MagicMock(), mock.Mock(), mock.MagicMock(spec=ChatCompletion), mock.create_autospec(ChatCompletion),
        mock.create_autospec(ChatCompletion, instance=True), mock.AsyncMock(), mock.NonCallableMagicMock(),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(7))
def test_mocks(number: int) -> None:
    """A mock never becomes a token, whatever it was specified by."""
    assert read(_mocks()[number]) is None


def test_dictionaries(models: Any, sdks: ModuleType) -> None:
    """The same answers as dictionaries say the same, but for who made them."""
    chat = sdks.openai_chat(models.url).model_dump()
    message = sdks.anthropic_message(models.url).model_dump()
    content = sdks.google_content(models.url).model_dump(mode="json")
    assert [figures(read(body)) for body in (chat, message, content)] == [(20, 6, 26, 8)] * 3


def test_own_objects() -> None:
    """A user's own object with a `usage`, or with the figures themselves, is read; its properties are not run."""

    @dataclass
    class Answer:
        text: str
        usage: dict[str, int]
        model: str = "small"

        @property
        def provider(self) -> str:
            raise AssertionError("the host's code ran")

    assert read(Answer("x", {"input_tokens": 3, "output_tokens": 4})) == Generation(
        Usage(3, 4, 7), "small"
    )
    assert read({"input_tokens": 3, "output_tokens": 4}) == Generation(Usage(3, 4, 7))
    assert read({"model": "small"}) is None


def test_told_by_the_user() -> None:
    """A mapping of our own names is taken, with or without figures."""
    assert read_fields({"input": 3, "output": 4, "model": "small"}) == Generation(
        Usage(input=3, output=4, total=7), "small"
    )
    assert read_fields({"model": "small", "attempts": 2}) == Generation(model="small", attempts=2)
    assert read_fields({"colour": "red"}) is None


def test_lists(models: Any, sdks: ModuleType) -> None:
    """A list of answers is one operation; the same answer twice is one call."""
    first, second = sdks.openai_chat(models.url), sdks.openai_chat(models.url)
    assert figures(read([first, second, first])) == (40, 12, 52, 16)
    assert figures(read((first, "and text"))) == (20, 6, 26, 8)


@pytest.mark.parametrize(
    "result", [None, "text", b"", 5, 1.5, True, [], (), {}, {"usage": None}, object(), set()]
)
def test_nothing_to_read(result: Any) -> None:
    """Other results say nothing."""
    assert read(result) is None


def test_hostile_object() -> None:
    """An object that raises wherever it is touched says nothing and harms nobody."""

    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("touched")

        @property
        def usage(self) -> Any:
            raise RuntimeError("run")

    assert read(Hostile()) is None
    assert read({"usage": Hostile()}) is None


@NEEDS_311
def test_pydantic_run_warns_nobody(models: Any, sdks: ModuleType, recwarn: Any) -> None:
    """Reading a run of pydantic-ai calls nothing that it has deprecated."""
    result = asyncio.run(sdks.pydantic_agent(models.url).run("Will it rain?"))
    recwarn.clear()
    read(result)
    assert not recwarn.list


def test_counted_tokens_are_not_used_ones() -> None:
    """What `count_tokens` returns was asked for, and used by nobody."""
    from anthropic.types import MessageTokensCount
    from google.genai.types import CountTokensResponse

    assert read(MessageTokensCount(input_tokens=2095)) is None
    assert read(CountTokensResponse(total_tokens=31)) is None


def test_what_langchain_parsed(models: Any, sdks: ModuleType) -> None:
    """`include_raw=True` keeps the message beside what was parsed from it."""
    model = sdks.chat_openai(models.url)
    asked = model.with_structured_output(
        {"title": "Answer", "type": "object", "properties": {}},
        method="json_mode", include_raw=True,
    )  # fmt: skip
    known = read(asked.invoke("Will it rain?"))
    assert figures(known) == figures(read(model.invoke("Will it rain?")))
