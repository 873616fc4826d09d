"""The shop's assistant: OpenAI's client, with a prompt that LaunchDarkly chooses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import ldinstrument as ld

if TYPE_CHECKING:
    from openai import OpenAI

PROMPTS = {
    "brief": "You advise in an outdoor shop. Answer in one sentence.",
    "friendly": "You advise in an outdoor shop. Be warm and friendly, and offer to add the product to the cart.",
}
TOKENS = ld.Metric(
    "assistant.tokens",
    unit="tokens",
    success_criteria="LowerThanBaseline",
    description="Tokens of one answer.",
)
ld.catalog.add(TOKENS)


class Assistant:
    def __init__(self, base_url: str | None = None) -> None:
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL")

    def prepare(self) -> None:
        """Load what takes seconds, so that the first visitor does not wait for it, and no duration
        counts it.
        """
        self._client.chat.completions  # noqa: B018 - it loads when it is looked at

    @cached_property
    def _client(self) -> OpenAI:
        from openai import OpenAI  # takes a second or more; the shop sells without it

        return OpenAI(base_url=self._base_url, api_key="local", max_retries=0)

    @ld.track_task("assistant.answer")
    def answer(self, question: str, prompt: str) -> Iterator[str]:
        """Stream the answer; the task lasts until its last word, or until the reader goes away."""
        stream = self._client.chat.completions.create(
            model="local",
            messages=[
                {"role": "system", "content": PROMPTS[prompt]},
                {"role": "user", "content": question},
            ],
            stream=True,
            stream_options={"include_usage": True},
        )
        with stream:
            for chunk in stream:
                if chunk.usage is not None and (session := ld.current_session()) is not None:
                    session.record(TOKENS, chunk.usage.total_tokens, data={"prompt": prompt})
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content
