"""Two threads beside the loop: one that writes in order, and one that may take long to read."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ldinstrument.devserver.database_thread import DatabaseThread


@pytest.fixture(name="threads")
def _threads():
    threads = DatabaseThread()
    threads.open()
    yield threads
    threads.close()


def test_calls_are_made_in_their_order_on_one_thread(threads):
    """Fifty at once too."""
    made: list[tuple[int, int]] = []

    def call(number: int) -> int:
        made.append((number, threading.get_ident()))
        return number * 2

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(threads.run(call, number) for number in range(50)))

    assert asyncio.run(all_of_them()) == [number * 2 for number in range(50)]
    assert [number for number, _ in made] == list(range(50))
    assert len({thread for _, thread in made} | {threading.get_ident()}) == 2


def test_a_long_reading_holds_no_writing_up(threads):
    """Reading has a thread of its own."""
    release = threading.Event()

    async def both() -> str:
        reading = asyncio.create_task(threads.read(release.wait, 30))
        written = await asyncio.wait_for(threads.run(lambda: "written"), 20)
        assert not reading.done()
        release.set()
        assert await reading
        return written

    assert asyncio.run(both()) == "written"


def test_what_a_call_raises_is_raised_where_it_is_awaited(threads):
    """The thread goes on."""

    async def fails() -> None:
        await threads.run(int, "x")

    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(fails())


def test_it_ends_twice_and_begins_again(threads):
    """As a server that is started again."""
    threads.close()
    threads.close()
    threads.open()
    assert asyncio.run(threads.run(lambda: 1)) == 1
