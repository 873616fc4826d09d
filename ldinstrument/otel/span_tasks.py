"""Runs of agents and tools as tasks: `<key>.agent` and `<key>.tool`, by the spans that others make,
MCP's calls of tools included. The name of the agent or tool is in the data of its events.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

from ..metrics.catalogs import catalog
from ..metrics.model_calls import ai_metrics
from ..metrics.standard import DEFAULT_TASK_METRICS
from ..sessions.clock import clock
from ..sessions.current import current_session
from ..sessions.session import Session
from ..sessions.task_definition import TaskDefinition, declared_task
from ..tasks.options import PLAIN
from ..tasks.runs import Run
from .span_processor import scope_of
from .span_reading import (
    Attributes,
    agent_of,
    broken_off,
    conversation_of,
    failure_of,
    tool_of,
)

MOST_OPEN = 10_000
COUNTS = ("inference_calls", "tool_calls")


class SpanTask:
    """One run of an agent or a tool, and the spans that are about it."""

    __slots__ = (
        "failure",
        "inference_calls",
        "is_agent",
        "members",
        "name",
        "run",
        "scopes",
        "session",
        "tool_calls",
    )

    def __init__(self, run: Run, session: Session, name: str | None, *, is_agent: bool) -> None:
        self.run = run
        self.session = session
        self.name = name
        self.is_agent = is_agent
        self.members: set[int] = set()
        self.scopes: set[str] = set()
        self.failure: str | None = None
        self.inference_calls = self.tool_calls = 0


_open: ContextVar[tuple[SpanTask, ...]] = ContextVar("ldinstrument_span_tasks", default=())


class SpanTasks:
    """Makes the tasks of one bridge.

    Args:
        key: of the bridge.
    """

    def __init__(self, key: str) -> None:
        wanted = DEFAULT_TASK_METRICS["track_interaction"]
        self._agent = declared_task(f"{key}.agent", False, wanted)
        self._tool = declared_task(f"{key}.tool", False, wanted)
        self._by_span: dict[int, SpanTask] = {}
        self._lock = threading.Lock()

    def started(self, span: Any, *, is_agent: bool) -> None:
        """Begin a run of an agent or a tool, or note a second span of one."""
        attributes, opened = span.attributes or {}, _still_open()
        if any(span.context.span_id in task.members for task in opened):
            return  # another bridge has it
        name = (agent_of if is_agent else tool_of)(span.name, attributes)
        found = _twin(opened, name, scope_of(span), is_agent=is_agent)
        if found is None:
            session = current_session()
            if session is None:
                return
            task = self._agent if is_agent else self._tool
            run = Run(task, PLAIN, session, clock())
            found = SpanTask(run, session, name, is_agent=is_agent)
            if not is_agent:
                _count(opened, "tool_calls")
            _open.set((*opened, found))
        found.members.add(span.context.span_id)
        found.scopes.add(scope_of(span))
        with self._lock:
            if len(self._by_span) < MOST_OPEN:
                self._by_span[span.context.span_id] = found

    def ended(self, span: Any) -> None:
        """Note the end of a span; with its last one the run ends."""
        with self._lock:
            found = self._by_span.pop(span.context.span_id, None)
        if found is None:
            return
        found.members.discard(span.context.span_id)
        found.failure = found.failure or failure_of(span)
        attributes = span.attributes or {}
        found.name = found.name or (agent_of if found.is_agent else tool_of)(span.name, attributes)
        if not found.members:
            self._end(found)

    def _end(self, found: SpanTask) -> None:
        data = {"agent" if found.is_agent else "tool": found.name} if found.name else {}
        found.run.add_data(**data)
        if (error := broken_off(found.failure)) is not None:
            found.run.raised(error)
            return
        if found.failure is not None:
            found.run.fail(found.failure)
        found.run.returned(None)
        if found.is_agent:
            self._record_counts(found, self._agent, data)

    def _record_counts(self, found: SpanTask, task: TaskDefinition, data: dict[str, Any]) -> None:
        if not found.inference_calls:  # nobody makes spans of its model calls: then it is unknown
            return
        metrics = ai_metrics(task.key, COUNTS)
        missing = [metric for metric in metrics.values() if metric.key not in catalog]
        if missing:
            catalog.declare_implied(task.key, [metric.key for metric in missing], lambda: missing)
        for suffix in COUNTS:
            found.session.record(metrics[suffix].key, getattr(found, suffix), data=data)

    def forget(self) -> None:
        """Let go of what has not ended."""
        with self._lock:
            self._by_span.clear()


def note_model_call() -> None:
    """Count a model call in the agents around it."""
    _count(_still_open(), "inference_calls")


def adopt_conversation(attributes: Attributes) -> None:
    """Let the session go on under the conversation's id that a span tells."""
    session, conversation = current_session(), conversation_of(attributes)
    if session is not None and conversation is not None:
        session.adopt_id(conversation)


def _still_open() -> tuple[SpanTask, ...]:
    session = current_session()
    return tuple(task for task in _open.get() if task.members and task.session is session)


def _count(opened: tuple[SpanTask, ...], what: str) -> None:
    for task in opened:
        if task.is_agent:
            setattr(task, what, getattr(task, what) + 1)


def _twin(
    opened: tuple[SpanTask, ...], name: str | None, scope: str, *, is_agent: bool
) -> SpanTask | None:
    """Return the run that a second span is about: of the same name, by somebody else."""
    return next(
        (
            task
            for task in reversed(opened)
            if task.is_agent is is_agent and task.name == name and scope not in task.scopes
        ),
        None,
    )
