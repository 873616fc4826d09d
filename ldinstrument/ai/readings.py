"""All that is known of one operation: answers that were read, streams, attempts, and the cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from ..diagnostics import raise_if_interrupted, warn_once, warn_user_code
from .chunks import StreamReader
from .cost import Cost, warn_unpriced
from .options import CallOptions
from .results import read_each, read_fields, request_attempts
from .usage import Generation, Usage, total_of

MOST_ANSWERS = 10_000


@dataclass(slots=True)
class StreamPart:
    """One stream of the operation, as far as it was read."""

    reader: StreamReader
    complete: bool = False


class Reading:
    """What is known of one operation so far.

    Args:
        key: of its task, for messages.
        options: of its task.
    """

    __slots__ = (
        "_answers",
        "_attempts",
        "_counted",
        "_estimate",
        "_key",
        "_known",
        "_names",
        "_options",
        "_parts",
        "_prices",
        "_spans",
    )

    def __init__(self, key: str, options: CallOptions) -> None:
        self._key = key
        self._options = options
        self._answers: list[Any] = []
        self._known: list[Generation] = []
        self._parts: list[StreamPart] = []
        self._spans: list[Generation] = []
        self._attempts: list[int | None] = []
        self._counted: int | None = None
        self._names = options.model, options.provider
        self._prices, self._estimate = options.prices, options.estimate

    # -- reading -----------------------------------------------------------------------------------
    def answer(self, answer: Any) -> None:
        """Read an answer; the same one again says nothing new."""
        if any(answer is seen for seen in self._answers):
            return
        known = read_each(answer)
        if not known and type(answer) is dict and (told := read_fields(answer)) is not None:
            known = [told]
        if known:
            self._known += known
            if len(self._answers) < MOST_ANSWERS:
                self._answers.append(answer)

    def result(self, result: Any) -> None:
        """Read what the tracked function returned, or what `extract=` makes of it."""
        if self._options.extract is not None:
            try:
                result = self._options.extract(result)
            except Exception as error:
                warn_user_code(f"extract= of {self._key}", error, "its tokens are not known")
                return
        self.answer(result)

    def name(self, model: str | None, provider: str | None) -> None:
        """Name model and provider where neither the answers nor the options do."""
        self._names = self._names[0] or model, self._names[1] or provider

    def stream(self) -> StreamPart:
        """Return a new stream of the operation, to be read into."""
        part = StreamPart(StreamReader(keep_text=self._options.estimate is not None))
        self._parts.append(part)
        return part

    def span(self, known: Generation) -> None:
        """Note what the spans of one model call say."""
        self._spans.append(known)

    def count_attempt(self) -> None:
        """Count one request that the user says was made: then only what they count is counted."""
        self._counted = (self._counted or 0) + 1

    def attempts(self, attempts: int | None) -> None:
        """Note how many requests one model call took; None: it is not known."""
        self._attempts.append(attempts)

    def attempts_of_error(self, attempts: int | None) -> None:
        """Take what an error tells, unless the stream that it came out of has told already."""
        if not self._attempts:
            self._attempts.append(attempts)

    def request_of(self, stream: Any) -> None:
        """Read from an SDK's stream how many requests it took to get it."""
        try:
            request = getattr(getattr(stream, "response", None), "request", None)
            self.attempts(request_attempts(request))
        except Exception as error:  # an SDK's property that refuses says nothing
            raise_if_interrupted(error)

    def warn_of_untold_usage(self) -> None:
        """Say it once when a stream has told no tokens because nobody asked."""
        if any(part.complete and part.reader.untold for part in self._parts):
            warn_once(
                "untold_usage",
                self._key,
                f"{self._key}: a stream of chat completions ended without its tokens: ask for them "
                "with stream_options={'include_usage': True}",
            )

    def hush(self) -> None:
        """Run no estimate and no prices from now on: this is the garbage collector's turn."""
        self._prices = self._estimate = None

    # -- what is known -----------------------------------------------------------------------------
    def generations(self) -> list[Generation]:
        """Return the model calls that are known, each once, with the models that the user named.

        Spans count where the answers told nothing, or more model calls ran than answers were read.
        """
        read = [self._read_from(part) for part in self._parts]
        found = self._known + [known for known in read if known != Generation()]
        told = sum(1 for known in found if known.usage is not None)
        if self._spans and (not told or len(self._spans) > len(found)):
            found = self._spans
        by_id = {known.id or f"#{number}": known for number, known in enumerate(found)}
        return [self._named(known) for known in by_id.values()]

    def inference_calls(self) -> int | None:
        """Return how many model calls it made; None when none is known."""
        return len(self.generations()) or None

    def total(self, *, broken_off: bool = False) -> Generation:
        """Return all of them as one operation; of one that was *broken_off*, usage is partial."""
        total = total_of(self.generations()) or self._named(Generation())
        total = replace(total, attempts=self._total_attempts())
        return total.broken_off() if broken_off else total

    def _total_attempts(self) -> int | None:
        """Return how many requests were made; None where a single one is not known of."""
        if self._counted is not None:
            return self._counted
        told = [*self._attempts, *(known.attempts for known in self._known)]
        if not told and self._spans:
            told = [known.attempts for known in self._spans]
        known = [attempts for attempts in told if attempts is not None]
        return sum(known) if known and len(known) == len(told) else None

    def cost(self) -> Cost | None:
        """Return what it cost; None when one of the calls has no known price."""
        prices, generations = self._prices, self.generations()
        if prices is None or not generations:
            return None
        costs = []
        for generation in generations:
            cost = prices.cost(generation)
            if cost is None:
                warn_unpriced(self._key, prices, generation)
                return None
            costs.append(cost)
        return Cost(sum((cost.dollars for cost in costs), Decimal(0)), costs[-1].version)

    def _read_from(self, part: StreamPart) -> Generation:
        known = part.reader.generation(complete=part.complete) or Generation()
        usage = known.usage or Usage()
        if part.complete or self._estimate is None or usage.output is not None:
            return known
        try:
            output = self._estimate(part.reader.text or "")
        except Exception as error:
            warn_user_code(f"estimate= of {self._key}", error, "nothing is estimated")
            return known
        total = None if usage.input is None else usage.input + output
        return replace(known, usage=replace(usage, output=output, total=total, state="estimated"))

    def _named(self, known: Generation) -> Generation:
        return replace(
            known,
            model=known.model or self._names[0],
            provider=known.provider or self._names[1],
        )
