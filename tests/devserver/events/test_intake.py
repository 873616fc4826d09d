"""The event intake over plain HTTP: what is accepted, refused, counted and remembered."""

from __future__ import annotations

import gzip
import json
import resource
import threading
import uuid

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldinstrument.devserver import LocalLaunchDarkly

EVENT = {
    "kind": "custom",
    "key": "k",
    "creationDate": 1795422752549,
    "context": {"kind": "user", "key": "u"},
    "metricValue": 1.5,
}


def wire(*events) -> bytes:
    return json.dumps(list(events)).encode()


def test_a_batch_is_answered_202_with_nothing_but_a_date(http, ld):
    """SDKs read the clock of the server from it."""
    answer = http("POST", "/bulk", json=[EVENT])
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["Date"].endswith("GMT")
    assert ld.events() == [EVENT]


@pytest.mark.parametrize(
    "path", ["/bulk", "/mobile", "/mobile/events", "/mobile/events/bulk", "/events/bulk/env-id"]
)
def test_every_route_of_events_leads_to_the_same_place(http, ld, path):
    """Of servers, browsers, telephones and the import."""
    assert http("POST", path, json=[EVENT]).status_code == 202
    assert ld.custom_events("k") == [EVENT]
    assert [post.route for post in ld.posts()] == [path]


@pytest.mark.parametrize(
    "path", ["/diagnostic", "/mobile/events/diagnostic", "/events/diagnostic/env-id"]
)
def test_diagnostics_are_one_object_and_no_event(http, ld, path):
    """They have a list of their own."""
    assert http("POST", path, json={"kind": "diagnostic-init", "id": {}}).status_code == 202
    assert http("POST", path, json=[1]).status_code == 400
    assert len(ld.diagnostics()) == 1
    assert ld.events() == []


def test_the_import_api_wants_a_rest_token(http, ld):
    """An SDK key is no such token."""
    path = "/v2/event-data-import/default/production"
    schema = {"X-LaunchDarkly-Event-Schema": "4"}
    assert http("POST", path, json=[EVENT], headers=schema).status_code == 202
    for token in ("", "sdk-12345678", "Bearer api-1"):
        headers = {**schema, "Authorization": token}
        assert http("POST", path, json=[EVENT], headers=headers).status_code == 401
    assert len(ld.custom_events("k")) == 1


def test_the_import_api_refuses_what_launchdarkly_refuses(http, ld):
    """406 without schema 4, 400 for a kind that is not custom, 413 beyond 10 MB."""
    path = "/v2/event-data-import/default/production"
    schema = {"X-LaunchDarkly-Event-Schema": "4"}
    assert http("POST", path, json=[EVENT]).status_code == 406
    older = {"X-LaunchDarkly-Event-Schema": "3"}
    assert http("POST", path, json=[EVENT], headers=older).status_code == 406
    identify = {"kind": "identify", "context": {"kind": "user", "key": "u"}}
    assert http("POST", path, json=[EVENT, identify], headers=schema).status_code == 400
    large = {**EVENT, "data": {"text": "x" * (10 * 1024 * 1024)}}
    assert http("POST", path, json=[large], headers=schema).status_code == 413
    assert http("POST", "/bulk", json=[large]).status_code == 202
    assert http("POST", path, json=[], headers=schema).status_code == 202
    assert ld.count() == 1


def test_gzip_and_chunked_bodies_and_headers_in_any_case(http, ld):
    """What proxies and SDKs make of a POST."""
    packed = gzip.compress(wire(EVENT))
    assert (
        http("POST", "/bulk", data=packed, headers={"content-ENCODING": "GZIP"}).status_code == 202
    )
    half = len(packed) // 2
    parts = iter([packed[:half], packed[half:]])
    headers = {"Content-Encoding": "gzip", "x-launchDarkly-payload-id": "p-1"}
    assert http("POST", "/bulk", data=parts, headers=headers).status_code == 202
    assert ld.custom_events("k") == [EVENT, EVENT]
    assert [post.payload_id for post in ld.posts()] == ["", "p-1"]
    assert ld.posts()[0].bytes == len(packed)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"  ", {}),
        (b"{}", {}),
        (b"[", {}),
        (b"[{},]", {}),
        (b"[{} {}]", {}),
        (b"[{}] []", {}),
        (b"null", {}),
        (b'[{"kind": "custom", "key": "k", "metricValue": NaN}]', {}),
        (b'[{"kind": "custom", "key": "k", "metricValue": -Infinity}]', {}),
        (b"[\xff]", {}),
        (b"[" * 200_000, {}),
        (b"[1]", {"Content-Encoding": "gzip"}),
        (gzip.compress(b"[1]", mtime=0)[:-9], {"Content-Encoding": "gzip"}),
        (b"[1]", {"Content-Encoding": "br"}),
    ],
)
def test_what_is_no_array_of_json_is_refused_and_remembered(http, ld, body, headers):
    """A developer finds the POST with its status."""
    answer = http("POST", "/bulk", data=body, headers={**headers, "X-LaunchDarkly-Payload-ID": "p"})
    assert answer.status_code == 400
    assert set(answer.json()) == {"code", "message", "id"}
    (post,) = ld.posts()
    assert (post.status, post.payload_id, post.duplicate) == (400, "p", False)
    assert post.error
    assert (
        http("POST", "/bulk", json=[EVENT], headers={"X-LaunchDarkly-Payload-ID": "p"}).status_code
        == 202
    )
    assert ld.custom_events("k") == [EVENT]


@pytest.mark.parametrize("item", [b" ", b"[],", b'{"kind":"custom","key":"k"},'])
def test_a_gzip_bomb_is_refused_while_it_is_inflated(http, ld, item):
    """A body of some kilobytes costs neither gigabytes nor seconds, whatever it inflates to."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bomb = gzip.compress(b"[" + item * (60_000_000 // len(item)) + b"1]")
    answer = http("POST", "/bulk", data=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB
    assert http("POST", "/bulk", json=[EVENT]).status_code == 202
    assert [post.status for post in ld.posts()] == [413, 202]


def test_a_body_of_very_many_values_is_too_large(http, ld):
    """Eight megabytes of empty lists would be half a gigabyte of objects."""
    body = b"[" + b"[]," * 2_500_000 + b"1]"
    assert http("POST", "/bulk", data=body).status_code == 413


@pytest.mark.parametrize("field", ["data", "unknown"])
@pytest.mark.parametrize("depth", [300, 970, 100_000])
@pytest.mark.parametrize("beside", ["plain", 'with "quotes" and [brackets'])
def test_an_event_that_is_nested_too_deeply_is_refused(http, ld, field, depth, beside):
    """What could be parsed here may be too deep for whoever reads it later, such as the page."""
    event = json.dumps({**EVENT, "beside": beside})
    deep = '{"a":' * depth + "1" + "}" * depth
    body = f'[{event[:-1]},"{field}":{deep}}}]'
    assert http("POST", "/bulk", data=body.encode()).status_code == 400
    assert http("GET", "/dev/events").status_code == 200


def test_brackets_in_strings_are_no_nesting(http, ld):
    """Also beside escaped quotes; and a body that is no JSON is refused as such."""
    texts = ["[" * 500, '{"' * 500, "\\" * 501, '"', "[]" * 300 + "}"]
    events = [{**EVENT, "data": {"text": text, "list": [[[text]]]}} for text in texts]
    assert http("POST", "/bulk", json=events).status_code == 202
    assert [event["data"]["text"] for event in ld.custom_events()] == texts
    assert http("POST", "/bulk", data=b"[" + b"{]" * 500).status_code == 400


def test_a_missing_or_unknown_key_is_unauthorized(http, ld):
    """It comes as a header, with or without a prefix, or in the path of a browser."""
    assert http("POST", "/bulk", json=[EVENT], headers={"Authorization": ""}).status_code == 401
    ld.sdk_keys = {"sdk-good", "client-side-id"}
    assert http("POST", "/bulk", json=[EVENT]).status_code == 401
    assert (
        http("POST", "/bulk", json=[EVENT], headers={"Authorization": "sdk-good"}).status_code
        == 202
    )
    assert (
        http(
            "POST", "/bulk", json=[EVENT], headers={"Authorization": "api_key sdk-good"}
        ).status_code
        == 202
    )
    assert http("POST", "/events/bulk/client-side-id", json=[EVENT]).status_code == 202
    assert http("POST", "/events/bulk/other", json=[EVENT]).status_code == 401
    assert len(ld.custom_events("k")) == 3


def test_a_body_above_the_limit_is_413_and_a_split_one_passes():
    """As LaunchDarkly answers a body that is too large."""
    with LocalLaunchDarkly(max_payload_bytes=1000) as ld:

        def post(events):
            return requests.post(
                ld.url + "/bulk", data=wire(*events), headers={"Authorization": "sdk"}, timeout=5
            ).status_code

        assert post([EVENT] * 20) == 413
        assert [post([EVENT] * 5) for _ in range(4)] == [202] * 4
        assert len(ld.custom_events("k")) == 20


def test_a_repeated_payload_counts_once_and_its_posts_are_counted(http, ld):
    """The id of the payload decides, not its content."""
    for body in ([EVENT], [EVENT], [EVENT, EVENT]):
        assert (
            http(
                "POST", "/bulk", json=body, headers={"X-LaunchDarkly-Payload-ID": "same"}
            ).status_code
            == 202
        )
    assert (
        http(
            "POST", "/bulk", json=[EVENT], headers={"X-LaunchDarkly-Payload-ID": "other"}
        ).status_code
        == 202
    )
    assert len(ld.custom_events("k")) == 2
    assert [(post.payload_id, post.duplicate, post.events) for post in ld.posts()] == [
        ("same", False, 1),
        ("same", True, 1),
        ("same", True, 2),
        ("other", False, 1),
    ]
    counts = http("GET", "/dev/payloads").json()
    assert (counts["posts"], counts["events"], counts["duplicates"]) == (4, 2, 2)
    assert {payload["payloadId"]: payload["posts"] for payload in counts["payloads"]} == {
        "same": 3,
        "other": 1,
    }


def test_a_payload_that_arrives_twice_at_the_same_moment_counts_once(http, ld):
    """Twelve racing copies of one payload, with different bodies so that a wrong winner would
    show.
    """
    answers = []

    def post() -> None:
        headers = {"Authorization": "sdk", "X-LaunchDarkly-Payload-ID": "same"}
        answers.append(
            requests.post(
                ld.url + "/bulk", data=wire(*[EVENT] * 50), headers=headers, timeout=10
            ).status_code
        )

    threads = [threading.Thread(target=post) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [202] * 12
    assert ld.count(key="k") == 50
    assert sum(post.duplicate for post in ld.posts()) == 11


def test_events_are_kept_exactly_as_sent(http, ld):
    """Order, numbers, unknown kinds, fields nobody knows, text in every script."""
    events = [
        EVENT,
        {
            "kind": "index",
            "creationDate": 1,
            "context": {"kind": "user", "key": "ü ✓ 💡", "n": 1e-7, "big": 2**70},
        },
        {"kind": "custom", "key": "", "context": {"kind": "user", "key": "u"}},
        {"kind": "custom", "key": None},
        {
            "kind": "custom",
            "key": "x\u0000y",
            "context": "no context",
            "metricValue": "7",
            "creationDate": "yesterday",
        },
        {
            "kind": "custom",
            "key": "bool",
            "contextKeys": {"user": "u", "org": "o"},
            "metricValue": True,
            "creationDate": 1e300,
        },
        {"kind": "migration_op", "operation": "read"},
        {"kind": "something new", "x": [1, {"y": None}]},
    ]
    assert http("POST", "/bulk", json=events).status_code == 202
    assert ld.events() == events
    assert ld.custom_events("x\u0000y")[0]["metricValue"] == "7"


def test_items_that_are_no_events_are_left_out(http, ld):
    """The POST is accepted all the same."""
    assert http("POST", "/bulk", json=[1, None, "x", [], {}, {"kind": 3}, EVENT]).status_code == 202
    assert ld.events() == [EVENT]


def test_a_lone_surrogate_and_an_overflowing_number_are_survived(http, ld):
    """By the intake and by everything that reads it."""
    context = b'{"kind":"user","key":"\\udfff"}'
    body = b'[{"kind":"custom","key":"a\\ud800b","context":%s,"metricValue":1e999}]' % context
    assert http("POST", "/bulk", data=body).status_code == 202
    assert ld.events()[0]["key"] == "a\ud800b"
    assert http("GET", "/dev/events").status_code == 200
    assert ld.readout().totals[0].values == 0


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        "kind",
        "key",
        "creationDate",
        "context",
        "contextKeys",
        "metricValue",
        "variation",
        "reason",
        "user",
    ]
)
CONTEXTS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["user", "multi", "", 3])}, optional={"key": VALUES, "user": VALUES}
)
ANY = st.dictionaries(
    NAMES,
    VALUES | CONTEXTS | st.sampled_from(["custom", "feature"]) | st.just({"inExperiment": True}),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=st.lists(ANY | VALUES, max_size=4))
def test_no_event_breaks_the_intake_or_what_reads_it(http, ld, events):
    """Whatever JSON can say."""
    assert http("POST", "/bulk", json=events).status_code == 202
    for path in ("/dev/readout", "/dev/events", "/dev/health", "/dev/payloads", "/dev/metrics"):
        assert http("GET", path).status_code == 200
    kept = [
        event for event in events if isinstance(event, dict) and isinstance(event.get("kind"), str)
    ]
    assert [dict(event) for event in ld.event_log.reader.events()[-len(kept) :]] == kept or not kept


def test_browsers_may_post_from_any_origin(http):
    """The preflight allows the headers of the browser SDK."""
    headers = {
        "Origin": "https://shop.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-launchdarkly-event-schema,"
        "x-launchdarkly-payload-id,"
        "x-launchdarkly-user-agent",
    }
    preflight = http("OPTIONS", "/events/bulk/env-id", headers=headers)
    assert preflight.status_code == 200
    allowed = preflight.headers["Access-Control-Allow-Headers"].lower()
    assert all(name in allowed for name in headers["Access-Control-Request-Headers"].split(","))
    answer = http(
        "POST", "/events/bulk/env-id", json=[EVENT], headers={"Origin": "https://shop.test"}
    )
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "date" in answer.headers["Access-Control-Expose-Headers"].lower()


def test_a_burst_of_a_hundred_thousand_events_is_taken(ld):
    """Ten clients post 10,000 events each at once; others are answered meanwhile."""

    def post(number: int) -> None:
        events = [
            {**EVENT, "key": f"k{i % 7}", "context": {"kind": "user", "key": f"u-{number}-{i}"}}
            for i in range(10_000)
        ]
        headers = {"Authorization": "sdk", "X-LaunchDarkly-Payload-ID": str(uuid.uuid4())}
        assert (
            requests.post(
                ld.url + "/bulk", data=wire(*events), headers=headers, timeout=60
            ).status_code
            == 202
        )

    threads = [threading.Thread(target=post, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    answered = 0
    while any(thread.is_alive() for thread in threads):
        answered += requests.get(ld.url + "/", timeout=30).status_code == 200
    for thread in threads:
        thread.join()
    assert answered > 0
    assert ld.count() == 100_000
    assert sum(total.events for total in ld.readout().totals) == 100_000
