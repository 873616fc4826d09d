"""The calls of the metrics REST API, with typed results."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypeVar

from ..errors import (
    ApiError,
    Conflict,
    DefinitionError,
    Forbidden,
    NotFound,
    ServerError,
    Unauthorized,
    Unreachable,
)
from .bodies import AnyMetric, metric_body
from .calls import Calls, path_of
from .credentials import Token, find_api_host, find_api_token, find_project
from .http import RestResponse
from .models import (
    Experiment,
    RemoteMetric,
    differences,
    experiment,
    mapping,
    remote_metric,
    text_of,
)

_Self = TypeVar("_Self", bound="ProjectAPI")


class ProjectAPI:
    """One LaunchDarkly project, without its metrics. One per thread.

    Args:
        project, token, base_uri, timeout, budget, deadline, prompt, sleep: as in `MetricsAPI`.

    Raises:
        CredentialsError: no token, or a host that cannot be used.

    """

    def __init__(
        self,
        project: str | None = None,
        *,
        token: str | Token | None = None,
        base_uri: str | None = None,
        timeout: float = 10.0,
        budget: float = 60.0,
        deadline: float | None = None,
        prompt: bool | None = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = find_api_host(base_uri)
        self.project = find_project(project)
        self.token = find_api_token(token, host=self.host, prompt=prompt)
        self._calls = Calls(
            self.host, self.token, timeout=timeout, budget=budget, deadline=deadline, sleep=sleep
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of project {self.project} at {self.host.url}>"

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()

    def caller(self) -> Mapping[str, Any]:
        """Whose token this is (`caller-identity`): the cheapest test of a token."""
        return mapping(self._calls.send("GET", path_of("caller-identity")).json)

    def role(self) -> str:
        """Return the base role of the token (`reader`, `writer`, `admin`, ...); empty when
        LaunchDarkly does not tell.
        """
        token_id = self.caller().get("tokenId")
        if not isinstance(token_id, str) or not token_id:
            return ""
        try:
            found = mapping(self._calls.send("GET", path_of("tokens", token_id)).json)
        except (Forbidden, NotFound, Unauthorized):
            return ""
        return text_of(found, "role") or ""

    def experiment(self, environment: str, key: str) -> Experiment | None:
        """Return an experiment and its current iteration; None when there is none, or the token may
        not read it.
        """
        path = path_of("projects", self.project, "environments", environment, "experiments", key)
        try:
            return experiment(
                self._beta("GET", path, params={"expand": "secondaryMetrics"}).json, environment
            )
        except (Forbidden, NotFound):
            return None

    def last_evaluated(self, environment: str, flag: str) -> datetime | None:
        """When LaunchDarkly last heard of an evaluation of *flag* in *environment*; None when
        never.

        Raises:
            Forbidden, NotFound: the token may not read it; there is no such flag or environment.

        """
        path = path_of("flag-statuses", self.project, environment, flag)
        text = text_of(mapping(self._calls.send("GET", path).json), "lastRequested")
        if text is None:
            return None
        try:
            # Python 3.10 reads neither a Z nor nanoseconds.
            moment = datetime.fromisoformat(re.sub(r"\.\d+", "", text).replace("Z", "+00:00"))
        except ValueError:
            raise Unreachable("lastRequested is not a time", request=f"GET {path}") from None
        return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)

    def local(self, page: str, **params: Any) -> Any:
        """Return what a local LaunchDarkly has under `/dev`, as JSON.

        Raises:
            NotFound: the host is no local LaunchDarkly.

        """
        if self.host.local:
            try:
                return self._calls.send("GET", f"/dev/{page}", params=params).json
            except NotFound:
                pass
        raise NotFound(
            "only a local LaunchDarkly has this: start one (ldinstrument dev), and "
            "export LDINSTRUMENT_URL=http://127.0.0.1:8030",
            request=f"GET /dev/{page}",
        )

    def context_kinds(self) -> dict[str, bool]:
        """Return the project's context kinds, and whether each is archived."""
        answer = mapping(
            self._calls.send("GET", path_of("projects", self.project, "context-kinds")).json
        )
        kinds = [
            kind for kind in answer.get("items") or () if isinstance(kind, dict) and kind.get("key")
        ]
        return {
            kind["key"]: bool(kind.get("archived") or kind.get("hideInTargeting")) for kind in kinds
        }

    def create_context_kind(self, kind: str) -> None:
        """Create the context kind *kind*."""
        path = path_of("projects", self.project, "context-kinds", kind)
        self._calls.send("PUT", path, body={"name": kind})

    def analysis_units(self) -> tuple[str, ...]:
        """Return the context kinds that the project's experiments may be analysed by."""
        return tuple(unit["randomizationUnit"] for unit in self._units())

    def _units(self) -> list[dict[str, Any]]:
        path = path_of("projects", self.project, "experimentation-settings")
        units = mapping(self._beta("GET", path).json).get("randomizationUnits") or ()
        return [
            unit
            for unit in units
            if isinstance(unit, dict) and isinstance(unit.get("randomizationUnit"), str)
        ]

    def add_analysis_unit(self, kind: str) -> None:
        """Make the context kind *kind* available for experiments, beside those that are.

        LaunchDarkly only takes the whole list, so this reads it first.
        """
        units = [
            {"randomizationUnit": unit["randomizationUnit"], "default": unit.get("default") is True}
            for unit in self._units()
        ]
        if kind not in [unit["randomizationUnit"] for unit in units]:
            units.append({"randomizationUnit": kind, "default": not units})
            path = path_of("projects", self.project, "experimentation-settings")
            self._beta("PUT", path, body={"randomizationUnits": units})

    def _beta(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> RestResponse:
        """Return a call of the experiments API, which LaunchDarkly documents as beta: 403 without
        the header that says so.
        """
        try:
            return self._calls.send(method, path, params=params, body=body)
        except Forbidden:
            return self._calls.send(
                method, path, params=params, body=body, headers={"LD-API-Version": "beta"}
            )


PAGE = 50
"""LaunchDarkly's largest page."""
_PAGES_CAP = 10_000
_LOCKED_TRIES = 4
_IMMUTABLE = ("key", "kind")


class MetricsAPI(ProjectAPI):
    """The metrics of one LaunchDarkly project. One per thread.

    Args:
        project: its key; None takes `LAUNCHDARKLY_PROJECT`, or `default` on a local LaunchDarkly.
        token: an API access token; None searches for one (`credentials.find_api_token`).
        base_uri: `us`, `eu`, `federal` or a URL; None takes `LAUNCHDARKLY_API_HOST`,
            `LDINSTRUMENT_URL`, or US.
        timeout: seconds for one attempt, to the last byte of the answer.
        budget: seconds for one call with all its retries and waits.
        deadline: a `time.monotonic()` reading after which nothing is tried any more.
        prompt: ask for a token on the terminal; None asks when there is one.
        sleep: how to wait (tests hand in a recorder).

    Raises:
        CredentialsError: no token, or a host that cannot be used.

    """

    def create(self, metric: AnyMetric) -> RemoteMetric:
        """Create *metric*.

        After a network fault or a 5xx nobody knows whether LaunchDarkly did it, so this looks
        before it tries again; a metric that is there then and equal counts as created.

        Raises:
            Conflict: a metric of that key exists already.
            InvalidRequest, Unauthorized, Forbidden, NotFound (the project), RateLimited,
            ServerError, Unreachable.

        """
        body = metric_body(metric)
        path = path_of("metrics", self.project)
        end = self._calls.end()
        for attempt in range(20):
            try:
                answer = self._calls.send("POST", path, body=body, repeatable=False, end=end)
            except (ServerError, Unreachable) as error:
                failed: ApiError = error
            else:
                return self._metric(answer.json, f"POST {path}")
            found = self._look(metric.key, end)
            if found is not None:
                if differences(body, found):
                    raise Conflict(
                        f"a different metric {metric.key!r} exists already",
                        status=409,
                        request=f"POST {path}",
                    )
                return found
            if not self._calls.wait(attempt, failed, None, end):
                break
        raise failed

    def _look(self, key: str, end: float, expand: Sequence[str] = ()) -> RemoteMetric | None:
        path = path_of("metrics", self.project, key)
        params = {"expand": ",".join(expand)} if expand else None
        try:
            answer = self._calls.send("GET", path, params=params, end=end)
        except NotFound:
            return None
        return self._metric(answer.json, f"GET {path}")

    def get(self, key: str, *, expand: Sequence[str] = ()) -> RemoteMetric:
        """Return the metric under *key*.

        Args:
            expand: what LaunchDarkly adds on request: `experiments`, `experimentCount`,
                `metricGroups`, ...

        Raises:
            NotFound: there is none, or no such project.

        """
        path = path_of("metrics", self.project, key)
        params = {"expand": ",".join(expand)} if expand else None
        return self._metric(self._calls.send("GET", path, params=params).json, f"GET {path}")

    def find(self, key: str, *, expand: Sequence[str] = ()) -> RemoteMetric | None:
        """Return the metric under *key*, or None; *expand* as in `get`."""
        return self._look(key, self._calls.end(), expand)

    def list(
        self,
        *,
        query: str | None = None,
        tags: Sequence[str] = (),
        event_keys: Sequence[str] = (),
        numeric: bool | None = None,
        event_kind: str | None = None,
        used_in: str | None = None,
        sort: str = "createdAt",
        expand: Sequence[str] = ("experimentCount",),
        limit: int | None = None,
    ) -> Iterator[RemoteMetric]:
        """Every metric that fits, page by page, fetched as they are asked for.

        Args:
            query: a fuzzy search in keys and names.
            tags: metrics that carry all of them.
            event_keys: metrics that read one of these events.
            numeric: only numeric ones, or only the others.
            event_kind: `custom`, `pageview` or `click`.
            used_in: `experiments`, `guarded_rollouts`, `any` or `none`.
            sort: `createdAt` or `name`, with `-` before it for descending.
            limit: at most so many.

        """
        params: dict[str, Any] = {"sort": sort}
        if expand:
            params["expand"] = ",".join(expand)
        wanted = list(filters(query, tags, event_keys, numeric, event_kind, used_in))
        if wanted:
            params["filter"] = ",".join(wanted)
        return self._pages(params, limit)

    def _pages(self, params: Mapping[str, Any], limit: int | None) -> Iterator[RemoteMetric]:
        path = path_of("metrics", self.project)
        seen: set[str] = set()
        offset = 0
        for _ in range(_PAGES_CAP):
            size = PAGE if limit is None else min(PAGE, limit - len(seen))
            if size <= 0:
                return
            page, metrics = self._page(path, {**params, "limit": size, "offset": offset})
            offset += len(metrics)
            # Somebody may create or delete between two pages: never twice, never round and round.
            fresh = [metric for metric in metrics if metric.key not in seen]
            seen.update(metric.key for metric in fresh)
            yield from fresh
            if not fresh or not _more(page, offset):
                return

    def _page(self, path: str, params: Mapping[str, Any]) -> tuple[Any, Sequence[RemoteMetric]]:
        """Return one page of a list, and the metrics on it."""
        page = self._calls.send("GET", path, params=params).json
        items = page.get("items") if isinstance(page, dict) else None
        if not isinstance(items, list):
            raise Unreachable(
                "the answer is not a list of metrics; is the host right?", request=f"GET {path}"
            )
        return page, [self._metric(item, f"GET {path}") for item in items]

    def count(self) -> int | None:
        """How many metrics the project has; None when LaunchDarkly does not say."""
        page = self._calls.send("GET", path_of("metrics", self.project), params={"limit": 1}).json
        total = page.get("totalCount") if isinstance(page, dict) else None
        return total if isinstance(total, int) else None

    def update(
        self,
        key: str,
        changes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        comment: str | None = None,
    ) -> RemoteMetric:
        """Change the metric under *key* by JSON Patch.

        Running experiments keep the version of a metric that they began with; a changed one needs a
        new iteration.

        Args:
            changes: new values by LaunchDarkly's field name (`{"unit": "seconds",
                "eventDefault/disabled": True}`), or a JSON Patch.
            comment: for LaunchDarkly's audit log.

        Raises:
            DefinitionError: nothing to change, or `key` or `kind`, which LaunchDarkly never
            changes. NotFound, Conflict (somebody else changed it at that moment), InvalidRequest,
            ...

        """
        patch = json_patch(changes)
        body: Any = patch if comment is None else {"comment": comment, "patch": patch}
        path = path_of("metrics", self.project, key)
        repeatable = all(step.get("op") == "replace" for step in patch)
        end = self._calls.end()
        for attempt in range(_LOCKED_TRIES):
            try:
                answer = self._calls.send("PATCH", path, body=body, repeatable=repeatable, end=end)
                return self._metric(answer.json, f"PATCH {path}")
            except Conflict as error:
                conflict = error
            # LaunchDarkly's own advice for its optimistic lock: nothing was changed, try again
            # later.
            if conflict.code != "optimistic_locking_error" or not self._calls.wait(
                attempt, conflict, None, end
            ):
                break
        raise conflict

    def rename(self, key: str, name: str) -> RemoteMetric:
        """Give the metric under *key* another name; its key, and so its events and experiments,
        stay.
        """
        if not isinstance(name, str) or not name.strip():
            raise DefinitionError("rename: name: give a non-empty string")
        return self.update(key, {"name": name})

    def delete(self, key: str) -> None:
        """Delete the metric under *key*; LaunchDarkly has no way back.

        Raises:
            NotFound: there is none.

        """
        path = path_of("metrics", self.project, key)
        end = self._calls.end()
        try:
            self._calls.send("DELETE", path, repeatable=False, end=end)
        except (ServerError, Unreachable):
            # It may have happened: a 404 now would not say whose work it was.
            if self._look(key, end) is not None:
                self._calls.send("DELETE", path, repeatable=False, end=end)

    def _metric(self, raw: Any, request: str) -> RemoteMetric:
        return remote_metric(raw, self.project, self.host.url, request)


def _more(page: Mapping[str, Any], offset: int) -> bool:
    total = page.get("totalCount")
    if isinstance(total, int):
        return offset < total
    return bool(mapping(page.get("_links")).get("next"))


def filters(
    query: str | None,
    tags: Sequence[str],
    event_keys: Sequence[str],
    numeric: bool | None,
    event_kind: str | None,
    used_in: str | None,
) -> Iterator[str]:
    """LaunchDarkly's filter grammar: `field operator value`; lists are JSON."""
    if query:
        yield f"query equals {json.dumps(query)}"
    if tags:
        yield f"tags contains {json.dumps(list(tags))}"
    if event_keys:
        yield f"eventKeys anyOf {json.dumps(list(event_keys))}"
    if numeric is not None:
        yield f"isNumeric equals {json.dumps(numeric)}"
    if event_kind:
        yield f"eventKind equals {json.dumps(event_kind)}"
    if used_in:
        yield f"metricUsedIn equals {json.dumps(used_in)}"


def json_patch(changes: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return *changes* as a JSON Patch.

    Raises:
        DefinitionError: empty, or it touches what LaunchDarkly never changes.

    """
    if isinstance(changes, Mapping):
        patch: list[Mapping[str, Any]] = [
            {"op": "replace", "path": f"/{name}", "value": value} for name, value in changes.items()
        ]
    else:
        patch = list(changes)
    if not patch:
        raise DefinitionError("update: nothing to change")
    for step in patch:
        name = str(step.get("path", "")).strip("/")
        if name in _IMMUTABLE and step.get("op") != "test":
            raise DefinitionError(
                f"update: LaunchDarkly never changes a metric's {name}; create a new metric instead"
            )
    return patch
