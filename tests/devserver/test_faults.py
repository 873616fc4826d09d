"""InjectedFaults on purpose: each as a client on the other end of a real connection meets it."""

from __future__ import annotations

import http.client
import time

import pytest
import requests

from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.devserver.faults import InjectedFault

EVENT = {"kind": "custom", "key": "k", "creationDate": 1, "context": {"kind": "user", "key": "u"}}


def test_a_status_hits_so_many_requests_and_no_more(ld, http):
    """With its headers and its body."""
    fault = ld.fault("/bulk", status=503, times=3, headers={"Retry-After": "1"}, body="busy")
    answers = [http("POST", "/bulk", json=[EVENT]) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [503, 503, 503, 202, 202]
    assert (answers[0].headers["Retry-After"], answers[0].text, fault.hits) == ("1", "busy", 3)
    assert len(ld.custom_events("k")) == 2
    assert [post.fault for post in ld.posts()] == ["503", "503", "503", "", ""]
    assert [post.events for post in ld.posts()] == [1] * 5


def test_a_lasting_fault_ends_when_it_is_told(ld, http):
    """By its own count or by clearing all."""
    fault = ld.fault("/bulk", status=401, times=None)
    assert [http("POST", "/bulk", json=[EVENT]).status_code for _ in range(3)] == [401] * 3
    fault.times = 0
    assert http("POST", "/bulk", json=[EVENT]).status_code == 202
    ld.fault("/bulk", status=500, times=None)
    ld.clear_faults()
    assert http("POST", "/bulk", json=[EVENT]).status_code == 202


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body_announces_none(ld, http, status):
    """A length beside such a status confuses clients."""
    ld.fault("/bulk", status=status)
    answer = http("POST", "/bulk", json=[EVENT])
    assert (answer.status_code, answer.headers.get("Content-Length")) == (status, None)


@pytest.mark.parametrize("drop", [True, "early"])
def test_a_dropped_connection_brings_no_answer_at_all(ld, http, drop):
    """The next request is served."""
    ld.fault("/bulk", drop=drop)
    with pytest.raises(requests.ConnectionError):
        http("POST", "/bulk", json=[EVENT])
    assert (ld.posts()[0].status, ld.posts()[0].fault) == (0, "drop")
    assert ld.events() == []
    assert http("POST", "/bulk", json=[EVENT]).status_code == 202


def test_an_early_drop_comes_in_the_middle_of_a_large_body(ld, http):
    """The client is still sending."""
    ld.fault("/bulk", drop="early")
    with pytest.raises(requests.ConnectionError):
        http("POST", "/bulk", data=b"[" + b" " * 30_000_000)


def test_half_an_answer_promises_more_than_it_brings(ld):
    """By its Content-Length."""
    ld.fault("/api/v2/*", truncate=True, after=True)
    connection = http.client.HTTPConnection("127.0.0.1", ld.port, timeout=10)
    connection.request("GET", "/api/v2/caller-identity", headers={"Authorization": "api-t"})
    with pytest.raises(http.client.IncompleteRead) as half:
        connection.getresponse().read()
    connection.close()
    assert half.value.partial.startswith(b"{")
    assert (
        half.value.expected == len(half.value.partial)
        or half.value.expected == len(half.value.partial) + 1
    )


def test_after_does_the_work_and_spoils_the_answer(ld, http):
    """How a client comes to send what has already arrived."""
    ld.fault("/bulk", status=500, after=True)
    ld.fault("/bulk", drop=True, after=True)
    headers = {"X-LaunchDarkly-Payload-ID": "p"}
    assert http("POST", "/bulk", json=[EVENT], headers=headers).status_code == 500
    with pytest.raises(requests.ConnectionError):
        http("POST", "/bulk", json=[EVENT], headers=headers)
    assert http("POST", "/bulk", json=[EVENT], headers=headers).status_code == 202
    assert ld.custom_events("k") == [EVENT]
    assert [(post.fault, post.duplicate) for post in ld.posts()] == [
        ("after:500", False),
        ("after:drop", True),
        ("", True),
    ]


def test_a_delay_holds_the_answer_and_then_it_comes(ld, http):
    """The event is kept."""
    ld.fault("/bulk", delay=0.2)
    began = time.monotonic()
    assert http("POST", "/bulk", json=[EVENT]).status_code == 202
    assert time.monotonic() - began >= 0.2
    assert ld.custom_events("k") == [EVENT]


def test_an_answer_later_than_the_client_waits(ld, http):
    """The event was kept all the same."""
    ld.fault("/bulk", delay=0.5, after=True)
    headers = {"Authorization": "sdk"}
    with requests.Session() as session, pytest.raises(requests.ReadTimeout):
        session.post(ld.url + "/bulk", json=[EVENT], headers=headers, timeout=(60, 0.1))
    assert ld.wait_for(lambda: ld.custom_events("k")) == [EVENT]


def test_method_skip_and_when_choose_the_requests(ld, http):
    """Others are served."""
    ld.fault("/api/v2/metrics/*", status=500, method="POST", times=None)
    ld.fault(
        "/bulk",
        status=418,
        skip=1,
        when=lambda method, path, headers, body: b"poison" in body,
        times=None,
    )
    assert http("GET", "/api/v2/metrics/default").status_code == 200
    assert http("POST", "/api/v2/metrics/default", json={}).status_code == 500
    poison = {**EVENT, "key": "poison"}
    assert [
        http("POST", "/bulk", json=[event]).status_code for event in (EVENT, poison, poison, EVENT)
    ] == [
        202,
        202,
        418,
        202,
    ]


def test_html_instead_of_json(ld, http):
    """As a proxy in between answers."""
    ld.fault("/api/*", status=200, body="<html>proxy</html>", headers={"Content-Type": "text/html"})
    answer = http("GET", "/api/v2/metrics/default")
    assert (answer.status_code, answer.text, answer.headers["Content-Type"]) == (
        200,
        "<html>proxy</html>",
        "text/html",
    )


def test_faults_may_be_there_from_the_start():
    """Before the first request."""
    with LocalLaunchDarkly(faults=[InjectedFault("/bulk", status=429)]) as ld:
        headers = {"Authorization": "sdk"}
        codes = [
            requests.post(ld.url + "/bulk", json=[EVENT], headers=headers, timeout=5).status_code
            for _ in range(2)
        ]
    assert codes == [429, 202]
