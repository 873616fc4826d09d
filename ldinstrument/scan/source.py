"""Reading a module's source for what only its text declares: keys in function bodies, which
importing never runs.

It looks for calls of this library's names, through whatever name the module imported them under,
with literal arguments or module constants. What it cannot evaluate it reports as dynamic, with the
place.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import FunctionType, ModuleType
from typing import Any, Literal

from ..errors import DefinitionError
from ..metrics.metric import Metric, is_repeated
from ..metrics.model_calls import AGENT_METRICS, DEFAULT_AI_METRICS
from ..metrics.standard import DEFAULT_SESSION_METRICS, DEFAULT_TASK_METRICS
from .values import Constants, is_a

Kind = Literal["task", "session", "requests", "event", "pattern", "metric", "dynamic", "invalid"]
ROOT = "ldinstrument"
TASKS = ("track_task", "track_interaction", "track_ai")
BRIDGES = ("install_bridge", "SpanBridge", "install_agents_traces", "AgentsTraces")
"""What of `otel` turns spans of model calls, agents and tools into tasks."""
_BRIDGE_KEY = "gen_ai"
_DEFAULTS = {**DEFAULT_TASK_METRICS, "track_ai": DEFAULT_AI_METRICS}
PATTERNS: Mapping[str, str] = {
    "track_conversion": "conversion",
    "track_satisfaction": "satisfaction",
    "track_revenue": "revenue",
    "track_task_success": "task_success",
    "track_feedback": "feedback",
}
BOUNDARY_NAMES: Mapping[str, str] = {"aws_lambda": "invocation", "celery": "job"}
"""The default `name=` of the boundaries whose sessions are no requests."""
_WITH_WEBSOCKETS = (f"{ROOT}.integrations.asgi.SessionMiddleware",)
_BOUNDARIES = ("SessionMiddleware", "instrument", "lambda_handler", "session_dependency")
_SESSION_GIVERS = ("session", "current_session", "open_session", "Session")
_SHOWN = 60
_SESSION_LIKE = re.compile(r"(.*_)?session")


@dataclass(frozen=True, slots=True)
class Use:
    """One place in the source that says something about metrics.

    Args:
        kind: `task` and `session` (key or name, and which metrics), `requests` (a boundary that
            measures each request as a unit of its own), `event` (the key given to `record`),
            `pattern` (the method of Session), `metric` (a definition), `dynamic` (a key that only
            running would tell), `invalid` (a definition that cannot work).
        key: the key or name; for `dynamic` and `invalid` what was called, or why not.
        line: where.
        metrics: which metrics of its own a `task` or a `session` feeds, by suffix.
        metric: the definition of a `metric`.

    """

    kind: Kind
    key: str
    line: int
    metrics: tuple[str, ...] = ()
    metric: Metric | None = None


def uses_in(source: str | bytes, namespace: Mapping[str, Any] | None = None) -> Iterator[Use]:
    """Every use of this library in *source*.

    Args:
        source: the text of a module; as bytes, its own coding line counts.
        namespace: the imported module's names, for constants; None when it could not be imported,
            and then also what its top level does is only known from here.

    Raises:
        SyntaxError, ValueError: it is no Python.

    """
    tree = ast.parse(source)
    reader = _Reader(namespace)
    reader.learn(tree)
    reader.visit(tree)
    yield from reader.found


class _Reader(ast.NodeVisitor):
    def __init__(self, namespace: Mapping[str, Any] | None) -> None:
        self.found: list[Use] = []
        self._namespace = namespace or {}
        self._imported = namespace is not None
        self._names: dict[str, str] = {}
        self._sessions: set[str] = set()
        self._values = Constants(self._namespace, self._is_local)
        self._locals: list[set[str]] = []
        self._decorating: dict[int, str] = {}
        self._called: set[int] = set()

    # -- what the names of the module mean ---------------------------------------------------------
    def learn(self, tree: ast.Module) -> None:
        """Find out which names of the module are ours, and which hold sessions."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._learn_import(node)
            elif isinstance(node, ast.ImportFrom) and _ours(node.module) and not node.level:
                for alias in node.names:
                    self._names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            elif isinstance(node, ast.ImportFrom) and not self._imported:
                # Nobody can say what a module that is not there re-exports, but these names are
                # ours alone.
                self._names |= {
                    alias.asname or alias.name: f"{ROOT}.{alias.name}"
                    for alias in node.names
                    if alias.name in TASKS
                }
        self._values.learn(tree)
        self._names |= dict(self._aliases(tree))
        for node in ast.walk(tree):
            self._sessions.update(self._bound_sessions(node))

    def _aliases(self, tree: ast.Module) -> Iterator[tuple[str, str]]:
        """Yield names such as `timed` in `timed = ld.track_task`, where the import failed, too."""
        # A parameter of that name, somewhere in the module, may be anything.
        parameters = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Name, ast.Attribute)):
                dotted = self._canonical(node.value)
                if dotted.rpartition(".")[2] in (
                    *TASKS,
                    *PATTERNS,
                    "session",
                    "current_session",
                    "Metric",
                ):
                    names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                    yield from ((name, dotted) for name in names if name not in parameters)

    def _learn_import(self, node: ast.Import) -> None:
        for alias in node.names:
            if _ours(alias.name):
                self._names[alias.asname or ROOT] = alias.name if alias.asname else ROOT

    def _bound_sessions(self, node: ast.AST) -> Iterator[str]:
        """Names that hold a Session: `with session() as s`, `self.s = current_session()`, `def f(s:
        Session)`.
        """
        pairs: list[tuple[ast.expr | None, ast.expr | None]] = []
        if isinstance(node, ast.withitem):
            pairs.append((node.optional_vars, node.context_expr))
        elif isinstance(node, ast.Assign):
            pairs += [(target, node.value) for target in node.targets]
        elif isinstance(node, (ast.NamedExpr, ast.AnnAssign)):
            pairs.append((node.target, node.value))
        elif (
            isinstance(node, ast.arg)
            and node.annotation is not None
            and self._mentions_session(node.annotation)
        ):
            yield node.arg
        for target, value in pairs:
            if isinstance(value, ast.Call) and self._last(value.func) in _SESSION_GIVERS:
                if isinstance(target, ast.Name):
                    yield target.id
                elif isinstance(target, ast.Attribute):
                    yield f".{target.attr}"

    def _mentions_session(self, annotation: ast.expr) -> bool:
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            return (
                re.search(r"\bSession\b", annotation.value) is not None and "Session" in self._names
            )
        return any(
            isinstance(node, ast.expr) and self._last(node) in ("Session", "current_session")
            for node in ast.walk(annotation)
        )

    def _canonical(self, node: ast.expr) -> str:
        """Return the dotted name of ours that an expression means; empty when it is not ours."""
        if isinstance(node, ast.Attribute):
            base = self._canonical(node.value)
            return f"{base}.{node.attr}" if base else _name_of(self._values.of(node))
        if not isinstance(node, ast.Name) or self._is_local(node.id):
            return ""
        if node.id in self._names:
            return self._names[node.id]
        return _name_of(self._namespace.get(node.id))

    def _last(self, node: ast.expr) -> str:
        return self._canonical(node).rpartition(".")[2]

    # -- functions ---------------------------------------------------------------------------------
    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call):
                self._decorating[id(decorator)] = node.name
            elif self._last(decorator) in TASKS:
                metrics = _fed(_DEFAULTS[self._last(decorator)], None)
                self._add("task", f"task.{node.name}", decorator, metrics=metrics)
            elif self._last(decorator) == "session":
                self._add_session("session", decorator, None)
            self.visit(decorator)
        for default in [
            *node.args.defaults,
            *(default for default in node.args.kw_defaults if default),
        ]:
            self.visit(default)
        self._locals.append(_local_names(node))
        for statement in node.body:
            self.visit(statement)
        self._locals.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - ast's names

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._locals.append({arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)})
        self.visit(node.body)
        self._locals.pop()

    def _is_local(self, name: str) -> bool:
        return any(name in names for names in self._locals) and name not in self._names

    # -- calls -------------------------------------------------------------------------------------
    def visit_Call(self, node: ast.Call) -> None:
        last = self._last(node.func)
        if last in TASKS:
            self._task(node, last)
        elif last in BRIDGES:
            self._bridge(node, last)
        elif last == "session":
            self._session(node, "session")
        elif last == "SessionMetricsTracker":
            self._add_session("session", node, node)
        elif last in PATTERNS:
            self._add("pattern", PATTERNS[last], node)
        elif last == "Metric":
            self._definition(node)
        elif self._is_boundary(node.func):
            self._boundary(node.func, node)
        elif isinstance(node.func, ast.Attribute) and self._is_session(node.func.value):
            self._method(node, node.func.attr)
        self._boundaries_given_to(node)
        self.generic_visit(node)

    def _boundaries_given_to(self, node: ast.Call) -> None:
        """Take `add_middleware(SessionMiddleware, store=...)` and its like as the boundary's
        call.
        """
        self._called.add(id(node.func))
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            if self._is_boundary(argument):
                self._called.add(id(argument))
                self._boundary(argument, node)

    def visit_Name(self, node: ast.Name) -> None:
        self._mentioned(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._mentioned(node)
        self.generic_visit(node)

    def _mentioned(self, node: ast.expr) -> None:
        """Take a boundary that is neither called nor given to a call with its defaults."""
        if id(node) not in self._called and self._is_boundary(node):
            self._boundary(node, None)

    def visit_Constant(self, node: ast.Constant) -> None:
        # Frameworks that are configured by dotted paths: Django's MIDDLEWARE.
        if isinstance(node.value, str) and re.fullmatch(
            r"ldinstrument\.integrations(\.\w+)+", node.value
        ):
            settings = self._namespace.get("LDINSTRUMENT")
            options = settings if type(settings) is dict else {}
            name = "session" if options.get("store") is not None else _boundary_name(node.value)
            metrics = _suffixes(options.get("metrics"))
            self._add("session", str(options.get("name") or name), node, metrics=metrics)
            if options.get("request_metrics"):
                self._add("requests", "http", node)

    def _task(self, node: ast.Call, last: str) -> None:
        key = self._values.text(_argument(node, 0, None))
        if key is None and not node.args:
            key = f"task.{self._decorating[id(node)]}" if id(node) in self._decorating else None
        which = self._values.texts(_argument(node, None, "metrics")) or _DEFAULTS[last]
        which = _fed(which, _argument(node, None, "cost"))
        within = _argument(node, None, "within")
        if within is not None and not (isinstance(within, ast.Constant) and within.value is None):
            which = (*which, "within")
        if key is None:
            self._dynamic(last, node, _argument(node, 0, None))
        else:
            self._add("task", key, node, metrics=which)
        record = _argument(node, None, "record")
        if isinstance(record, ast.Dict):
            for entry in record.keys:
                self._event(entry, node)
        elif record is not None:
            self._dynamic(f"{last}(record=...)", node)

    def _bridge(self, node: ast.Call, last: str) -> None:
        given = _argument(node, 0, "key")
        key = _BRIDGE_KEY if given is None else self._values.text(given)
        if key is None:
            self._dynamic(last, node, given)
            return
        which = _fed(DEFAULT_AI_METRICS, _argument(node, None, "cost"))
        self._add("task", key, node, metrics=which)
        self._add("task", f"{key}.agent", node, metrics=AGENT_METRICS)
        tool = DEFAULT_TASK_METRICS["track_interaction"]
        self._add("task", f"{key}.tool", node, metrics=tool)

    def _session(self, node: ast.Call, default: str) -> None:
        given = _argument(node, None, "name")
        name = (
            default if given is None or self._values.of(given) is None else self._values.text(given)
        )
        if name is None:
            self._dynamic("session", node, given, "name=")
        else:
            self._add_session(name, node, node)

    def _add_session(self, name: str, node: ast.AST, call: ast.Call | None) -> None:
        """Note a session with the metrics that *call*, when there is one, asks for."""
        given = None if call is None else _argument(call, None, "metrics")
        metrics = self._values.texts(given) or DEFAULT_SESSION_METRICS
        self._add("session", name, node, metrics=metrics)

    def _is_boundary(self, node: ast.expr) -> bool:
        dotted = self._canonical(node)
        return (
            dotted.startswith(f"{ROOT}.integrations.") and dotted.rpartition(".")[2] in _BOUNDARIES
        )

    def _boundary(self, function: ast.expr, call: ast.Call | None) -> None:
        dotted = self._canonical(function)
        name = _boundary_name(dotted)
        if call is None:
            self._add_session(name, function, None)
        else:
            self._boundary_called(name, call)
        if dotted in _WITH_WEBSOCKETS:
            self._websockets(function, call)

    def _boundary_called(self, name: str, call: ast.Call) -> None:
        if self._may_be_set(_argument(call, None, "request_metrics")):
            self._add("requests", "http", call)
        store = _argument(call, None, "store")
        if not self._may_be_set(store):
            self._session(call, name)
            return
        # A session in a store is a visit, not a request; only running tells what a variable holds.
        self._session(call, "session")
        if not isinstance(store, (ast.Constant, ast.Call)) and not _argument(call, None, "name"):
            self._add_session(name, call, call)

    def _websockets(self, function: ast.expr, call: ast.Call | None) -> None:
        """Note the sessions of websockets; in a store they are part of the visit."""
        if call is None:
            self._add_session("websocket", function, None)
            return
        given = _argument(call, None, "websocket")
        name = "websocket" if given is None else self._values.text(given)
        if name and not self._may_be_set(_argument(call, None, "store")):
            self._add_session(name, call, call)

    def _may_be_set(self, given: ast.expr | None) -> bool:
        """Tell whether an option is given, and is not None or False."""
        value = None if given is None else self._values.of(given)
        return value is not None and value is not False

    def _is_session(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Call):
            return self._last(node.func) in _SESSION_GIVERS
        name = (
            node.id
            if isinstance(node, ast.Name)
            else node.attr
            if isinstance(node, ast.Attribute)
            else ""
        )
        likely = bool(self._names) and _SESSION_LIKE.fullmatch(name.lower()) is not None
        return likely or (f".{name}" if isinstance(node, ast.Attribute) else name) in self._sessions

    def _method(self, node: ast.Call, method: str) -> None:
        if method == "record":
            self._event(_argument(node, 0, "metric"), node)
        elif method in PATTERNS.values():
            self._add("pattern", method, node)

    def _event(self, key: ast.expr | None, node: ast.Call) -> None:
        text = self._values.text(key)
        if text is not None:
            self._add("event", text, node)
            return
        metric = self._values.of(key)
        if is_a(metric, Metric):
            self._add("metric", metric.key, node, metric=metric)
        elif not (isinstance(key, ast.Call) and self._last(key.func) == "Metric"):
            self._dynamic("record", node, key)

    def _definition(self, node: ast.Call) -> None:
        try:
            args = [ast.literal_eval(arg) for arg in node.args]
            named = {
                keyword.arg: ast.literal_eval(keyword.value)
                for keyword in node.keywords
                if keyword.arg
            }
        except (ValueError, TypeError, SyntaxError):
            self._dynamic("Metric", node, _argument(node, 0, "key"))
            return
        before = is_repeated.set(True)
        try:
            metric = Metric(*args, **named)
        except (DefinitionError, TypeError) as error:
            self._add("invalid", str(error), node)
            return
        finally:
            is_repeated.reset(before)
        self._add("metric", metric.key, node, metric=metric)

    def _dynamic(
        self, what: str, node: ast.AST, key: ast.expr | None = None, keyword: str = ""
    ) -> None:
        # What runs on import, the import has seen.
        if self._locals or not self._imported:
            shown = what if key is None else f"{what}({keyword}{_shortened(ast.unparse(key))})"
            self._add("dynamic", shown, node)

    def _add(
        self,
        kind: Kind,
        key: str,
        node: ast.AST,
        *,
        metrics: tuple[str, ...] = (),
        metric: Metric | None = None,
    ) -> None:
        self.found.append(Use(kind, key, getattr(node, "lineno", 0), metrics, metric))


def _name_of(known: Any) -> str:
    """Return the dotted name of a module, class, function or decorator object of ours.

    Nothing else is asked for an attribute, or even for its class: a proxy (Flask's `request`) would
        run code.
    """
    if is_a(known, ModuleType):
        name = known.__name__
    elif is_a(known, type) or is_a(known, FunctionType):
        name = f"{known.__module__}.{known.__name__}"
    elif type(known).__name__.endswith("Decorator") and _ours(type(known).__module__):
        name = f"{type(known).__module__}.{known.__name__}"
    else:
        return ""
    return name if _ours(name) else ""


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _ours(module: str | None) -> bool:
    return module is not None and (module == ROOT or module.startswith(f"{ROOT}."))


def _fed(metrics: tuple[str, ...], cost: ast.expr | None) -> tuple[str, ...]:
    """Return those of *metrics* that are fed: no cost without prices."""
    unset = cost is None or (isinstance(cost, ast.Constant) and cost.value is None)
    free = isinstance(cost, ast.Constant) and cost.value is False
    priced = find_spec("genai_prices") is not None if unset else not free
    return tuple(name for name in metrics if name != "cost" or priced)


def _suffixes(given: Any) -> tuple[str, ...]:
    """Return the metrics that a setting asks for."""
    if is_a(given, str):
        return (given,)
    return tuple(given) if type(given) in (list, tuple) else DEFAULT_SESSION_METRICS


def _boundary_name(dotted: str) -> str:
    return BOUNDARY_NAMES.get(dotted.split(".")[2], "request")


def _argument(node: ast.Call, position: int | None, name: str | None) -> ast.expr | None:
    if position is not None and len(node.args) > position:
        return node.args[position]
    return next(
        (keyword.value for keyword in node.keywords if name is not None and keyword.arg == name),
        None,
    )


def _local_names(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    names = {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            names.add(inner.id)
    return names - {
        name for inner in ast.walk(node) if isinstance(inner, ast.Global) for name in inner.names
    }
