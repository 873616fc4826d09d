"""Over TLS, as LaunchDarkly is: certificates, and a server that is 40 ms away."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest
from event_server import EventServer
from ldclient import Config, Context, LDClient
from ldclient.config import HTTPConfig

from ldinstrument.delivery import EventProcessor, FlushReport, Plugin, Receipt, flush
from ldinstrument.ledger import ledger

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="no openssl to make a certificate with"
)


CONTEXT = Context.create("u-1")


@pytest.fixture(name="certificate", scope="module")
def _certificate(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture(name="far")
def _far(certificate) -> Iterator[EventServer]:
    with EventServer(tls=certificate, delay=0.04) as server:
        yield server


def _client(
    server: EventServer,
    trusted: str | None,
    receipts: list[Receipt],
    host: str = "127.0.0.1",
    **http: bool,
) -> LDClient:
    from functools import partial

    made = partial(EventProcessor, on_receipt=receipts.append, close_timeout=0.2)
    url = server.url.replace("127.0.0.1", host)
    return LDClient(
        Config(
            "sdk-key",
            base_uri=url,
            events_uri=url,
            stream_uri=url,
            use_ldd=True,
            flush_interval=3600,
            http=HTTPConfig(ca_certs=trusted, **http),
            plugins=[Plugin()],
            event_processor_class=made,
        )
    )


def test_a_confirmed_flush_over_tls_from_afar(far, certificate):
    """A handshake and 40 ms of round trip; when the flush returns, the events are there."""
    receipts: list[Receipt] = []
    client = _client(far, certificate[0], receipts)
    for number in range(3):
        client.track(f"e.{number}", CONTEXT)
        assert flush(30.0, client) == FlushReport(delivered=1)
        assert far.keys()[f"e.{number}"] == 1
    assert [receipt.seconds >= 0.04 for receipt in receipts] == [True] * 3
    client.close()


def test_an_untrusted_certificate_is_a_failure_that_is_kept(far):
    """Nothing leaves over a connection that cannot be trusted; the event waits, the receipt says
    why.
    """
    receipts: list[Receipt] = []
    client = _client(far, None, receipts)
    client.track("a", CONTEXT)
    while not flush(0.4, client).failed:
        pass
    assert (receipts[0].status, receipts[0].error) == (0, "SSLError")
    assert far.posts == []
    client.close()
    assert ledger.stats().events.pending == 1


def test_a_certificate_for_another_name_is_not_trusted(far, certificate):
    """Trusted, but made for 127.0.0.1: whoever answers as localhost is somebody else."""
    receipts: list[Receipt] = []
    client = _client(far, certificate[0], receipts, host="localhost")
    client.track("a", CONTEXT)
    while not flush(0.4, client).failed:
        pass
    assert (receipts[0].status, receipts[0].error) == (0, "SSLError")
    assert far.posts == []
    client.close()


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")  # urllib3 says so, to the SDK, too
def test_verification_can_be_switched_off_as_in_the_sdk(far):
    """`HTTPConfig(disable_ssl_verification=True)`, for a proxy that signs for itself."""
    client = _client(far, None, [], disable_ssl_verification=True)
    client.track("a", CONTEXT)
    assert flush(20.0, client) == FlushReport(delivered=1)
    client.close()
