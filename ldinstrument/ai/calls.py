"""One call of a model, from its start to its end: a run of a task that also hears what was used.

Nothing here raises into the host, and what the garbage collector calls takes no lock and sends
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..callables import stream_objects as streams
from ..diagnostics import log_internal_error
from ..errors import StrictError
from ..metrics.catalogs import catalog
from ..sessions.clock import clock
from ..sessions.outcomes import Outcome, is_closing, outcome_of
from ..sessions.postponed import postpone
from ..sessions.scopes import open_session
from ..sessions.session import Session
from ..sessions.task_definition import TaskDefinition
from ..settings import disabled
from ..tasks.options import TaskOptions
from ..tasks.runs import begin_run
from .call_slots import Slot, call_in, current_slot, live, surround
from .call_values import CallValues, append_times, data_of, routing_of, times_of, values_of
from .config_runs import CallEnd, ConfigRun, note_run, run_from, run_told_by
from .fields import field
from .judges import track_judges_of
from .options import CallOptions
from .readings import Reading, StreamPart
from .results import boto_attempts, read_error
from .usage import Generation

FAILED = "failed"
"""The finish reason of a response that OpenAI answers instead of raising."""


class Call:
    """One started call of a model. `with track_ai("key") as call` gives it to you; inside a
    decorated function `current_call()` does.
    """

    __slots__ = (
        "_chunks",
        "_config_run",
        "_first",
        "_heard",
        "_last",
        "_options",
        "_over",
        "_own",
        "_run",
        "_run_options",
        "_session",
        "_started",
        "_stream",
        "_task",
        "_usage_sent",
        "slot",
    )

    delegates = False  # each chunk is read

    def __init__(
        self,
        task: TaskDefinition,
        run_options: TaskOptions,
        options: CallOptions,
        session: Session | None,
        started: float,
        who: Callable[[], Any] | None = None,
    ) -> None:
        self._task = task
        self._options = options
        self._run_options = run_options
        # Without a session, `context=` makes one of this call alone.
        self._own = None
        if session is None and who is not None:
            session = self._own = open_session(who(), name="task", silent=True)
        self._session = session
        self._started = started
        self._run = begin_run(task, run_options, session, started)
        self._heard: Reading | None = None
        self._stream: StreamPart | None = None
        self._config_run: ConfigRun | None = None
        self._usage_sent = False
        self._first: float | None = None
        self._last = 0.0
        self._chunks = 0
        self.slot: Slot = [self, Call, None, started, None]
        self._over = False

    @property
    def _reading(self) -> Reading:
        """Return what was read, which is made when something is."""
        if self._heard is None:
            self._heard = Reading(self._task.key, self._options)
        return self._heard

    # -- what the user may say ---------------------------------------------------------------------
    def read(self, answer: Any) -> None:
        """Read what a model's SDK returned, in a function that returns something else.

        Each answer counts once, also when it is returned, too; several add up. A dictionary may use
        the names of `Usage` and `Generation`: `call.read({"input": 12, "model": "m"})`.
        """
        self._guarded(self._reading.answer, answer)

    def follow(self, stream: Any) -> Any:
        """Read a stream of a model's SDK while it is consumed, and return it: the very object,
        but for a generator (Google's, LangChain's), which is returned inside another one.
        """
        try:
            self._reading.request_of(stream)
            return streams.followed(stream, _Part(self._reading.stream()))
        except Exception as error:
            log_internal_error("following a stream", error)
            return stream

    def attempt(self) -> None:
        """Count one request to the provider, where you retry by yourself."""
        self._reading.count_attempt()

    def bind(self, given: Any) -> Any:
        """Bind it to a run of an AI config, and return the tracker of that run, if it has one.

        Args:
            given: a config of `ldai` (a new run begins), a tracker of it, a response of
                `launchdarkly_ai_server`, or the data of a run.
        """
        try:
            self.bind_run(run_from(given))
        except Exception as error:
            log_internal_error("binding a model call", error)
        return None if self._config_run is None else self._config_run.tracker

    def bind_run(self, run: ConfigRun | None) -> None:
        """Bind it to *run*, of which its events then carry the data."""
        if run is not None:
            self._config_run = run
            self._reading.name(run.data.get("modelName"), run.data.get("providerName"))
            note_run(self._session, run)

    def read_span(self, known: Generation) -> None:
        """Read what the spans of one of its model calls say."""
        self._reading.span(known)

    def first_token_after(self, seconds: float) -> None:
        """Note the time to the first token that somebody else has taken."""
        if self._first is None:
            self._first = self._started + seconds

    def usage_is_sent(self, sent: bool) -> None:
        """Note whether LaunchDarkly's SDK was given the usage of this call."""
        self._usage_sent = sent

    def fail(self, reason: str = "") -> None:
        """Say that the call failed although nothing is raised; *reason* goes into the data."""
        self._run.fail(reason)

    def add_data(self, **data: Any) -> None:
        """Add to the data of this call's events."""
        self._run.add_data(**data)

    @property
    def key(self) -> str:
        """Return the key of its task."""
        return self._task.key

    @property
    def session(self) -> Session | None:
        """Return the session that it belongs to."""
        return self._session

    @property
    def known(self) -> Generation:
        """Return what is known of it so far: usage, model, provider, finish reason, tool calls."""
        return self._reading.total()

    # -- the watcher of its run --------------------------------------------------------------------
    def resume(self) -> None:
        """Make it the current call: the user's code is about to run."""
        slot, outer = self.slot, current_slot.get()
        if outer is not slot[4]:
            surround(slot, outer)
        current_slot.set(slot)
        self._run.resume()

    def pause(self) -> None:
        """Make the call around it the current one again."""
        current_slot.set(self.slot[4])
        self._run.pause()

    def item(self, chunk: Any) -> None:
        """Read *chunk*, which the consumer is about to be given."""
        if self._stream is None:
            self._stream = self._reading.stream()
        if self._stream.reader.add(chunk):
            self._last = clock()
            self._chunks += 1
            if self._first is None:
                self._first = self._last

    def wrote(self, pieces: int, first: float, last: float) -> None:
        """Note *pieces* that a stream wrote, read by nobody here, and the dates of the first and
        the last one.
        """
        if pieces:
            self._chunks += pieces
            self._first = first if self._first is None else min(first, self._first)
            self._last = max(last, self._last)

    def consumed_by(self, task: Any) -> None:
        """Note the asyncio task that consumes the stream."""
        self._run.consumed_by(task)

    def first(self) -> None:
        """Note that the first item of a stream is there."""
        if self._stream is None:  # a body of bytes, which nobody reads here
            self._first = clock()
        self._run.first()

    def unstarted(self) -> None:
        """Record nothing: it never began to run."""
        if not self._over:
            self._leave()
            self._run.unstarted()
            self._end_own()

    def returned(self, result: Any) -> None:
        """End the call, which returned *result*."""
        if self._over:
            return
        self._leave()
        if result is None and self._heard_nothing():
            self._end_unread()
            return
        if self._stream is not None:
            self._stream.complete = True
        if result is not None or self._stream is None:
            self._guarded(self._reading.result, result)
        self._guarded(self._bind_result, result)
        self._guarded(self._reading.warn_of_untold_usage)
        self._end_read(result)

    def _end_unread(self) -> None:
        """End a call that returned, of which nothing but the run and its times is known."""
        times = self._times()
        if times:
            self._run.describe(times)
        self._run.returned(None)
        if times and self._session is not None:
            append_times(self._session, self._task.key, self._options.metrics, times, None)
        if self._own is not None:
            self._own.end()

    def _end_read(self, result: Any) -> None:
        """End a call that returned, with what is known of it."""
        end = self._totals(broken_off=False)
        if end.end.known.finish_reason == FAILED and self._run_options.success is None:
            self._run.fail(FAILED)
        self._run.add_data(**end.data)
        self._run.describe(end.described)
        self._run.returned(result)
        self._record(end)
        if self._session is not None:
            self._guarded(track_judges_of, result, self._session)
        self._settle(end, self._run.outcome or Outcome.SUCCESS)

    def raised(self, error: BaseException) -> None:
        """End the call, out of which *error* came."""
        if self._over:
            return
        self._leave()
        outcome = outcome_of(error, self._run_options.expected)
        if outcome is Outcome.SUSPENDED:  # it goes on elsewhere, and is one call there
            self._run.raised(error)
            self._end_own()
            return
        if (told := read_error(error)) is not None:
            self._reading.attempts_of_error(told.attempts)
        end = self._totals(broken_off=not outcome.finished)
        self._run.add_data(**end.data)
        self._run.plain_data = end.data or None
        self._run.describe(end.described)
        self._run.raised(error)
        if is_closing(error):
            self._record_from_finalizer(end)
            postpone(lambda: self._settle(end, outcome))
        else:
            self._record(end)
            self._settle(end, outcome)

    # -- the follower of an SDK's stream that the caller was given ---------------------------------
    def follow_result(self, result: Any) -> bool:
        """Follow the SDK's stream that *result* is, or holds; False when there is none."""
        stream = result.get("stream") if type(result) is dict else result
        if stream is None or not streams.follow(stream, self):
            return False
        if stream is result:
            self._reading.request_of(stream)
        else:
            self._reading.attempts(boto_attempts(result))
        return True

    def exhausted(self) -> None:
        """End: the stream has nothing more."""
        self.returned(None)

    def failed(self, error: BaseException) -> None:
        """End: the stream failed."""
        self.raised(error)

    def closed(self, error: BaseException | None) -> None:
        """End: the consumer closed the stream; after the model was done that breaks nothing off."""
        if self._model_is_done():
            self.returned(None)
        else:
            self.raised(_leaving(error))

    def dropped(self) -> None:
        """End: nobody has the stream any more. The garbage collector says so: nothing may be sent,
        and no code of the user's be run.
        """
        self._reading.hush()
        if self._over or not self._model_is_done() or self._session is None:
            self.raised(_leaving(None))
            return
        self._leave()
        self._run.unstarted()  # how it ended is told here instead: the run would take a lock
        end = self._totals(broken_off=False)
        self._session.append_from_finalizer(
            (self._task, Outcome.SUCCESS, self._started, clock(), end.data or None)
        )
        self._record_from_finalizer(end)
        postpone(lambda: self._settle(end, Outcome.SUCCESS))

    def _leave(self) -> None:
        """Be over, and nobody's current call any more, wherever it was made that."""
        self._over = True
        self.slot[1] = None

    def _bind_result(self, result: Any) -> None:
        """Bind it to the run that *result* tells, of which LaunchDarkly's SDK has sent the events:
        a managed call of the old one is a run of its own, whatever `config=` has begun.
        """
        run = run_told_by(result)
        if run is None and self._config_run is None:
            told = isinstance(field(result, "track_data"), dict)
            run = run_from(result) if told else None
        if run is not None:
            self.bind_run(run)
            self._usage_sent = True

    def _heard_nothing(self) -> bool:
        """Tell whether nothing but the run and its times is known."""
        return self._heard is None and self._config_run is None and self._options.silent

    def _model_is_done(self) -> bool:
        return self._stream is not None and self._stream.reader.finished

    # -- the end -----------------------------------------------------------------------------------
    def _totals(self, *, broken_off: bool) -> CallValues:
        try:
            known, cost = self._reading.total(broken_off=broken_off), self._reading.cost()
            first = None if self._first is None else (self._first - self._started) * 1000
            values = self._times() | values_of(known, cost)
            if "inference_calls" in self._options.metrics:
                values["inference_calls"] = self._reading.inference_calls()
            data = data_of(known, cost)
            if self._config_run is not None:
                data = {**data, **self._config_run.data}
            wanted = self._options.metrics
            return CallValues(
                {
                    suffix: value
                    for suffix, value in values.items()
                    if value is not None and suffix in wanted
                },
                data,
                CallEnd(known, (clock() - self._started) * 1000, first, self._usage_sent),
            )
        except Exception as error:
            log_internal_error("a model call", error)
            return CallValues()

    def _times(self) -> dict[str, float]:
        """Return the milliseconds that its stream took, by suffix."""
        if self._first is None:
            return {}
        return times_of(self._started, self._chunks, self._first, self._last)

    def _record(self, end: CallValues) -> None:
        if self._session is not None and end.values:
            self._guarded(self._record_all, self._session, end)

    def _record_all(self, session: Session, end: CallValues) -> None:
        for suffix, value in end.values.items():
            routing_of(self._task.key, suffix, self._options.metrics)
            session.record(self._options.metrics[suffix], value, data=end.data)

    def _record_from_finalizer(self, end: CallValues) -> None:
        if self._session is None:
            return
        for suffix, value in end.values.items():
            routing = catalog.routing(self._options.metrics[suffix])
            self._session.append_from_finalizer((routing, value, end.data or None, clock(), None))

    def _settle(self, end: CallValues, outcome: Outcome) -> None:
        """Send what LaunchDarkly's SDK leaves out, and end the session of this call alone."""
        if self._config_run is not None and not disabled():
            self._guarded(self._config_run.settle, outcome, end.end)
        self._end_own()

    def _end_own(self) -> None:
        if self._own is not None:
            self._own.end()

    def _guarded(self, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except StrictError:
            raise
        except Exception as error:
            log_internal_error("a model call", error)

    def __repr__(self) -> str:
        return f"<Call of {self._task.key}{', over' if self._over else ''}>"


class _Part:
    """Follows a stream that the tracked function itself consumes: it is read, and ends nothing."""

    def __init__(self, part: StreamPart) -> None:
        self._part = part

    def item(self, chunk: Any) -> None:
        """Read *chunk*, which the function is about to be given."""
        self._part.reader.add(chunk)

    def exhausted(self) -> None:
        """Note that the stream was read to its end."""
        self._part.complete = True

    def failed(self, error: BaseException) -> None:
        """Do nothing: of a stream that failed, what was read before counts."""

    def closed(self, error: BaseException | None) -> None:
        """Note that the function had enough; after the model was done that breaks nothing off."""
        self._part.complete = self._part.reader.finished

    def dropped(self) -> None:
        """Take it for closed: nobody has the stream any more."""
        self.closed(None)


def _leaving(error: BaseException | None) -> GeneratorExit:
    """Return what a generator in the stream's place would see: it is closed, while *error* is
    handled.
    """
    leaving = GeneratorExit()
    leaving.__context__ = error
    return leaving


def current_call() -> Call | None:
    """Return the innermost call that this code runs in, or None."""
    slot = live(current_slot.get())
    return None if slot is None else call_in(slot)
