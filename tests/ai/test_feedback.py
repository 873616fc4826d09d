"""Feedback tokens: whose they are, once, and what becomes of bad ones."""

from __future__ import annotations

import base64
import logging
import math
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import ldinstrument as ld
from ldinstrument.ai import config_runs, feedback
from ldinstrument.errors import (
    DefinitionError,
    ExpiredFeedbackToken,
    ForgedFeedbackToken,
    UsedFeedbackToken,
)
from ldinstrument.testing import RecordingClient

RUN = config_runs.ConfigRun(
    {
        "runId": "run-of-tuesday",
        "configKey": "support",
        "variationKey": "v-1",
        "version": 3,
        "modelName": "m",
    }
)


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDINSTRUMENT_FEEDBACK_SECRET", "a-secret-of-the-test")


def token_of(**options: Any) -> str:
    made = ld.feedback_token(context="u-1", **options)
    assert made is not None
    return made


def test_same_context_and_run(ld_events: RecordingClient) -> None:
    """Redeemed, a token records for the context and the run of its answer."""
    context = {"kind": "multi", "user": {"key": "u-1", "name": "Secret"}, "org": {"key": "o-1"}}
    with ld.session(context) as session:
        config_runs.note_run(session, RUN)
        token = ld.feedback_token()
    assert token is not None
    ld_events.clear()

    assert ld.track_feedback(False, token=token)

    satisfaction = ld_events.only("user.satisfaction")
    assert satisfaction.value == 0
    assert satisfaction.data == {
        "feedbackType": "thumb", "sessionId": session.id, "configKey": "support",
    }  # fmt: skip
    assert satisfaction.context.fully_qualified_key == "org:o-1:user:u-1"
    assert ld_events.only("user.negative_feedback").value is None
    run = ld_events.only("$ld:ai:feedback:user:negative")
    assert (run.value, run.data) == (1, RUN.data)
    assert run.context.fully_qualified_key == "org:o-1:user:u-1"


def test_nobody_can_read_a_token() -> None:
    """It is safe in a URL, and holds no key, attribute or id of anybody's that can be read."""
    with ld.session({"kind": "user", "key": "sandy@example.org", "name": "Sandy"}) as session:
        config_runs.note_run(session, RUN)
        token = ld.feedback_token()
    assert token is not None
    assert quote(token, safe="") == token
    raw = b"".join(
        base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")
    )
    for said in ("sandy", "Sandy", "user", session.id, "support", "run-of-tuesday"):
        assert said.encode() not in raw
        assert said not in token
    for start in range(len(raw)):
        with pytest.raises(zlib.error):
            zlib.decompress(raw[start:])
    assert feedback.read_feedback_token(token).context == {"user": "sandy@example.org"}


@pytest.mark.parametrize("change", ["", "x", "last", "=", "body", "long", "other"])
def test_forged(ld_events: RecordingClient, change: str) -> None:
    """A token that was changed anywhere, or signed with another secret, counts for nothing."""
    token = token_of()
    middle = len(token) // 3
    forged = {
        "": "",
        "x": "x",
        "last": token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1],
        "=": "=" + token,
        "body": token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :],
        "long": token + "A" * 5000,
        "other": token_of(secret="another"),
    }[change]
    with pytest.raises(ForgedFeedbackToken, match="not one of ours"):
        feedback.redeem_feedback_token(forged)
    assert not ld.track_feedback(True, token=forged)
    assert not ld_events.events


@pytest.mark.parametrize("given", [None, 5, b"x", ["x"]])
def test_token_that_is_no_text(given: Any) -> None:
    """Whatever a form sends, it is no exception of another kind."""
    with pytest.raises(ForgedFeedbackToken):
        feedback.read_feedback_token(given)


def test_expired(monkeypatch: pytest.MonkeyPatch, ld_events: RecordingClient) -> None:
    """After its time a token counts for nothing, however far away."""
    token = token_of(expires=60)
    assert feedback.read_feedback_token(token).context == {"user": "u-1"}
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 61)
    with pytest.raises(ExpiredFeedbackToken, match="expired"):
        feedback.redeem_feedback_token(token)
    assert not ld.track_feedback(True, token=token)
    assert not ld_events.events


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_used(ld_events: RecordingClient, store: str, tmp_path: Path) -> None:
    """A token counts once, also when its spelling is varied in ways that itsdangerous accepts."""
    where = None if store == "memory" else f"sqlite:///{tmp_path}/feedback.db"
    token = token_of()
    assert ld.track_feedback(True, token=token, store=where)
    for again in (token, token + "=", token[:-1] + chr(ord(token[-1]) ^ 1)):
        assert not ld.track_feedback(False, token=again, store=where)
    with pytest.raises(UsedFeedbackToken, match="counts once"):
        feedback.redeem_feedback_token(token, store=where)
    assert ld_events.values("user.satisfaction") == [100]


def test_used_at_the_same_time(ld_events: RecordingClient) -> None:
    """Of many who redeem one token at once, one does."""
    token, told = token_of(), []
    threads = [
        threading.Thread(target=lambda: told.append(ld.track_feedback(True, token=token)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == [False] * 7 + [True]
    assert len(ld_events.of("user.satisfaction")) == 1


def test_each_error_is_said_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Bad tokens are counted by their kind, and logged once per kind."""
    token = token_of()
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        for _ in range(3):
            ld.track_feedback(True, token="nonsense")
        ld.track_feedback(True, token=token)
        for _ in range(2):
            ld.track_feedback(True, token=token)
    said = [record.message for record in caplog.records if "token" in record.message]
    assert len(said) == 2
    discarded = ld.stats().values.discarded
    assert (discarded["ForgedFeedbackToken"], discarded["UsedFeedbackToken"]) == (3, 2)


def test_two_tokens_of_one_moment() -> None:
    """Two tokens of one session in one moment are two."""
    with ld.session("u-1"):
        first, second = ld.feedback_token(), ld.feedback_token()
    assert first is not None
    assert second is not None
    assert first != second
    assert ld.track_feedback(True, token=first)
    assert ld.track_feedback(True, token=second)


def test_rotated_secret() -> None:
    """While a secret is exchanged, tokens of the old one count, and new ones use the new one."""
    token = token_of(secret="old")
    assert feedback.read_feedback_token(token, secret=["new", "old"]).context == {"user": "u-1"}
    fresh = token_of(secret=["new", "old"])
    assert feedback.read_feedback_token(fresh, secret="new").context == {"user": "u-1"}


def test_secret_of_the_sdk_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a secret of its own the SDK key signs, and it cannot be read from the token."""
    monkeypatch.delenv("LDINSTRUMENT_FEEDBACK_SECRET")
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "sdk-a-key-of-the-test")
    token = token_of()
    assert "sdk-a-key" not in token
    assert feedback.read_feedback_token(token, secret="sdk-a-key-of-the-test")


def test_no_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ld_events: RecordingClient
) -> None:
    """Without any secret there is no token, and none is redeemed; that is said, and nothing raised."""
    token = token_of()
    monkeypatch.delenv("LDINSTRUMENT_FEEDBACK_SECRET")
    assert ld.feedback_token(context="u-1") is None
    assert not ld.track_feedback(True, token=token)
    assert caplog.text.count("no secret to sign feedback tokens with") == 2
    with pytest.raises(DefinitionError, match="no secret to sign"):
        feedback.read_feedback_token(token)


def test_secret_of_a_client_that_is_no_singleton(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session's own client has an SDK key, too."""
    import ldclient

    monkeypatch.delenv("LDINSTRUMENT_FEEDBACK_SECRET")
    client = ldclient.LDClient(ldclient.Config("sdk-its-own", offline=True))
    with ld.session("u-1", client=client):
        token = ld.feedback_token()
    client.close()
    assert token is not None
    assert feedback.read_feedback_token(token, client=client).context == {"user": "u-1"}
    assert feedback.read_feedback_token(token, secret="sdk-its-own").context == {"user": "u-1"}


@pytest.mark.parametrize("missing", ["itsdangerous", "cryptography.hazmat.primitives.ciphers.aead"])
def test_not_installed(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ld_events: RecordingClient,
    missing: str,
) -> None:
    """Without the extra it is said what to install, and nothing is raised."""
    token = token_of()
    monkeypatch.setitem(sys.modules, missing, None)
    assert ld.feedback_token(context="u-1") is None
    assert not ld.track_feedback(True, token=token)
    assert "pip install 'ldinstrument[ai]'" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"expires": math.nan},
        {"expires": "soon"},
        {"expires": None},
        {"expires": -1},
        {"expires": True},
        {"secret": 1},
        {"secret": b"bytes"},
        {"session": 3},
        {"run": "run-of-tuesday"},
        {"context": 3.5},
    ],
    ids=str,
)
def test_an_argument_of_another_kind_makes_no_token(
    caplog: pytest.LogCaptureFixture, wrong: dict[str, Any]
) -> None:
    """It is said which one, once, and nothing is raised into a handler."""
    for _ in range(2):
        assert ld.feedback_token(**{"context": "u-1", **wrong}) is None
    assert len([record for record in caplog.records if "feedback_token" in record.message]) == 1
    assert "bug" not in caplog.text


def test_a_token_may_last_for_ever() -> None:
    """Or for as long as a date can say."""
    assert feedback.read_feedback_token(token_of(expires=math.inf)).context == {"user": "u-1"}


@pytest.mark.parametrize("wrong", [{"secret": 1}, {"store": 3}], ids=str)
def test_a_wrong_argument_redeems_nothing(
    caplog: pytest.LogCaptureFixture, ld_events: RecordingClient, wrong: dict[str, Any]
) -> None:
    """It is no bug of ours, and the token is not used up."""
    token = token_of()
    assert not ld.track_feedback(True, token=token, **wrong)
    assert "bug" not in caplog.text
    assert ld.track_feedback(True, token=token)


def test_nobody_is_known(caplog: pytest.LogCaptureFixture) -> None:
    """Without a session or a context there is no token, and that is said."""
    with caplog.at_level(logging.WARNING, "ldinstrument"):
        assert ld.feedback_token() is None
    assert "not known whose answer it is" in caplog.text


def test_store_that_does_not_answer(ld_events: RecordingClient) -> None:
    """A store that fails raises nothing here: the feedback is not recorded, and may come again."""

    class Down:
        def once(self, key: str, ttl: float) -> bool:
            raise ConnectionError("down")

    token = token_of()
    assert not ld.track_feedback(True, token=token, store=Down())  # type: ignore[arg-type]
    assert ld.track_feedback(True, token=token)
    assert ld_events.values("user.satisfaction") == [100]


PROGRAM = """
import sys, time
import ldinstrument as ld
from ldinstrument.ai import feedback
from ldinstrument.testing import recording
token, store, start = sys.argv[1], sys.argv[2], float(sys.argv[3])
feedback.read_feedback_token(token)  # everything is imported before it starts
with recording() as events:
    time.sleep(max(0.0, start - time.time()))
    told = ld.track_feedback(True, token=token, store=store)
print(told, [(e.key, e.value, e.context.fully_qualified_key, e.data) for e in events])
"""
PROCESSES = 4


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_other_processes_at_the_same_time(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Four processes redeem one token at the same moment: one of them records it, for the same
    context and run; and none does later.
    """
    if kind == "redis":
        store = f"{request.getfixturevalue('redis_server').url}?timeout=10&prefix=test-{token_of()[:12]}"
    else:
        store = f"sqlite:///{tmp_path}/f.db?timeout=10"
    token, start = token_of(run=RUN), time.time() + 1.5
    command = [sys.executable, "-c", PROGRAM, token, store, str(start)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    told = [process.communicate(timeout=60)[0].strip() for process in running]
    recorded = [line for line in told if line.startswith("True")]
    assert (len(recorded), told.count("False []")) == (1, PROCESSES - 1)
    assert "('user.satisfaction', 100, 'u-1'" in recorded[0]
    assert f"('$ld:ai:feedback:user:positive', 1, 'u-1', {RUN.data})" in recorded[0]
    with pytest.raises(UsedFeedbackToken):
        feedback.redeem_feedback_token(token, store=store)


def test_inert_when_disabled(monkeypatch: pytest.MonkeyPatch, ld_events: RecordingClient) -> None:
    """Switched off, nothing is sent and no token is used up."""
    token = token_of()
    with monkeypatch.context() as off:
        off.setenv("LDINSTRUMENT_DISABLED", "1")
        assert ld.track_feedback(True, token=token)
    assert not ld_events.events
    assert ld.track_feedback(True, token=token)
