"""Read what a model call returned, by its shape: whichever SDK made it, and whether it is installed
or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MethodType
from typing import Any

from ..diagnostics import raise_if_interrupted
from .fields import count, field, integer, is_a, is_known, items, package_of, path, text
from .usage import Generation, Usage, read_usage, total_of

Reader = Callable[[Any], "Generation | None"]
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, set, frozenset})
_MAX_ENTRIES = 1000


def read(result: Any) -> Generation | None:
    """Return what *result* says of its model call; None when it says nothing.

    Takes what OpenAI's, Anthropic's, Google's, AWS's and LiteLLM's SDKs return, messages and states
    of LangChain and LangGraph, runs of pydantic-ai and of OpenAI's agents, the same as
    dictionaries, a `Usage`, a `Generation`, and lists of all these, which are added up. Never
    raises.
    """
    kind = type(result)
    if kind in _PLAIN:
        return None
    if kind is Generation:
        return result  # type: ignore[no-any-return]
    if kind is Usage:
        return Generation(usage=result)
    try:
        if kind is list or kind is tuple:
            return total_of(_all(result))
        return next((found for reader in _READERS if (found := reader(result)) is not None), None)
    except Exception as error:  # an odd object of the host's says nothing
        raise_if_interrupted(error)
        return None


def read_each(result: Any) -> list[Generation]:
    """Return the model calls that *result* tells of, one by one; never raises."""
    messages = items(result, "messages") if type(result) is dict else ()
    if not is_a(result, (list, tuple)) and not messages:
        found = read(result)
        return [] if found is None else [found]
    try:
        return list(_all(latest_turn(messages) if messages else result))
    except Exception as error:  # an odd object of the host's says nothing
        raise_if_interrupted(error)
        return []


def _all(results: Iterable[Any]) -> Iterable[Generation]:
    seen: set[str] = set()
    for number, result in enumerate(results):
        found = read(result) if number < _MAX_ENTRIES else None
        if found is not None and (found.id is None or found.id not in seen):
            seen.add(found.id or "")
            yield found


# -- OpenAI, and whoever speaks like it ------------------------------------------------------------


def _chat(result: Any) -> Generation | None:
    """Return a chat completion: OpenAI's, LiteLLM's, a dictionary of theirs. Embeddings look like
    one without choices.
    """
    usage = field(result, "usage")
    choices = items(result, "choices")
    if integer(usage, "prompt_tokens", "completion_tokens") is None and not _are_choices(choices):
        return None
    return Generation(
        usage=read_usage(usage),
        model=text(result, "model"),
        provider=speaker(result),
        finish_reason=_lower(
            next((reason for choice in choices if (reason := text(choice, "finish_reason"))), None)
        ),
        tool_calls=_chat_tool_calls(choices),
        id=text(result, "id"),
    )


def _are_choices(choices: Any) -> bool:
    return bool(choices) and all(field(choice, "message") is not None for choice in choices)


def _chat_tool_calls(choices: Any) -> int | None:
    return (
        sum(len(items(choice, "message", "tool_calls")) for choice in choices) if choices else None
    )


def speaker(result: Any) -> str | None:
    """Return the provider: LiteLLM names it; OpenAI's SDK says only whose language was spoken."""
    return text(path(result, "_hidden_params"), "custom_llm_provider") or (
        "openai" if package_of(type(result)) == "openai" else None
    )


def _responses(result: Any) -> Generation | None:
    """Return a response of OpenAI's responses API."""
    if text(result, "object") != "response":
        return None
    return Generation(
        usage=read_usage(field(result, "usage")),
        model=text(result, "model"),
        provider=speaker(result),
        finish_reason=text(field(result, "incomplete_details"), "reason") or text(result, "status"),
        tool_calls=sum(
            1 for item in items(result, "output") if (text(item, "type") or "").endswith("_call")
        ),
        id=text(result, "id"),
    )


def _raw_response(result: Any) -> Generation | None:
    """`with_raw_response`: its body is there and parsed once; only here a plain call shows its
    retries.
    """
    if not is_known(type(result)) or type(result).__name__ not in (
        "LegacyAPIResponse",
        "APIResponse",
    ):
        return None
    parsed = read(result.parse()) if type(result).__name__ == "LegacyAPIResponse" else None
    retries = integer(result, "retries_taken")
    made = Generation(attempts=None if retries is None else retries + 1)
    return made if parsed is None else parsed + made


# -- the others ------------------------------------------------------------------------------------


def _anthropic(result: Any) -> Generation | None:
    """Return a message of Anthropic's."""
    if (
        text(result, "type") != "message"
        or integer(field(result, "usage"), "input_tokens", "output_tokens") is None
    ):
        return None
    return Generation(
        usage=read_usage(field(result, "usage")),
        model=text(result, "model"),
        provider="anthropic",
        finish_reason=text(result, "stop_reason"),
        tool_calls=count(items(result, "content"), "tool_use", "server_tool_use", "mcp_tool_use"),
        id=text(result, "id"),
    )


def _google(result: Any) -> Generation | None:
    """Google's `generate_content`."""
    figures = field(result, "usage_metadata") or field(result, "usageMetadata")
    if (
        integer(
            figures,
            "prompt_token_count",
            "promptTokenCount",
            "total_token_count",
            "totalTokenCount",
        )
        is None
    ):
        return None
    candidates = items(result, "candidates")
    return Generation(
        usage=read_usage(figures),
        model=text(result, "model_version", "modelVersion"),
        provider="gcp.gemini",
        finish_reason=google_finish_reason(candidates),
        tool_calls=google_tool_calls(candidates),
        id=text(result, "response_id", "responseId"),
    )


def google_finish_reason(candidates: Iterable[Any]) -> str | None:
    """Return the first reason that one of Google's *candidates* gives for its end."""
    return _lower(
        next(
            (
                said
                for candidate in candidates
                if (said := text(candidate, "finish_reason", "finishReason"))
            ),
            None,
        )
    )


def google_tool_calls(candidates: Iterable[Any]) -> int:
    """Return how many functions Google's *candidates* want called."""
    return sum(
        1
        for candidate in candidates
        for part in items(candidate, "content", "parts")
        if (field(part, "function_call") or field(part, "functionCall")) is not None
    )


def _bedrock(result: Any) -> Generation | None:
    """Bedrock's `converse`; it does not say which model answered."""
    if integer(field(result, "usage"), "inputTokens", "outputTokens") is None:
        return None
    content = items(result, "output", "message", "content")
    return Generation(
        usage=read_usage(field(result, "usage")),
        provider="aws.bedrock",
        finish_reason=text(result, "stopReason"),
        tool_calls=sum(1 for block in content if field(block, "toolUse") is not None),
        attempts=boto_attempts(result),
        id=text(field(result, "ResponseMetadata"), "RequestId"),
    )


def boto_attempts(answer: Any) -> int | None:
    """Return how many requests boto3 made for *answer*."""
    retries = integer(field(answer, "ResponseMetadata"), "RetryAttempts")
    return None if retries is None else retries + 1


def message(result: Any) -> Generation | None:
    """Return an AI message of LangChain, or a chunk of one."""
    if text(result, "type") not in ("ai", "AIMessageChunk"):
        return None
    about = field(result, "response_metadata")
    return Generation(
        usage=read_usage(field(result, "usage_metadata")),
        model=text(about, "model_name", "model", "model_id"),
        provider=text(about, "model_provider"),
        finish_reason=_lower(text(about, "finish_reason", "stop_reason", "stopReason")),
        tool_calls=len(items(result, "tool_calls")),
        id=text(result, "id"),
    )


def _messages(result: Any) -> Generation | None:
    """Return a state of LangGraph: the AI messages since the last human one, for it repeats those
    of earlier turns.
    """
    return total_of(_all(latest_turn(items(result, "messages"))))


def latest_turn(messages: Sequence[Any]) -> Sequence[Any]:
    """Return the AI messages since the last human one."""
    humans = [number for number, entry in enumerate(messages) if text(entry, "type") == "human"]
    return [
        entry
        for entry in messages[humans[-1] + 1 if humans else 0 :]
        if text(entry, "type") == "ai"
    ]


def _agent_run(result: Any) -> Generation | None:
    """Return a run of OpenAI's agents."""
    usage = path(result, "context_wrapper", "usage")
    if integer(usage, "requests") is None:
        return None
    answers = items(result, "raw_responses")
    return Generation(
        usage=read_usage(usage),
        model=text(path(result, "last_agent"), "model"),
        tool_calls=sum(
            1
            for answer in answers
            for item in items(answer, "output")
            if (text(item, "type") or "").endswith("_call")
        ),
        id=text(result, "last_response_id"),
    )


def _pydantic_run(result: Any) -> Generation | None:
    """Return a run of pydantic-ai, whose `usage` was a method before version 2."""
    if package_of(type(result)) != "pydantic_ai":
        return None
    usage = field(result, "usage")
    usage = (
        usage() if isinstance(usage, MethodType) else usage
    )  # version 2's is callable, too, and then warns
    if integer(usage, "requests") is None:
        return None
    answer = field(result, "response")
    return Generation(
        usage=read_usage(usage),
        model=text(answer, "model_name"),
        provider=text(answer, "provider_name"),
        finish_reason=text(answer, "finish_reason"),
        tool_calls=integer(usage, "tool_calls"),
        id=text(answer, "provider_response_id"),
    )


def _structured(result: Any) -> Generation | None:
    """Return what LangChain's `with_structured_output(include_raw=True)` was parsed from."""
    if type(result) is not dict or not {"raw", "parsed"} <= result.keys():
        return None
    return message(result["raw"])


def _managed(result: Any) -> Generation | None:
    """Return a managed call of LaunchDarkly's `ldai`: its summary, and what the SDK inside said."""
    if package_of(type(result)) != "ldai":
        return None
    usage = read_usage(path(result, "metrics", "tokens"))
    said = read(field(result, "raw")) or Generation()
    calls = items(result, "metrics", "tool_calls")
    told = Generation(usage=usage, tool_calls=len(calls) or None)
    if said.usage is not None or told == Generation():
        return None if said == Generation() else said
    return said + told


def _flat(result: Any) -> Generation | None:
    """Return a dictionary or an object of the user's: `usage` beside other fields, or the figures
    themselves.
    """
    usage = read_usage(field(result, "usage") or field(result, "usage_metadata")) or read_usage(
        result
    )
    if usage is not None and usage.output is None and is_known(type(result)):
        usage = read_usage(field(result, "usage"))  # what `count_tokens` returns was not used
    return None if usage is None else _fields_of(result, usage)


def read_fields(given: Mapping[str, Any]) -> Generation | None:
    """Return what a user tells in a mapping of `Generation`'s and `Usage`'s own names, or of a
    provider's.
    """
    own = read_usage(given)
    told = _fields_of(given, own)
    return read(given) or (None if told == Generation() else told)


def _fields_of(result: Any, usage: Usage | None) -> Generation:
    tool_calls = integer(result, "tool_calls")
    return Generation(
        usage=usage,
        model=text(result, "model"),
        provider=text(result, "provider"),
        finish_reason=text(result, "finish_reason", "stop_reason"),
        tool_calls=tool_calls
        if tool_calls is not None
        else len(items(result, "tool_calls")) or None,
        attempts=integer(result, "attempts"),
        id=text(result, "id"),
    )


def _lower(reason: str | None) -> str | None:
    return None if reason is None else reason.lower()


_READERS: tuple[Reader, ...] = (
    _raw_response,
    _agent_run,
    _pydantic_run,
    _managed,
    _structured,
    message,
    _messages,
    _responses,
    _chat,
    _anthropic,
    _google,
    _bedrock,
    _flat,
)


# -- errors ----------------------------------------------------------------------------------------


def read_error(error: BaseException) -> Generation | None:
    """Return what an SDK's exception says: how many requests were made. None when it says nothing;
    never raises.
    """
    try:
        attempts = request_attempts(getattr(error, "request", None)) or boto_attempts(
            getattr(error, "response", None)
        )
    except Exception as failure:  # an SDK's property that refuses, or a mock's
        raise_if_interrupted(failure)
        return None
    return None if attempts is None else Generation(attempts=attempts)


def request_attempts(request: Any) -> int | None:
    """Return how many requests OpenAI's or Anthropic's SDK made, by its header for that."""
    headers = getattr(request, "headers", None)
    retries = None if headers is None else headers.get("x-stainless-retry-count")
    return int(retries) + 1 if isinstance(retries, str) and retries.isdigit() else None
