"""Flag changes on their way to open streams: each gets all from its beginning on, until the end."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from ldinstrument.devserver.flags import flag_changes
from ldinstrument.devserver.flags.flag_changes import (
    HEARTBEAT,
    FlagChange,
    FlagChanges,
    event_stream,
    next_change,
    sse,
)

CHANGES = [FlagChange("put", "flag", {"key": key}) for key in "abc"]


def test_each_stream_gets_the_changes_from_its_beginning_on():
    """In their order; one that has left gets no more."""

    async def main():
        changes = FlagChanges()
        with changes.subscription() as early:
            changes.publish(CHANGES[0])
            await asyncio.sleep(0)
            with changes.subscription() as late:
                assert changes.streams == 2
                for change in CHANGES[1:]:
                    changes.publish(change)
                found = [await next_change(late) for _ in range(2)]
            assert changes.streams == 1
            return [await next_change(early) for _ in range(3)], found

    assert asyncio.run(main()) == (CHANGES, CHANGES[1:])


def test_a_change_may_come_from_any_thread():
    """A test that sets a flag is another one."""

    async def main():
        changes = FlagChanges()
        with changes.subscription() as queue:
            thread = threading.Thread(target=changes.publish, args=(CHANGES[0],))
            thread.start()
            found = await next_change(queue)
            thread.join(20)
            return found

    # asyncio refuses what is not safe between threads when it debugs
    assert asyncio.run(main(), debug=True) == CHANGES[0]


def test_streams_end_when_the_server_does():
    """Those that are open, and those that come after it."""

    async def main():
        changes = FlagChanges()
        with changes.subscription() as open_one:
            changes.close()
            with changes.subscription() as late:
                return await next_change(open_one), await next_change(late)

    assert asyncio.run(main()) == (None, None)


def test_a_change_after_the_end_of_the_loop_is_nobodys():
    """The server has just stopped: whoever sets a flag hears nothing of it."""

    async def main():
        return FlagChanges()

    asyncio.run(main()).publish(CHANGES[0])


def test_a_silence_is_broken_by_a_heartbeat(monkeypatch: pytest.MonkeyPatch):
    """So that nothing on the way takes the stream for dead; no change is lost by it."""
    monkeypatch.setattr(flag_changes, "HEARTBEAT_SECONDS", 0.01)

    async def main():
        changes = FlagChanges()
        with changes.subscription() as queue:
            first = await next_change(queue)
            changes.publish(CHANGES[0])
            await asyncio.sleep(0)
            return first, await next_change(queue)

    assert asyncio.run(main()) == (HEARTBEAT, CHANGES[0])


def test_an_event_of_a_stream_is_one_line_of_data():
    """Whatever is in it."""
    text = sse("put", {"key": "a\nb", "values": [1, None]}).decode()
    name, data, *rest = text.split("\n")
    assert (name, rest) == ("event: put", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == {"key": "a\nb", "values": [1, None]}


def test_a_stream_has_no_length_and_names_its_environment():
    """The Python SDK needs the first, others look for the second."""

    async def messages():
        yield b""

    response = event_stream(messages())
    assert "content-length" not in response.headers
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-ld-envid"] == flag_changes.ENVIRONMENT_ID
