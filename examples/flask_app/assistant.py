"""The shop's assistant: OpenAI's client, with a prompt that LaunchDarkly chooses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import ldinstrument as ld
from ldinstrument.ai import current_call

if TYPE_CHECKING:
    from openai import OpenAI

PROMPTS = {
    "brief": "You advise in an outdoor shop. Answer in one sentence.",
    "friendly": "You advise in an outdoor shop. Be warm and friendly, and offer to add the product "
    "to the cart.",
}


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

    # The request is what counts as an interaction of the visit; this model has no price.
    @ld.track_ai("assistant.answer", interaction=False, cost=False)
    def answer(self, question: str, prompt: str) -> Iterator[str]:
        """Stream the answer; the call lasts until its last word, or until the reader goes away."""
        call = current_call()
        assert call is not None
        call.add_data(prompt=prompt)
        stream = self._client.chat.completions.create(
            model="local",
            messages=[
                {"role": "system", "content": PROMPTS[prompt]},
                {"role": "user", "content": question},
            ],
            stream=True,
            stream_options={"include_usage": True},
        )
        with call.follow(stream) as chunks:
            for chunk in chunks:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content
