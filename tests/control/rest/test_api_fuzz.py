"""Random metrics, and random bodies: our client, the official models and the local server agree on
all of them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from launchdarkly_api.models.metric_collection_rep import MetricCollectionRep
from launchdarkly_api.models.metric_post import MetricPost
from launchdarkly_api.models.metric_rep import MetricRep

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.errors import ApiError
from ldinstrument.metrics.metric import Metric, MetricWarning
from ldinstrument.plans import apply, plan
from ldinstrument.rest import MetricsAPI, differences
from ldinstrument.rest.bodies import metric_body

KEYS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True).filter(
    lambda key: not key.startswith("otel.")
)
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
WORDS = TEXT.filter(lambda text: bool(text.strip()) and not text.startswith(("$ld:", "otel.")))
BUDGET = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def metrics(draw: st.DrawFn) -> Metric:
    """Any metric that may be declared."""
    measure = draw(st.sampled_from(["value", "count", "occurrence"]))
    extra: dict[str, Any] = {}
    if measure == "value":
        extra["unit"] = draw(WORDS)
        extra["aggregation"] = draw(st.sampled_from([None, "average", "sum"]))
        extra["percentile"] = draw(st.none() | st.integers(1, 99))
        extra["zero_fill"] = draw(
            st.sampled_from([None, False] if extra["percentile"] else [None, True, False])
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MetricWarning)
        return Metric(
            draw(KEYS),
            measure,
            success_criteria=draw(st.sampled_from(["HigherThanBaseline", "LowerThanBaseline"])),
            event_key=draw(st.none() | WORDS),
            analysis_units=draw(
                st.none() | st.lists(st.sampled_from(["user", "request"]), min_size=1, unique=True)
            ),
            name=draw(st.none() | WORDS),
            description=draw(TEXT),
            tags=tuple(draw(st.lists(KEYS, max_size=3))),
            **extra,
        )


@given(metrics())
@BUDGET
def test_any_metric_makes_a_body_that_the_official_client_would_send(metric: Metric) -> None:
    """`MetricPost` takes it and gives it back unchanged."""
    body = metric_body(metric)
    model = MetricPost.from_json(json.dumps(body))
    assert model is not None
    assert json.loads(model.to_json()) == body


@given(metrics())
@BUDGET
def test_any_metric_is_created_as_it_was_meant(server: LocalLaunchDarkly, metric: Metric) -> None:
    """Created, found again without a difference, and unchanged for the next plan."""
    server.reset()
    with MetricsAPI("default", token="api-x", base_uri=server.url) as api:
        assert apply(plan([metric], api), api).changes[0].result == "created"
        assert differences(metric_body(metric), api.get(metric.key)) == ()
        again = plan([metric], api, unmanaged=False)
        assert (again.changes[0].action, again.changes[0].differences) == ("unchanged", ())


@given(metrics(), metrics())
@BUDGET
def test_any_drift_is_mended_by_update(
    server: LocalLaunchDarkly, one: Metric, other: Metric
) -> None:
    """Whatever stood there: after apply --update nothing differs, or the plan had said that it must
    not be applied.
    """
    server.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MetricWarning)
        fields = {
            name: getattr(other, name) for name in Metric.__slots__ if name not in ("key", "rollup")
        }
        wanted = Metric(one.key, **fields)
    with MetricsAPI("default", token="api-x", base_uri=server.url) as api:
        api.create(one)
        made = plan([wanted], api)
        if made.errors:
            assert "mixed" in made.errors[0].problem
            return
        apply(made, api, update=True)
        left = plan([wanted], api).changes[0]
        assert (left.action, left.differences) == ("unchanged", ())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted(field.alias or name for name, field in MetricPost.model_fields.items())


@given(
    st.dictionaries(st.sampled_from(FIELDS), JSON | KEYS, max_size=8),
    st.sampled_from(["custom", "click", "pageview", None]),
)
@settings(BUDGET, max_examples=150)
def test_whatever_is_posted_the_server_answers_in_the_contract(
    server: LocalLaunchDarkly, body: dict[str, Any], kind: str | None
) -> None:
    """Never a 500; what it accepts, the official client can read; what it refuses has a code and a
    message.
    """
    sent = (
        body | ({"kind": kind} if kind else {}) | ({"key": "fuzzed"} if "key" not in body else {})
    )
    answer = _send(server, "POST", "/api/v2/metrics/default", sent)
    assert answer.status_code in (201, 400, 409), answer.text
    if answer.status_code == 201:
        assert MetricRep.from_dict(answer.json()) is not None
    else:
        assert {"code", "message"} <= answer.json().keys()
    listed = _send(server, "GET", "/api/v2/metrics/default?limit=50&expand=experimentCount", None)
    assert MetricCollectionRep.from_dict(listed.json()) is not None
    server.reset()


STEPS = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "test", "move", "nonsense"]),
        "path": st.sampled_from([f"/{field}" for field in FIELDS])
        | TEXT.map(lambda text: f"/{text}")
        | st.just("/tags/-"),
    },
    optional={"value": JSON, "from": st.just("/name")},
)


@given(st.lists(STEPS, max_size=3) | JSON)
@settings(BUDGET, max_examples=150)
def test_whatever_is_patched_the_server_answers_in_the_contract(
    server: LocalLaunchDarkly, patch: Any
) -> None:
    """Never a 500, and afterwards the metric is still one that the official client can read."""
    server.reset()
    with MetricsAPI("default", token="api-x", base_uri=server.url) as api:
        api.create(Metric("fuzzed.metric", unit="ms", success_criteria="LowerThanBaseline"))
    answer = _send(server, "PATCH", "/api/v2/metrics/default/fuzzed.metric", patch)
    assert answer.status_code in (200, 400, 404, 409, 422), answer.text
    got = _send(server, "GET", "/api/v2/metrics/default/fuzzed.metric", None)
    assert MetricRep.from_dict(got.json()) is not None


@given(JSON)
@BUDGET
def test_whatever_answers_our_client_stays_typed(script_server: Any, answer: Any) -> None:
    """Any JSON as an answer to get and list: a metric, or one of our errors; never another
    exception.
    """
    script_server.answer = json.dumps(answer).encode()
    with MetricsAPI(
        "default", token="api-x", base_uri=script_server.url, budget=0.05, sleep=lambda _: None
    ) as api:
        for call in (
            lambda: api.get("a.b"),
            lambda: list(api.list(limit=3)),
            api.count,
            api.analysis_units,
            api.context_kinds,
        ):
            try:
                call()
            except ApiError:
                pass


def _send(server: LocalLaunchDarkly, method: str, path: str, body: Any) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(
            method,
            server.url + path,
            headers={"Authorization": "api-x", "Content-Type": "application/json"},
            data=None if body is None and method == "GET" else json.dumps(body),
            timeout=30,
        )


@pytest.fixture(name="script_server", scope="module")
def _script_server() -> Iterator[Any]:
    """A server that gives one and the same answer to everything."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Same(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = server.answer
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        answer = b"null"
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Same)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    yield server
    server.shutdown()
    server.server_close()
