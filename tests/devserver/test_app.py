"""Who is answered: hosts, origins, and other machines."""

from __future__ import annotations

import socket

import pytest
import requests

from ldinstrument.devserver import LocalLaunchDarkly

from .traffic import traffic

EVENT = {"kind": "custom", "key": "k", "context": {"kind": "user", "key": "u"}}
CLOSED = [
    ("GET", "/dev/events"),
    ("GET", "/sdk/latest-all"),
    ("GET", "/all"),
    ("POST", "/bulk"),
    ("GET", "/api/v2/metrics/default"),
    ("DELETE", "/api/v2/metrics/default/k"),
    ("POST", "/v2/event-data-import/default/production"),
]
OPEN = [
    ("GET", "/sdk/goals/env"),
    ("GET", "/sdk/evalx/env/contexts/eyJraW5kIjoidXNlciIsImtleSI6InUtMSJ9"),
    ("POST", "/events/bulk/env"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_pages_of_other_origins_read_and_write_nothing(http, ld, method, path):
    """Neither with a preflight, nor with a request that needs none."""
    origin = {"Origin": "https://evil.test"}
    assert http(method, path, json=[EVENT], headers=origin).status_code == 403
    site = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert http(method, path, json=[EVENT], headers=site).status_code == 403
    preflight = http("OPTIONS", path, headers={**origin, "Access-Control-Request-Method": method})
    assert "Access-Control-Allow-Origin" not in preflight.headers
    assert ld.count(kind=None) == 0


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_browsers_sdks_are_answered_on_pages_of_any_origin(http, method, path):
    """Their answers allow every origin."""
    answer = http(method, path, json=[EVENT], headers={"Origin": "http://shop.test:3000"})
    assert answer.status_code < 300
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_a_link_from_elsewhere_leads_to_the_page(http):
    """It changes nothing."""
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert http("GET", "/", headers=followed).status_code == 200
    assert http("POST", "/dev/reset", headers=followed).status_code == 403


def test_the_page_itself_is_the_same_origin(http, ld):
    """Its requests are answered."""
    assert http("GET", "/dev/events", headers={"Origin": ld.url}).status_code == 200


def _own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


@pytest.fixture(name="outside")
def _outside():
    """A server on every interface, and its address as another machine would see it."""
    address = _own_address()
    if address.startswith("127."):
        pytest.skip("this machine has only loopback")
    with LocalLaunchDarkly(host="0.0.0.0") as ld:
        yield ld, f"http://{address}:{ld.port}"


def test_the_printed_address_of_a_wildcard_is_usable():
    """It names loopback."""
    with LocalLaunchDarkly(host="0.0.0.0") as ld:
        assert ld.url == f"http://127.0.0.1:{ld.port}"
        assert requests.get(f"{ld.url}/dev/events", timeout=5).status_code == 200


def test_other_machines_need_the_token_of_the_printed_address(outside):
    """For the page, its API and the REST API."""
    ld, url = outside
    for path in ("/", "/dev/events", "/api/v2/projects"):
        headers = {"Authorization": "api-any"}
        assert requests.get(url + path, headers=headers, timeout=5).status_code == 401
    assert requests.get(f"{url}/?token=wrong", timeout=5).status_code == 401
    with requests.Session() as browser:
        page = browser.get(f"{url}/?token={ld.token}", timeout=5)
        assert (page.status_code, page.url) == (200, f"{url}/")
        assert browser.get(f"{url}/dev/events", timeout=5).status_code == 200
    program = {"Authorization": ld.token}
    assert requests.get(f"{url}/api/v2/projects", headers=program, timeout=5).status_code == 200


def test_sdks_of_other_machines_are_served(outside):
    """By their SDK key alone."""
    _, url = outside
    headers = {"Authorization": "sdk-key"}
    assert requests.get(f"{url}/sdk/latest-all", headers=headers, timeout=5).status_code == 200
    assert requests.post(f"{url}/bulk", json=[EVENT], headers=headers, timeout=5).status_code == 202


def test_a_loopback_name_from_another_machine_is_not_this_machine(outside):
    """Who asks is told by the connection, not only by the Host header."""
    _, url = outside
    answer = requests.get(f"{url}/dev/events", headers={"Host": "127.0.0.1"}, timeout=5)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:80", "127.0.0.1.evil.test", "localhost.evil.test:8030", ""]
)
def test_a_rebound_name_gets_nothing(ld, http, host):
    """A web page whose name was pointed at 127.0.0.1 must not read what developers send here."""
    for path in ("/", "/dev/events", "/api/v2/metrics/default", "/sdk/latest-all"):
        assert http("GET", path, headers={"Host": host}).status_code in (400, 403)
    for host in (f"localhost:{ld.port}", f"127.0.0.1:{ld.port}", "LOCALHOST", f"[::1]:{ld.port}"):
        assert http("GET", "/dev/events", headers={"Host": host}).status_code == 200


def test_a_foreign_page_can_neither_read_nor_reset(ld, http):
    """The page's own routes answer no other origin, not even to a form that needs no preflight."""
    http("POST", "/bulk", json=traffic())
    for origin in (
        "https://evil.test",
        "null",
        f"http://localhost:{ld.port}",
        f"http://127.0.0.1:{ld.port + 1}",
    ):
        answer = http("POST", "/dev/reset", headers={"Origin": origin})
        assert answer.status_code == 403
        assert (
            "Access-Control-Allow-Origin"
            not in http("GET", "/dev/events", headers={"Origin": origin}).headers
        )
    assert ld.events()
    assert http("POST", "/dev/reset", headers={"Origin": ld.url}).status_code == 204
    assert ld.events() == []


def test_every_loopback_address_refuses_foreign_host_headers():
    """A page whose name was rebound to 127.0.0.2 gets nothing; the address itself is served."""
    with LocalLaunchDarkly(host="127.0.0.2") as ld:
        foreign = requests.get(f"{ld.url}/dev/events", headers={"Host": "evil.test"}, timeout=5)
        assert foreign.status_code == 403
        assert requests.get(f"{ld.url}/dev/events", timeout=5).status_code == 200


def test_other_names_are_allowed_on_purpose():
    """Such as that of a proxy."""
    with LocalLaunchDarkly(allowed_hosts={"proxy.test"}) as ld:
        assert (
            requests.get(ld.url, headers={"Host": "proxy.test:443"}, timeout=5).status_code == 200
        )
        assert requests.get(ld.url, timeout=5).status_code == 403
