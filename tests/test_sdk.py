"""What we know of the SDK beyond its public API: when a new version moves it, this fails first."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import ldclient
import pytest
from ldclient import Config, Context, LDClient
from ldclient.impl.events.types import EventInputCustom

from ldinstrument import sdk

CONTEXT = Context.builder("u-1").name("Ana").set("plan", "pro").build()
ASYNC = tuple(map(int, ldclient.__version__.split(".")[:2])) >= (9, 17)


def _config(**options) -> Config:
    return Config(
        "sdk-key", **{"events_uri": "http://127.0.0.1:1", "diagnostic_opt_out": True, **options}
    )


def test_knowing_the_sdk_does_not_import_it():
    """A program without LaunchDarkly pays nothing for us."""
    program = "import sys, ldinstrument.sdk; sys.exit('ldclient' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_there_is_no_singleton_before_somebody_made_it(monkeypatch):
    """Looking for the singleton never makes one: that can wait 5 seconds."""
    monkeypatch.setitem(vars(ldclient), "__client", None)
    assert sdk.singleton_client() is None
    client = LDClient(_config(offline=True))
    monkeypatch.setitem(vars(ldclient), "__client", client)
    assert sdk.singleton_client() is client
    assert ldclient.get() is client


@pytest.mark.parametrize(
    ("options", "why"),
    [({"offline": True}, "offline"), ({"send_events": False, "use_ldd": True}, "send_events_off")],
)
def test_a_client_that_discards_everything(options, why):
    """Offline, or told to send no events."""
    client = LDClient(_config(**options))
    assert sdk.discards_everything(client) == why
    client.close()


def _written(intake: sdk.Intake, event: Any) -> list[dict[str, Any]]:
    """What is sent for *event* of ours."""
    return [json.loads(intake.text(out) or "") for out in intake.passed(event, ours=True)]


def test_the_intake_indexes_once_and_redacts():
    """The SDK's own dedupe and redaction, without its threads."""
    intake = sdk.Intake(_config(private_attributes={"plan"}))
    written = [
        event
        for number in range(3)
        for event in _written(intake, EventInputCustom(number, CONTEXT, f"e.{number}", None, 1.5))
    ]
    assert [event["kind"] for event in written] == ["index", "custom", "custom", "custom"]
    assert written[0]["context"] == {
        "kind": "user", "key": "u-1", "name": "Ana", "_meta": {"redactedAttributes": ["plan"]},
    }  # fmt: skip
    intake.forget_contexts()
    again = _written(intake, EventInputCustom(9, CONTEXT, "again"))
    assert [event["kind"] for event in again] == ["index", "custom"]


def test_the_intake_keeps_the_summary_apart():
    """Drafts for a spool leave the summary to the seal."""
    from ldclient.impl.events.types import EventFactory

    intake = sdk.Intake(_config())
    assert intake.summary_text() is None
    evaluation = EventFactory(False).new_unknown_flag_event("flag", CONTEXT, False, None)
    assert [event["kind"] for event in _written(intake, evaluation)] == ["index"]
    summary = json.loads(intake.summary_text() or "")
    assert (summary["kind"], list(summary["features"])) == ("summary", ["flag"])
    assert intake.summary_text() is None


def test_the_servers_date_bounds_debug_events():
    """A 2xx answer's `Date` is what the SDK compares `debugEventsUntilDate` with."""

    class Answer:
        status = 202
        headers = {"Date": "Mon, 23 Nov 2026 12:00:00 GMT"}

    intake = sdk.Intake(_config())
    intake.hear(Answer())
    assert intake._theirs._last_known_past_time == 1795435200000


def test_headers_carry_key_schema_and_wrapper():
    """What `/bulk` wants, with the key of now."""
    config = _config(wrapper_name="ldinstrument", application={"id": "shop"})
    config._instance_id = "i-1"
    headers = sdk.event_headers(config)
    assert headers["Authorization"] == "sdk-key"
    assert headers["X-LaunchDarkly-Event-Schema"] == "4"
    assert headers["X-LaunchDarkly-Wrapper"] == "ldinstrument"
    assert headers["X-LaunchDarkly-Tags"] == "application-id/shop"
    assert headers["User-Agent"] == f"PythonClient/{ldclient.__version__}"


def test_the_pool_has_room_for_several_posts():
    """The SDK's own pool has room for one connection, and warns about each further one."""
    pool = sdk.connection_pool(_config(), 3)
    assert pool.connection_from_url("http://127.0.0.1:1").pool.maxsize == 3


def test_a_custom_event_is_told_by_its_class():
    """Only `track` events count in the ledger."""
    assert sdk.is_custom(EventInputCustom(1, CONTEXT, "a"))
    assert not sdk.is_custom(object())


def test_the_sdks_processor_is_flushed_within_the_deadline():
    """A full or dead inbox costs the deadline, a closed one nothing."""
    processor = sdk.default_event_processor(_config())
    assert sdk.flush_sdk_processor(processor, time.monotonic() + 5) is True
    processor.stop()
    began = time.monotonic()
    assert sdk.flush_sdk_processor(processor, time.monotonic() + 5) is True
    assert time.monotonic() - began < 4


@pytest.mark.skipif(not ASYNC, reason="this SDK has no async client")
def test_async_parts_are_told_from_sync_ones():
    """By class, and without importing the async client where nobody did."""
    from ldclient.async_client import AsyncLDClient
    from ldclient.async_config import AsyncConfig

    config = AsyncConfig("sdk-key", offline=True)
    assert sdk.is_async(config)
    assert not sdk.is_async(_config())
    assert sdk.event_headers(config)["User-Agent"] == f"PythonAsyncClient/{ldclient.__version__}"
    assert not sdk.is_async_client(object())

    async def client() -> bool:
        return sdk.is_async_client(AsyncLDClient(config))

    import asyncio

    assert asyncio.run(client())


def test_an_index_event_has_the_context_that_is_known():
    """Its text is used for the very context, and not for another, nor for an anonymous one."""
    intake = sdk.Intake(_config())
    nobody = Context.builder("n-1").anonymous(True).set("plan", "free").build()
    for context in (CONTEXT, nobody):
        index, _ = intake.passed(EventInputCustom(7, context, "e"), ours=True)
        written = json.loads(intake.text(index) or "")
        known = json.loads(intake.text(index, (context, '"known"')) or "")
        assert known == (written | {"context": "known"} if context is CONTEXT else written)
        assert json.loads(intake.text(index, (Context.create("u-2"), '"known"')) or "") == written


def test_what_cannot_be_json_is_refused_by_its_kind():
    """A circle as such, not as a depth; and what follows it is written all the same."""
    circle: dict = {}
    circle["self"] = circle
    for refused in (circle, {"value": float("nan")}):
        with pytest.raises(ValueError, match=r"Circular|JSON compliant"):
            sdk.as_json(refused)
    with pytest.raises(TypeError):
        sdk.as_json({"value": object()})
    assert sdk.as_json({"a": [1, 2.5, None, True], "\xe9": "\u2028"}) == (
        '{"a":[1,2.5,null,true],"\\u00e9":"\\u2028"}'
    )
