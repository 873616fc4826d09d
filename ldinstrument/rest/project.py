"""What stands around the metrics of a project: whose token it is, context kinds, analysis units, experiments, flags."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, TypeVar

from ..credentials import Token, find_api_host, find_api_token, find_project
from ..errors import Forbidden, NotFound, Unauthorized, Unreachable
from .calls import Calls, path_of
from .exchange import Answer
from .experiments import Experiment, experiment, mapping
from .remote import text_of

_Self = TypeVar("_Self", bound="ProjectAPI")


class ProjectAPI:
    """One LaunchDarkly project, without its metrics. One per thread.

    Args:
        project, token, base_uri, timeout, budget, deadline, prompt, sleep: as in `MetricsAPI`.

    Raises:
        CredentialsError: no token, no project, or a host that cannot be used.
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
        self.project = find_project(project, host=self.host)
        self.token = find_api_token(token, host=self.host, prompt=prompt)
        self._calls = Calls(self.host, self.token, timeout=timeout, budget=budget, deadline=deadline, sleep=sleep)

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
        """The base role of the token (`reader`, `writer`, `admin`, ...); empty when LaunchDarkly does not tell."""
        token_id = self.caller().get("tokenId")
        if not isinstance(token_id, str) or not token_id:
            return ""
        try:
            found = mapping(self._calls.send("GET", path_of("tokens", token_id)).json)
        except (Forbidden, NotFound, Unauthorized):
            return ""
        return text_of(found, "role") or ""

    def experiment(self, environment: str, key: str) -> Experiment | None:
        """An experiment and its current iteration; None when there is none, or the token may not read it."""
        path = path_of("projects", self.project, "environments", environment, "experiments", key)
        try:
            return experiment(self._beta("GET", path, params={"expand": "secondaryMetrics"}).json, environment)
        except (Forbidden, NotFound):
            return None

    def last_evaluated(self, environment: str, flag: str) -> datetime | None:
        """When LaunchDarkly last heard of an evaluation of *flag* in *environment*; None when never.

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
        """What a local LaunchDarkly has under `/dev`, as JSON.

        Raises:
            NotFound: the host is no local LaunchDarkly.
        """
        if self.host.local:
            try:
                return self._calls.send("GET", f"/dev/{page}", params=params).json
            except NotFound:
                pass
        raise NotFound("only a local LaunchDarkly has this; start one: ldinstrument dev", request=f"GET /dev/{page}")

    def context_kinds(self) -> dict[str, bool]:
        """The project's context kinds, and whether each is archived."""
        answer = mapping(self._calls.send("GET", path_of("projects", self.project, "context-kinds")).json)
        kinds = [kind for kind in answer.get("items") or () if isinstance(kind, dict) and kind.get("key")]
        return {kind["key"]: bool(kind.get("archived") or kind.get("hideInTargeting")) for kind in kinds}

    def create_context_kind(self, kind: str) -> None:
        """Create the context kind *kind*."""
        path = path_of("projects", self.project, "context-kinds", kind)
        self._calls.send("PUT", path, body={"name": kind})

    def analysis_units(self) -> tuple[str, ...]:
        """The context kinds that the project's experiments may be analysed by."""
        return tuple(unit["randomizationUnit"] for unit in self._units())

    def _units(self) -> list[dict[str, Any]]:
        path = path_of("projects", self.project, "experimentation-settings")
        units = mapping(self._beta("GET", path).json).get("randomizationUnits") or ()
        return [unit for unit in units if isinstance(unit, dict) and isinstance(unit.get("randomizationUnit"), str)]

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

    def _beta(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None) -> Answer:
        """A call of the experiments API, which LaunchDarkly documents as beta: 403 without the header that says so."""
        try:
            return self._calls.send(method, path, params=params, body=body)
        except Forbidden:
            return self._calls.send(method, path, params=params, body=body, headers={"LD-API-Version": "beta"})
