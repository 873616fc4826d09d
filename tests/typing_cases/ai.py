"""What a type checker sees through `track_ai`. Never run; checked by `mypy --strict` and pyright."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

import ldinstrument as ld
from ldinstrument.ai import Call, Price, PriceTable, current_call

if TYPE_CHECKING:
    from typing_extensions import assert_type


@ld.track_ai
def bare(question: str) -> int:
    return 1


@ld.track_ai("key", model="m", cost=PriceTable({"m": Price(input=1, output=2)}), within=2.0)
async def called(question: str, *, brief: bool = False) -> str:
    return ""


@ld.track_ai("stream", estimate=len)
def words(question: str) -> Generator[str, None, None]:
    yield ""


@ld.track_ai("async stream", estimate=True)
async def async_words(question: str) -> AsyncGenerator[str, None]:
    yield ""


class Assistant:
    @ld.track_ai("method")
    def answer(self, question: str) -> str:
        return ""


def uses() -> None:
    with ld.track_ai("block") as call:
        assert_type(call, Call)
    assert_type(current_call(), Call | None)
    assert_type(bare("x"), int)
    assert_type(Assistant().answer("x"), str)
    asynchronous: Callable[[str], Coroutine[Any, Any, str]] = called
    stream: Callable[[str], Generator[str, None, None]] = words
    async_stream: Callable[[str], AsyncGenerator[str, None]] = async_words
    print(asynchronous, stream, async_stream)
    assert_type(ld.feedback_token(), str | None)
    assert_type(ld.track_feedback(True, token="x"), bool)
