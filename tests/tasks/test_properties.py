"""Random programs: decorated code behaves as bare code does, and what is counted is what a simple
model counts.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ldinstrument as ld
from ldinstrument import testing
from ldinstrument.sessions.current import current_session, entered, set_current
from ldinstrument.sessions.scopes import open_session
from ldinstrument.testing import RecordingClient

QUICK = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
pytestmark = pytest.mark.filterwarnings("ignore:.*use this key, so their runs are one metric")


class Boom(Exception):
    pass


# -- a body is a list of instructions, a consumer another one --------------------------------------

_raising = st.sampled_from(
    [Boom, asyncio.CancelledError, KeyboardInterrupt, StopIteration, ValueError]
)
BODIES = st.lists(
    st.one_of(
        st.tuples(st.just("yield"), st.integers(0, 9)),
        st.tuples(st.just("catch"), st.integers(0, 9)),
        st.tuples(st.just("stubborn"), st.integers(0, 9)),
        st.tuples(st.just("set"), st.integers(0, 9)),
        st.tuples(st.just("raise"), _raising),
        st.tuples(st.just("return"), st.integers(0, 9)),
    ),
    max_size=6,
)
SCRIPTS = st.lists(
    st.one_of(
        st.tuples(st.just("next"), st.none()),
        st.tuples(st.just("send"), st.one_of(st.none(), st.integers(0, 9))),
        st.tuples(
            st.just("throw"),
            st.sampled_from([Boom, asyncio.CancelledError, ValueError, KeyboardInterrupt]),
        ),
        st.tuples(st.just("close"), st.none()),
        st.tuples(st.just("drop"), st.none()),
    ),
    max_size=8,
)
SEEN: contextvars.ContextVar[int] = contextvars.ContextVar("seen", default=-1)


def body(program: list[tuple[str, Any]], heard: list[Any]) -> Generator[Any, Any, Any]:
    """Do what *program* says, and write down what came in."""
    for what, value in program:
        if what == "yield":
            heard.append((yield value))
        elif what == "catch":
            try:
                heard.append((yield value))
            except Exception as error:
                heard.append(type(error))
        elif what == "stubborn":
            try:
                heard.append((yield value))
            except BaseException as error:  # GeneratorExit, too
                heard.append(type(error))
        elif what == "set":
            SEEN.set(value)
        elif what == "raise":
            raise value("told to")
        else:
            return value
    return None


async def abody(program: list[tuple[str, Any]], heard: list[Any]) -> AsyncGenerator[Any, Any]:
    """The same as an async generator, which waits before each instruction."""
    for what, value in program:
        await asyncio.sleep(0)
        if what in ("yield", "catch", "stubborn"):
            kinds = {"yield": (), "catch": Exception, "stubborn": BaseException}[what]
            try:
                heard.append((yield value))
            except kinds as error:  # type: ignore[misc]
                heard.append(type(error))
        elif what == "set":
            SEEN.set(value)
        elif what == "raise":
            raise value("told to")
        else:
            return


STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "next": lambda generator, value: next(generator),
    "send": lambda generator, value: generator.send(value),
    "throw": lambda generator, value: generator.throw(value("thrown")),
    "close": lambda generator, value: generator.close(),
}
ASTEPS: dict[str, Callable[[Any, Any], Any]] = {
    "next": lambda generator, value: generator.__anext__(),
    "send": lambda generator, value: generator.asend(value),
    "throw": lambda generator, value: generator.athrow(value("thrown")),
    "close": lambda generator, value: generator.aclose(),
}


def observed(work: Callable[..., Any], *args: Any) -> Any:
    """What *work* did: returned, or raised and why."""
    try:
        return ("returned", work(*args))
    except StopIteration as stop:
        return ("stopped", stop.value)
    except BaseException as error:
        return ("raised", type(error), str(error), type(error.__context__), type(error.__cause__))


def driven(make: Callable[..., Any], program: Any, script: Any) -> tuple[list[Any], str]:
    """Run *script* against a new generator: all that can be seen of it, and how it ended."""
    heard: list[Any] = []
    trace: list[Any] = []
    SEEN.set(-1)
    generator = make(program, heard)
    end = "nothing"
    for what, value in script:
        if generator is None:
            break
        if what == "drop":
            generator = None
            gc.collect(0)
            trace.append(("dropped", list(heard), SEEN.get()))
            end = "abandoned" if end == "running" else end
            break
        seen = observed(STEPS[what], generator, value)
        trace.append((what, seen, list(heard), SEEN.get(), generator.__name__))
        if seen[0] == "raised" and "ignored GeneratorExit" in seen[2]:
            return [
                *trace[:-1],
                seen,
            ], "refused"  # a bare one could be resumed even now; nobody does
        end = ended(what, seen, end)
    generator = None
    if end == "running":
        end = "abandoned"
    gc.collect(0)
    return [*trace, heard, SEEN.get()], end


def ended(what: str, seen: Any, before: str) -> str:
    """The model: how a run ends, from what a bare generator does."""
    if before not in ("nothing", "running"):
        return before
    if what == "close":
        if before == "nothing":
            return "never"
        return "failure" if seen[0] == "raised" else "abandoned"
    if seen[0] == "returned":
        return "running"
    if seen[0] == "stopped":
        return "success"
    if before == "nothing" and what == "throw":
        return "never"  # thrown before it started: its body never ran
    if before == "nothing" and what == "send" and seen[1] is TypeError:
        return "nothing"  # a value sent to a generator that waits for none
    return "cancelled" if seen[1] in (asyncio.CancelledError, KeyboardInterrupt) else "failure"


def tally(session: ld.Session, key: str) -> Counter[str]:
    found = session.summary().tasks.get(key)
    if found is None:
        return Counter()
    names = ("success", "failure", "cancelled", "abandoned")
    return Counter({name: int(n) for name, n in zip(names, tuple(found)[:4], strict=True) if n})


def ways(make: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The wrappers that a generator function may get; the last two count nothing."""

    def plain(program: Any, heard: Any) -> Any:
        return make(program, heard)

    return {
        "function": ld.track_task("function")(make),
        "stepping": ld.track_task("stepping", metrics=("duration", "time_to_first_item"))(make),
        "returned": ld.track_task("returned")(plain),
        "session": ld.session(name="visit")(make),
        "propagate": ld.propagate(make),
    }


def _model_applies(way: str, end: str) -> bool:
    return way in ("function", "stepping", "returned") and end in (
        "success",
        "failure",
        "cancelled",
        "abandoned",
    )


def _stubborn_close(program: Any, script: Any) -> bool:
    """Refusing to be closed raises in `close()`, and is an unraisable complaint when dropped:
    Python's own, twice.
    """
    return any(what == "stubborn" for what, _ in program)


@QUICK
@given(BODIES, SCRIPTS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_generator_behaves_as_without_us(program: Any, script: Any) -> None:
    """Items, values sent, exceptions with context and cause, return value, context variables: all
    the same.
    """
    testing.reset()
    for way, make in ways(_local_body()).items():
        bare, expected = contextvars.copy_context().run(driven, body, program, script)
        with ld.session("u") as s:
            ours, _ = contextvars.copy_context().run(driven, make, program, script)
            assert ours == bare, way
            if _model_applies(way, expected) and not _stubborn_close(program, script):
                assert tally(s, way) == Counter({expected: 1}), way
            elif way in ("function", "stepping", "returned") and expected in ("nothing", "never"):
                assert tally(s, way) == Counter(), way
            assert current_session() is s


def _local_body() -> Callable[..., Any]:
    """A copy of `body` that is found under no global name: as at the moment of `@decorator`."""
    import types

    return types.FunctionType(
        body.__code__, body.__globals__, body.__name__, body.__defaults__, body.__closure__
    )


async def adriven(
    make: Callable[..., Any], program: Any, script: Any, tasks: bool
) -> tuple[list[Any], str]:
    """The same for an async generator; with *tasks*, each step is in a task of its own."""
    heard: list[Any] = []
    trace: list[Any] = []
    SEEN.set(-1)
    generator = make(program, heard)
    end = "nothing"
    for what, value in script:
        if what == "drop":
            break
        step = aobserved(ASTEPS[what], generator, value)
        seen = await (asyncio.create_task(step) if tasks else step)
        trace.append((what, seen, list(heard), SEEN.get()))
        exhausted = seen[0] == "raised" and seen[1] is StopAsyncIteration
        end = ended(what, ("stopped", None) if exhausted else seen, end)
    await generator.aclose() if not generator.ag_running and end != "running" else None
    del generator
    gc.collect(0)
    for _ in range(8):
        await asyncio.sleep(0)
    return [*trace, heard], "abandoned" if end == "running" else end


async def aobserved(step: Callable[..., Any], *args: Any) -> Any:
    try:
        return ("returned", await step(*args))
    except BaseException as error:
        return ("raised", type(error), str(error), type(error.__context__), type(error.__cause__))


APROGRAMS = BODIES.map(
    lambda program: [step for step in program if step[1] not in (KeyboardInterrupt, StopIteration)]
)
ASCRIPTS = SCRIPTS.map(lambda script: [step for step in script if step[1] is not KeyboardInterrupt])


@QUICK
@given(APROGRAMS, ASCRIPTS, st.booleans())
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_generator_behaves_as_without_us(program: Any, script: Any, tasks: bool) -> None:
    """The same for async generators, in one task and with each step in another."""
    program = [
        step for step in program if step[0] != "stubborn"
    ]  # a loop logs those it closes, ours and theirs alike
    testing.reset()

    async def agen(program: Any, heard: Any) -> AsyncGenerator[Any, Any]:
        async for _ in abody(program, heard):  # pragma: no cover - only its kind and name are used
            yield _

    for way, make in ways(abody).items():
        bare, expected = asyncio.run(adriven(abody, program, script, tasks))
        with ld.session("u") as s:
            ours, _ = asyncio.run(adriven(make, program, script, tasks))
            assert ours == bare, way
            if _model_applies(way, expected):
                assert tally(s, way) == Counter({expected: 1}), way
            assert current_session() is s


# -- many runs at once -----------------------------------------------------------------------------


class Interleavings(RuleBasedStateMachine):
    """Sessions, generators, coroutines and threads in any order, against a model of four counters
    per session.
    """

    @initialize()
    def begin(self) -> None:
        gc.collect()  # what a failing example left behind is none of ours
        testing.reset()
        self.client = RecordingClient()
        self.sessions: list[ld.Session] = []
        self.model: dict[int, Counter[str]] = {}
        self.unattached = 0
        self.late = 0
        self.running: list[
            tuple[Any, int | None]
        ] = []  # (generator or coroutine, index of its session)

        @ld.track_interaction("call")
        def call(error: type[BaseException] | None) -> int:
            if error is not None:
                raise error
            return 1

        @ld.track_interaction("items")
        def items(count: int) -> Generator[int, None, None]:
            yield from range(count)

        @ld.track_interaction("timed", metrics=("success_rate", "duration", "time_to_first_item"))
        def timed(count: int) -> Generator[int, None, None]:
            yield from range(count)

        @ld.track_interaction("waits")
        async def waits(count: int) -> None:
            for _ in range(count):
                await Waiting()

        @ld.track_interaction("later")
        def later(count: int) -> Any:
            return bare_waits(count)

        self.call, self.makers = call, [items, timed, waits, later]

    # -- the model ---------------------------------------------------------------------------------
    def count(self, session: int | None, outcome: str) -> None:
        if session is None:
            self.unattached += 1
        else:
            self.model[session][outcome] += 1
            if self.sessions[session].ended and outcome in ("success", "failure"):
                self.late += 2

    def inside(self, data: st.DataObject) -> tuple[int | None, ld.Session | None]:
        """Choose a session that is open, or none."""
        still_open = [index for index, session in enumerate(self.sessions) if not session.ended]
        chosen = data.draw(st.sampled_from([None, *still_open]))
        return chosen, None if chosen is None else self.sessions[chosen]

    # -- what may happen ---------------------------------------------------------------------------
    @precondition(lambda self: len(self.sessions) < 4)
    @rule()
    def open(self) -> None:
        self.sessions.append(open_session(f"u-{len(self.sessions)}", client=self.client))
        self.model[len(self.sessions) - 1] = Counter()

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        _, chosen = self.inside(data)
        if chosen is not None:
            chosen.end()

    @rule(
        data=st.data(),
        error=st.sampled_from([None, Boom, KeyboardInterrupt, asyncio.CancelledError, SystemExit]),
    )
    def run_one(self, data: st.DataObject, error: type[BaseException] | None) -> None:
        index, chosen = self.inside(data)
        with entered(chosen):
            observed(self.call, error)
        cancelled = error in (KeyboardInterrupt, asyncio.CancelledError)
        success = error in (None, SystemExit)
        self.count(index, "success" if success else "cancelled" if cancelled else "failure")

    @precondition(lambda self: len(self.running) < 6)
    @rule(data=st.data(), which=st.integers(0, 3), count=st.integers(1, 3))
    def start(self, data: st.DataObject, which: int, count: int) -> None:
        index, chosen = self.inside(data)
        with entered(chosen):
            made = self.makers[which](count)
            made.send(None)
        self.running.append((made, index))

    @precondition(lambda self: bool(self.running))
    @rule(data=st.data(), where=st.sampled_from(["here", "thread", "context", "other session"]))
    def step(self, data: st.DataObject, where: str) -> None:
        made, index = self.running[
            data.draw(st.integers(0, len(self.running) - 1))
        ]  # an index: a draw is kept alive
        if where == "thread":
            seen: list[Any] = []
            thread = threading.Thread(target=lambda: seen.append(observed(made.send, None)))
            thread.start()
            thread.join()
            end = seen[0]
        elif where == "context":
            end = contextvars.Context().run(observed, made.send, None)
        else:
            with entered(self.inside(data)[1] if where == "other session" else None):
                end = observed(made.send, None)
        if end[0] == "stopped":
            self.over(made, index, "success")

    @precondition(lambda self: bool(self.running))
    @rule(data=st.data(), how=st.sampled_from(["throw", "cancel", "close", "drop"]))
    def stop(self, data: st.DataObject, how: str) -> None:
        made, index = self.running[
            data.draw(st.integers(0, len(self.running) - 1))
        ]  # an index: a draw is kept alive
        if how == "throw":
            assert observed(made.throw, Boom())[:2] == ("raised", Boom)
        elif how == "cancel":
            assert observed(made.throw, asyncio.CancelledError())[:2] == (
                "raised",
                asyncio.CancelledError,
            )
        elif how == "close":
            made.close()
        self.over(made, index, {"throw": "failure", "cancel": "cancelled"}.get(how, "abandoned"))
        del made
        gc.collect(0)

    def over(self, made: Any, index: int | None, outcome: str) -> None:
        self.running = [running for running in self.running if running[0] is not made]
        self.count(index, outcome)

    # -- what must hold ----------------------------------------------------------------------------
    @invariant()
    def nobody_leaks(self) -> None:
        assert current_session() is None

    @invariant()
    def totals_are_the_models(self) -> None:
        if not hasattr(self, "sessions"):
            return
        for index, session in enumerate(self.sessions):
            seen: Counter[str] = Counter()
            for task in session.summary().tasks.values():
                names = ("success", "failure", "cancelled", "abandoned")
                seen.update({name: int(n) for name, n in zip(names, tuple(task)[:4], strict=True)})
            assert +seen == +self.model[index]
        read = ld.stats()
        assert sum(read.without_session.values()) == self.unattached
        values = read.values
        assert values.recorded == values.emitted + values.open + sum(values.discarded.values())

    def teardown(self) -> None:
        if not hasattr(self, "sessions"):
            return
        set_current(None)
        for index, run in enumerate(self.running):
            self.running[index] = (None, run[1])
            self.count(run[1], "abandoned")
        run = None  # type: ignore[assignment]
        gc.collect(0)
        for session in self.sessions:
            session.end()
        self.totals_are_the_models()
        finished = sum(counts["success"] + counts["failure"] for counts in self.model.values())
        rates = [
            event
            for event in self.client
            if event.key.endswith(".success_rate") and event.key[:7] != "session"
        ]
        assert len(rates) == finished
        testing.reset()


class Waiting:
    def __await__(self) -> Generator[None, None, None]:
        yield None


async def bare_waits(count: int) -> None:
    for _ in range(count):
        await Waiting()


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
