"""The real SDKs, pointed at the loopback server: a plain call and a streamed one of each.

Retries are on where a test counts them; every import is inside, so that a test pays only for its own SDK.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = (
    "True"  # else importing LiteLLM asks the internet for prices
)
os.environ["LANGSMITH_TRACING"] = "false"
os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"

ASK: Any = [{"role": "user", "content": "Will it rain?"}]
CHAT_MODEL, CLAUDE = "gpt-4o-mini", "claude-sonnet-4-6"


@dataclass(frozen=True)
class Client:
    """One SDK: its plain call, its stream, and what its readings say."""

    plain: Callable[[str], Any]
    stream: Callable[[str], Iterator[Any]]
    provider: str | None
    model: str | None
    finish_reason: str | None


def openai_client(url: str, **options: Any) -> Any:
    """OpenAI's client."""
    import openai

    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", **options)


def async_openai_client(url: str, **options: Any) -> Any:
    """OpenAI's asynchronous client."""
    import openai

    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", **options)


def openai_chat(url: str) -> Any:
    """A chat completion."""
    return openai_client(url).chat.completions.create(model=CHAT_MODEL, messages=ASK)


def openai_chat_stream(url: str, *, usage: bool = True) -> Any:
    """A streamed chat completion."""
    asked: Any = {"stream_options": {"include_usage": True}} if usage else {}
    return openai_client(url).chat.completions.create(
        model=CHAT_MODEL, messages=ASK, stream=True, **asked
    )


def openai_responses(url: str) -> Any:
    """A response."""
    return openai_client(url).responses.create(model=CHAT_MODEL, input="Will it rain?")


def openai_responses_stream(url: str) -> Any:
    """A streamed response."""
    return openai_client(url).responses.create(model=CHAT_MODEL, input="Will it rain?", stream=True)


def anthropic_client(url: str, **options: Any) -> Any:
    """Anthropic's client."""
    import anthropic

    return anthropic.Anthropic(base_url=url, api_key="none", **options)


def anthropic_message(url: str) -> Any:
    """A message."""
    return anthropic_client(url).messages.create(model=CLAUDE, max_tokens=99, messages=ASK)


def anthropic_stream(url: str) -> Any:
    """A streamed message."""
    return anthropic_client(url).messages.create(
        model=CLAUDE, max_tokens=99, messages=ASK, stream=True
    )


@functools.cache
def google_client(url: str) -> Any:
    """Google's client: dropped, it closes its connections under the request that it sent."""
    from google import genai
    from google.genai import types

    return genai.Client(api_key="none", http_options=types.HttpOptions(base_url=url))


def google_content(url: str) -> Any:
    """An answer of `generate_content`."""
    return google_client(url).models.generate_content(
        model="gemini-2.5-flash", contents="Will it rain?"
    )


def google_stream(url: str) -> Any:
    """The same, streamed."""
    return google_client(url).models.generate_content_stream(
        model="gemini-2.5-flash", contents="Will it rain?"
    )


CONVERSATION: Any = {
    "modelId": "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "messages": [{"role": "user", "content": [{"text": "Will it rain?"}]}],
}


def bedrock_client(url: str, **config: Any) -> Any:
    """AWS's client."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "bedrock-runtime", endpoint_url=url, region_name="eu-west-1", aws_access_key_id="none",
        aws_secret_access_key="none", config=Config(proxies={}, **config),
    )  # fmt: skip


def bedrock_converse(url: str) -> Any:
    """An answer of `converse`."""
    return bedrock_client(url).converse(**CONVERSATION)


def bedrock_stream(url: str) -> Any:
    """The events of `converse_stream`."""
    return bedrock_client(url).converse_stream(**CONVERSATION)["stream"]


def chat_openai(url: str, **options: Any) -> Any:
    """LangChain's chat model for OpenAI."""
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        base_url=f"{url}/v1", api_key="none", model=CHAT_MODEL, stream_usage=True, **options
    )


def langchain_message(url: str) -> Any:
    """An AI message."""
    return chat_openai(url).invoke("Will it rain?")


def langchain_stream(url: str) -> Any:
    """Chunks of an AI message."""
    return chat_openai(url).stream("Will it rain?")


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"Rain in {city}."


def graph(url: str) -> Any:
    """A LangGraph of one model and one tool."""
    from langgraph.graph import END, START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    model = chat_openai(url).bind_tools([weather])
    built = StateGraph(MessagesState)
    built.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    built.add_node("tools", ToolNode([weather]))
    built.add_edge(START, "model")
    built.add_conditional_edges("model", tools_condition, {"tools": "tools", END: END})
    built.add_edge("tools", "model")
    return built.compile()


def langgraph_state(url: str) -> Any:
    """The state after one turn, with an earlier turn's messages before it."""
    made = graph(url)
    first = made.invoke({"messages": [("user", "Hello!")]})
    return made.invoke({"messages": [*first["messages"], ("user", "Will it rain?")]})


def langgraph_stream(url: str, mode: Any = "messages") -> Any:
    """What a graph streams in one turn."""
    return graph(url).stream({"messages": [("user", "Will it rain?")]}, stream_mode=mode)


def litellm_completion(url: str, **options: Any) -> Any:
    """LiteLLM's completion."""
    import litellm

    same: Any = {
        "model": f"openai/{CHAT_MODEL}",
        "api_base": f"{url}/v1",
        "api_key": "none",
        "messages": ASK,
    }
    return litellm.completion(**same, **options)


def litellm_stream(url: str) -> Any:
    """LiteLLM's stream."""
    return litellm_completion(url, stream=True, stream_options={"include_usage": True})


def pydantic_agent(url: str) -> Any:
    """An agent of pydantic-ai."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return Agent(
        OpenAIChatModel(CHAT_MODEL, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="none"))
    )


def pydantic_run(url: str) -> Any:
    """A run of pydantic-ai."""
    return asyncio.run(pydantic_agent(url).run("Will it rain?"))


def pydantic_texts(url: str) -> Iterator[Any]:
    """The texts of a streamed run of pydantic-ai."""

    async def texts() -> AsyncIterator[Any]:
        async with pydantic_agent(url).run_stream("Will it rain?") as streamed:
            async for text in streamed.stream_text(delta=True):
                yield text

    return collected(texts)


def agents_agent(url: str) -> Any:
    """An agent of OpenAI's agents SDK, with a tool."""
    import agents

    agents.set_tracing_disabled(True)
    tool = agents.function_tool(weather)
    model = agents.OpenAIResponsesModel(model=CHAT_MODEL, openai_client=async_openai_client(url))
    return agents.Agent(name="weather", instructions="Be brief.", model=model, tools=[tool])


def agents_run(url: str) -> Any:
    """A run of OpenAI's agents."""
    import agents

    return asyncio.run(agents.Runner.run(agents_agent(url), "Will it rain?"))


def collected(events: Callable[[], AsyncIterator[Any]]) -> Iterator[Any]:
    """The items of an asynchronous iterator, for a test that reads them one by one."""

    async def everything() -> list[Any]:
        return [event async for event in events()]

    return iter(asyncio.run(everything()))


def agents_stream(url: str) -> Iterator[Any]:
    """The events of a streamed run of OpenAI's agents."""
    import agents

    return collected(
        lambda: agents.Runner.run_streamed(agents_agent(url), "Will it rain?").stream_events()
    )


CLIENTS: dict[str, Client] = {
    "openai chat": Client(openai_chat, openai_chat_stream, "openai", CHAT_MODEL, "stop"),
    "openai responses": Client(
        openai_responses, openai_responses_stream, "openai", CHAT_MODEL, "completed"
    ),
    "anthropic": Client(anthropic_message, anthropic_stream, "anthropic", CLAUDE, "end_turn"),
    "google": Client(google_content, google_stream, "gcp.gemini", "gemini-2.5-flash", "stop"),
    "bedrock": Client(bedrock_converse, bedrock_stream, "aws.bedrock", None, "end_turn"),
    "langchain": Client(langchain_message, langchain_stream, "openai", CHAT_MODEL, "stop"),
    "langgraph": Client(langgraph_state, langgraph_stream, "openai", CHAT_MODEL, "stop"),
    "pydantic-ai": Client(pydantic_run, pydantic_texts, "openai", CHAT_MODEL, "stop"),
    "openai agents": Client(agents_run, agents_stream, None, None, None),
    "litellm": Client(litellm_completion, litellm_stream, "openai", CHAT_MODEL, "stop"),
}
