"""Over TLS, as LaunchDarkly is: a certificate that nobody trusts is a failure to try again, and 40 ms away is fine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest
from hostile import HostileServer
from ldclient import Config, Context, LDClient
from ldclient.config import HTTPConfig

from ldinstrument.delivery import EventProcessor, FlushReport, Plugin, Receipt, flush
from ldinstrument.ledger import ledger

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
CONTEXT = Context.create("u-1")


@pytest.fixture(name="certificate", scope="module")
def _certificate(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture(name="far")
def _far(certificate) -> Iterator[HostileServer]:
    with HostileServer(tls=certificate, delay=0.04) as server:
        yield server


def _client(server: HostileServer, trusted: str | None, receipts: list[Receipt]) -> LDClient:
    from functools import partial

    made = partial(EventProcessor, on_receipt=receipts.append, close_timeout=0.2)
    return LDClient(
        Config("sdk-key", base_uri=server.url, events_uri=server.url, stream_uri=server.url, use_ldd=True,
               flush_interval=3600, http=HTTPConfig(ca_certs=trusted), plugins=[Plugin()], event_processor_class=made)
    )  # fmt: skip


def test_a_confirmed_flush_over_tls_from_afar(far, certificate):
    """A handshake and 40 ms of round trip; when the flush returns, the events are there."""
    receipts: list[Receipt] = []
    client = _client(far, certificate[0], receipts)
    for number in range(3):
        client.track(f"e.{number}", CONTEXT)
        assert flush(10.0, client) == FlushReport(delivered=1)
        assert far.keys()[f"e.{number}"] == 1
    assert [one.seconds >= 0.04 for one in receipts] == [True] * 3
    client.close()


def test_an_untrusted_certificate_is_a_failure_that_is_kept(far):
    """Nothing leaves over a connection that cannot be trusted; the event waits, the receipt says why."""
    receipts: list[Receipt] = []
    client = _client(far, None, receipts)
    client.track("a", CONTEXT)
    assert flush(0.4, client).failed == 1
    assert (receipts[0].status, receipts[0].error) == (0, "SSLCertVerificationError")
    assert far.posts == []
    client.close()
    assert ledger.stats().events.pending == 1
