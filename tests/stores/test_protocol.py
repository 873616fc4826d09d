"""What every store does, whichever it is: one suite over memory, SQLite and a real Redis server."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from stores_builders import (
    ONE_WINDOW,
    delta,
    end,
    ended,
    revenue,
    tallies_of,
    today,
    until,
    values_of,
)

from ldinstrument.stores.protocol import Operation, Sealed
from ldinstrument.stores.records import MOST_LINES, readable
from ldinstrument.stores.replay import events_of

KEY = "session:v-1"


def money(store, record):
    """All revenue in a record."""
    return sum(value for value, _ in values_of(record, "revenue.impact", store.rules))


def silent(seconds=0.03):
    time.sleep(seconds)


def test_a_visit_is_one_session_over_many_merges(make_store):
    """The first delta opens a session, the next ones join it: tallies and sums add up, the dates
    span them.
    """
    store = make_store()

    first = store.merge(KEY, delta("s-1", started_ago=5000, last_ago=4000, groups=revenue(10.5)))
    second = store.merge(
        KEY, delta("s-2", tallies=(1, 2, 3, 4), started_ago=100, last_ago=50, groups=revenue(0.25))
    )
    third = store.merge(KEY, delta("s-3", tallies=(0, 0, 0, 0), started_ago=9000, last_ago=8000))
    assert end(store, KEY, "logout") is not None

    assert [(visit.id, visit.opened) for visit in (first, second, third)] == [
        ("s-1", True),
        ("s-1", False),
        ("s-1", False),
    ]
    (record,) = ended(store)
    assert (record.id, record.reason, tallies_of(record)) == ("s-1", "logout", [2, 2, 3, 4])
    assert values_of(record, "revenue.impact", store.rules)[0][0] == 10.75
    assert 8900 <= record.last - record.started <= 9000 + 60_000
    assert record.started < record.last


def test_visitors_do_not_mix(make_store):
    """Each key has its own session, also when merges of many keys come at the same time."""
    store = make_store()

    def work(number):
        for _ in range(10):
            for visitor in range(4):
                store.merge(
                    f"session:{visitor}",
                    delta(f"s-{visitor}-{number}", groups=revenue(2.0**visitor)),
                )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for visitor in range(4):
        end(store, f"session:{visitor}", "ended")

    records = {record.id.split("-")[1]: record for record in ended(store)}
    assert {visitor: tallies_of(record)[0] for visitor, record in records.items()} == dict.fromkeys(
        "0123", 40
    )
    assert {visitor: money(store, record) for visitor, record in records.items()} == {
        str(visitor): 40 * 2.0**visitor for visitor in range(4)
    }


def test_after_the_idle_time_the_next_session_opens_and_knows_the_one_before(make_store):
    """Activity that begins after the silence opens the next session with `previousId`; the first
    one has ended.
    """
    store = make_store(idle=0.02)

    store.merge(KEY, delta("s-1"))
    silent()
    found = store.merge(KEY, delta("s-2"))

    assert (found.id, found.previous_id, found.opened) == ("s-2", "s-1", True)
    first = ended(store)[0]
    assert (first.id, first.reason) == ("s-1", "idle")


def test_a_request_that_began_in_time_still_belongs_to_its_session(make_store):
    """The silence is measured to the beginning of the request, not to its end: a slow one splits
    nothing.
    """
    store = make_store(idle=60.0)

    store.merge(KEY, delta("s-1", started_ago=100_000, last_ago=90_000))
    found = store.merge(KEY, delta("s-2", started_ago=40_000))

    assert (found.id, found.opened) == ("s-1", False)


def test_a_session_lasts_no_longer_than_the_maximum(make_store):
    """However busy a visitor is, activity after the maximum opens the next session."""
    store = make_store(maximum=60.0)

    store.merge(KEY, delta("s-1", started_ago=61_000, last_ago=1000))
    found = store.merge(KEY, delta("s-2"))

    assert (found.id, found.previous_id) == ("s-2", "s-1")
    assert [record.reason for record in ended(store)] == ["maximum"]


def test_a_session_that_was_ended_is_remembered_and_ended_once(make_store):
    """Ending is for the open session only; the next activity opens one that knows it, until it is
    forgotten.
    """
    store = make_store()

    store.merge(KEY, delta("s-1"))

    assert readable(end(store, KEY, "logout")).id == "s-1"
    assert end(store, KEY, "logout") is None
    assert end(store, "session:nobody", "logout") is None
    assert store.merge(KEY, delta("s-2")).previous_id == "s-1"
    assert [record.id for record in ended(store)] == ["s-1"]


def test_a_delta_may_end_its_session(make_store):
    """A logout is part of its request: merged and ended in one step; the next one knows it."""
    store = make_store()

    store.merge(KEY, delta("s-1"))
    last = store.merge(KEY, delta("s-2", ends="logout"))
    only = store.merge("session:other", delta("s-3", ends="logout"))

    assert (last.id, last.opened, only.opened) == ("s-1", False, True)
    assert store.holdings().open == 0
    assert store.merge(KEY, delta("s-4")).previous_id == "s-1"
    assert [(record.id, record.reason, tallies_of(record)[0]) for record in ended(store)] == [
        ("s-1", "logout", 2),
        ("s-3", "logout", 1),
    ]


def test_what_began_before_the_end_joins_while_that_waits_to_be_sealed(make_store):
    """A page whose worker is slower than the logout still belongs to its visit; what begins later
    does not.
    """
    store = make_store()

    store.merge(KEY, delta("s-1", groups=revenue(1.0)))
    store.merge(KEY, delta("s-2", groups=revenue(2.0), ends="logout"))
    late = store.merge(KEY, delta("s-3", groups=revenue(4.0), started_ago=60_000, last_ago=50_000))
    again = store.merge(KEY, delta("s-4", started_ago=60_000, ends="another"))
    after = store.merge(KEY, delta("s-5"))

    assert [(visit.id, visit.opened) for visit in (late, again)] == [("s-1", False)] * 2
    assert (after.id, after.previous_id, after.opened) == ("s-5", "s-1", True)
    (record,) = ended(store)
    assert (record.id, record.reason, tallies_of(record)) == ("s-1", "logout", [4, 0, 0, 0])
    assert money(store, record) == 7.0
    assert record.last - record.started >= 59_000
    assert store.holdings().open == 1


def test_who_waited_for_the_logout_begins_the_next_visit(make_store):
    """A logout is brought in after its last byte, and by then the next page may have begun: that
    one is no late one.
    """
    store = make_store()

    store.merge(KEY, delta("s-1", started_ago=9000))
    store.merge(KEY, delta("s-2", started_ago=5000, last_ago=4000, ends="logout"))
    before = store.merge(KEY, delta("s-3", started_ago=7000))
    after = store.merge(KEY, delta("s-4", started_ago=3000))

    assert (before.id, after.id, after.previous_id) == ("s-1", "s-4", "s-1")


def test_a_late_page_finds_its_visit_also_behind_the_next_one(make_store):
    """The next visit has begun by then: the page joins the one before, while that waits, and no
    other changes.
    """
    store = make_store()

    store.merge(KEY, delta("s-1", started_ago=9000))
    store.merge(KEY, delta("s-2", started_ago=5000, ends="logout"))
    store.merge(KEY, delta("s-3", started_ago=3000))
    late = store.merge(KEY, delta("s-4", started_ago=7000, groups=revenue(2.0)))
    (first,) = ended(store)
    too_late = store.merge(KEY, delta("s-5", started_ago=7000))
    after = store.merge(KEY, delta("s-6"))

    assert [(visit.id, visit.opened) for visit in (late, too_late, after)] == [
        ("s-1", False),
        ("s-3", False),
        ("s-3", False),
    ]
    assert (first.id, tallies_of(first)[0], first.reason) == ("s-1", 3, "logout")
    end(store, KEY, "logout")
    (second,) = ended(store)
    assert (second.id, tallies_of(second)[0], second.previous) == ("s-3", 3, "s-1")


def test_a_late_page_of_who_was_there_before_ends_nobodys_session(make_store):
    """Ana's page comes when Ben has logged in on her device already: hers joins hers, and his goes
    on.
    """
    store = make_store()

    store.merge(KEY, delta("s-1", context={"user": "ana"}, started_ago=9000, last_ago=8000))
    store.merge(KEY, delta("s-2", context={"user": "ben"}, started_ago=5000))
    late = store.merge(KEY, delta("s-3", context={"user": "ana"}, started_ago=7000))
    his = store.merge(KEY, delta("s-4", context={"user": "ben"}))
    end(store, KEY, "logout")

    assert (late.id, his.id) == ("s-1", "s-2")
    assert sorted((record.id, tallies_of(record)[0], record.reason) for record in ended(store)) == [
        ("s-1", 2, "identified"),
        ("s-2", 2, "logout"),
    ]


@pytest.mark.parametrize(("ago", "overlap"), [(1000, 0), (9000, 0), (0, 2000)])
def test_somebody_elses_request_that_may_overlap_joins(make_store, ago, overlap):
    """It began before the last activity, or so soon after it that a login may still be open: both
    have their account in one session, and the latest says whose it is.
    """
    store, at = make_store(), today()
    ana, ben = {"user": "ana"}, {"user": "ben"}
    store.merge(KEY, delta("s-1", context=ana, started_ago=5000, last_ago=500, now=at))
    his = delta("s-2", context=ben, started_ago=ago, last_ago=min(ago, 600), now=at)
    joined = store.merge(KEY, replace(his, overlap=overlap))
    end(store, KEY)

    (record,) = ended(store)
    assert (joined.id, record.keys) == ("s-1", ana if ago else ben)
    keys = [account for _, account in events_of(record, store.rules).totals]
    assert set(keys) == {(("user", "ana"),), (("user", "ben"),)}


def test_what_comes_after_the_sealing_is_the_next_session(make_store):
    """The report is on its way: even what began before the end cannot change it."""
    store = make_store()

    store.merge(KEY, delta("s-1", ends="logout"))
    assert len(ended(store)) == 1
    late = store.merge(KEY, delta("s-2", started_ago=60_000))

    assert (late.id, late.previous_id, late.opened) == ("s-2", "s-1", True)
    assert store.holdings().ended == 0


def test_a_sweeper_cannot_seal_what_has_grown_since_its_claim(make_store):
    """Its copy is too old: it loses the place, and whoever claims next is handed the whole
    session.
    """
    store = make_store()
    for visitor in ("v-1", "v-2"):
        store.merge(f"session:{visitor}", delta(f"s-{visitor}", ends="logout"))

    places = {
        readable(session.text).id: session.place
        for session in store.claim(10, 60.0, "first", early=True)
    }
    assert store.merge("session:v-1", delta("late", started_ago=60_000)).id == "s-v-1"

    assert store.seal(list(places.values()), [Sealed("p-1", b"[]", 0)], 60.0, "first") == [
        places["s-v-1"]
    ]
    assert store.seal([places["s-v-2"]], [Sealed("p-2", b"[]", 0)], 60.0, "first") == []
    (grown,) = store.claim(10, 60.0, "first", early=True)
    assert (grown.place, tallies_of(readable(grown.text))[0]) == (places["s-v-1"], 2)
    assert store.seal([grown.place], [], 60.0, "first") == []


def test_a_session_that_fell_silent_goes_on_with_a_request_that_began_in_time(make_store):
    """A sweeper has only noticed the silence; until it seals, a slow request finds its session as
    it was.
    """
    store = make_store(idle=60.0)

    store.merge(KEY, delta("s-1", started_ago=70_000, last_ago=60_500))
    claimed = [session.place for session in store.claim(10, 60.0, "first", early=True)]
    slow = store.merge(KEY, delta("s-2", started_ago=50_000))
    next_one = store.merge(KEY, delta("s-3"))

    assert len(claimed) == 1
    assert [(visit.id, visit.opened) for visit in (slow, next_one)] == [("s-1", False)] * 2
    assert (store.holdings().open, store.holdings().ended) == (1, 0)
    assert store.seal(claimed, [Sealed("p-1", b"[]", 0)], 60.0, "first") == claimed
    assert end(store, KEY, "logout") is not None
    (record,) = ended(store)
    assert (record.id, record.reason, tallies_of(record)[0]) == ("s-1", "logout", 3)


def test_a_late_request_of_somebody_else_is_a_session_of_its_own(make_store):
    """Another key of a known kind, or a request that began after the silence, joins no session that
    is over.
    """
    store = make_store(idle=60.0)

    store.merge("session:silent", delta("s-3", started_ago=90_000, last_ago=90_000))
    assert len(store.claim(10, 0.0, "first", early=True)) == 1
    too_late = store.merge("session:silent", delta("s-4", started_ago=20_000))
    ana, ben = {"user": "ana"}, {"user": "ben"}
    store.merge(KEY, delta("s-1", context=ana, started_ago=2000, last_ago=2000, ends="logout"))
    other = store.merge(KEY, delta("s-2", context=ben, started_ago=1000))

    assert (other.id, other.previous_id) == ("s-2", "s-1")
    assert (too_late.id, too_late.previous_id) == ("s-4", "s-3")


def test_what_joins_late_crosses_no_exposure(make_store):
    """A late request brings an exposure that came between what it and others recorded."""
    store, now = make_store(), today()

    store.merge(KEY, delta("s-1", groups=revenue(1.0, at=now - 900), started_ago=1000))
    store.merge(KEY, delta("s-2", groups=revenue(2.0, at=now - 500), started_ago=600, ends="out"))
    joined = store.merge(
        KEY, delta("s-3", exposures={"flag": now - 700}, started_ago=800, joins=True)
    )

    assert joined.id == "s-1"
    (record,) = ended(store)
    assert values_of(record, "revenue.impact", store.rules) == [(1.0, now - 900), (2.0, now - 500)]


def test_what_is_long_gone_is_forgotten(make_store):
    """After `remember` seconds a visitor is a new one."""
    store = make_store(remember=0.02)

    store.merge(KEY, delta("s-1"))
    end(store, KEY, "logout")
    silent()
    store.claim(10, 60.0, "the-test", early=True)

    assert store.merge(KEY, delta("s-2")).previous_id == ""


def test_those_who_are_long_gone_do_not_hold_up_a_sweep(make_store):
    """Any number of forgotten visitors is no reason to claim less than what is over."""
    store = make_store(idle=0.01, remember=0.01)
    for number in range(300):
        store.merge(f"session:gone-{number}", delta())
        end(store, f"session:gone-{number}", "logout")
    assert len(ended(store)) == 300
    store.merge(KEY, delta("s-1"))
    silent()

    assert [
        session.text and readable(session.text).id
        for session in store.claim(10, 60.0, "the-test", early=True)
    ] == ["s-1"]


def test_a_session_that_fell_silent_cannot_be_ended_later(make_store):
    """It has ended by itself: it keeps that as its reason, and its end does not move to now."""
    store = make_store(idle=0.02)

    store.merge(KEY, delta("s-1"))
    silent()

    assert end(store, KEY, "logout", active=True) is None
    (record,) = ended(store)
    assert (record.reason, record.last - record.started) == ("", 0)


def test_the_end_may_be_the_last_activity(make_store):
    """`active` counts the duration to the end itself."""
    store = make_store()

    store.merge(KEY, delta("s-1", last_ago=1000, started_ago=1000))
    idle = readable(end(store, KEY, "ended"))
    store.merge("session:v-2", delta("s-2", last_ago=1000, started_ago=1000))
    active = readable(end(store, "session:v-2", "ended", active=True))

    assert idle.last == idle.started
    assert active.last - active.started >= 1000


def test_a_delta_that_only_joins_opens_nothing(make_store):
    """Without an open session it is answered with None, and leaves no trace."""
    store = make_store(idle=60.0)

    assert store.merge(KEY, delta("s-1", joins=True)) is None
    store.merge(KEY, delta("s-1", tallies=(0, 0, 0, 0)))
    assert store.merge(KEY, delta("s-2", joins=True)).id == "s-1"
    store.merge("session:silent", delta("s-3", started_ago=70_000, last_ago=70_000))
    assert store.merge("session:silent", delta("s-4", joins=True)) is None
    end(store, KEY, "ended")

    assert sorted((record.id, tallies_of(record)[0]) for record in ended(store)) == [
        ("s-1", 1),
        ("s-3", 1),
    ]


def test_identity_widens_and_somebody_else_is_another_session(make_store):
    """Who is unknown becomes known, another kind joins; somebody else is another visitor."""
    store = make_store()

    store.merge(KEY, delta("s-1"))
    store.merge(KEY, delta("s-2", context={"user": "ana"}))
    store.merge(KEY, delta("s-3"))
    widened = store.merge(KEY, delta("s-4", context={"user": "ana", "organization": "acme"}))
    other = store.merge(KEY, delta("s-5", context={"user": "ben"}))

    assert widened.context == {"user": "ana", "organization": "acme"}
    assert (other.id, other.previous_id, other.context) == ("s-5", "s-1", {"user": "ben"})
    (record,) = ended(store)
    assert (record.reason, tallies_of(record)[0], record.keys) == (
        "identified",
        4,
        widened.context,
    )


@pytest.mark.parametrize("device", [{}, {"device": "d-1"}], ids=["user", "user and device"])
def test_a_request_that_became_somebody_may_come_after_one_of_theirs(make_store, device):
    """Ana's request logs Ben in; a request of Ben's that it overlaps is merged first."""
    store = make_store()
    becomes = {"user": "ben", **device}

    store.merge(KEY, delta("s-1", context=becomes))
    late = store.merge(
        KEY, replace(delta("s-2", context={"user": "ana"}, started_ago=500), becomes=becomes)
    )
    other = store.merge(
        KEY, replace(delta("s-3", context={"user": "ana"}), becomes={"user": "eve"})
    )

    assert (late.id, late.context, late.opened) == ("s-1", becomes, False)
    assert (other.id, other.previous_id) == ("s-3", "s-1")
    (record,) = ended(store)
    assert (record.id, record.reason, record.keys) == ("s-1", "identified", becomes)


def test_a_key_that_changes_beside_one_that_stays_is_the_same_visit(make_store):
    """A fresh request key per request, or another user of the same organization."""
    store = make_store()

    refs = [
        store.merge(KEY, delta(f"s-{turn}", context={"user": "ana", "request": f"r-{turn}"}))
        for turn in range(4)
    ]
    end(store, KEY)

    assert {ref.id for ref in refs} == {"s-0"}
    assert refs[-1].context == {"user": "ana", "request": "r-3"}
    (record,) = ended(store)
    totals = [
        (keys, event.value)
        for event, keys in events_of(record, store.rules).totals
        if event.event_key == "session.interactions"
    ]
    assert sorted(totals) == [
        *(((("request", f"r-{turn}"),), 1) for turn in range(4)),
        ((("user", "ana"),), 4),
    ]


def test_no_fold_crosses_an_exposure(make_store):
    """What was recorded on either side of an exposure becomes two events, in whichever order the
    requests that recorded and saw it were merged, and whoever of them saw it.
    """
    now = today()
    deltas = [
        delta(groups=revenue(1.0, at=now - 900), started_ago=1000),
        delta(groups=revenue(2.0, at=now - 800), started_ago=1000),
        delta(exposures={"a": now - 700}, started_ago=1000, tallies=(0, 0, 0, 0)),
        delta(groups=revenue(4.0, at=now - 600), exposures={"a": now - 500}, started_ago=1000),
    ]
    for order in (deltas, deltas[::-1]):
        store = make_store()
        for change in order:
            store.merge(KEY, change)
        end(store, KEY)
        (record,) = ended(store)

        assert sorted(values_of(record, "revenue.impact", store.rules)) == [
            (3.0, now - 800),
            (4.0, now - 600),
        ]


def test_what_lies_on_both_sides_of_an_exposure_counts_before_it(make_store):
    """Its parts cannot be told apart any more: dated after it, they would all count."""
    store, now = make_store(), today()

    store.merge(
        KEY,
        delta(groups={"s1revenue.impact\n": (9.0, 2, now - 900, now - 100, None, None)}),
    )
    store.merge(KEY, delta(exposures={"a": now - 500}))
    end(store, KEY)

    (record,) = ended(store)
    assert values_of(record, "revenue.impact", store.rules) == [(9.0, now - 501)]


def test_a_session_does_not_grow_for_ever(make_store):
    """A long visit is folded on the way; the report is that of one that was not."""
    store, now = make_store(), today()
    many = MOST_LINES * 4

    for turn in range(many):
        at = now - 10_000 + turn
        store.merge(
            KEY,
            delta(
                context={"user": "ana"},
                groups=revenue(1.0, at=at),
                exposures={"a": now - 10_000 + many // 2},
                started_ago=10_000 - turn,
                last_ago=10_000 - turn,
                now=now,
            ),
        )
    text = end(store, KEY)

    assert len(text) < 5000
    (record,) = ended(store)
    assert len(record.lines) <= MOST_LINES + 1
    assert tallies_of(record) == [many, 0, 0, 0]
    assert values_of(record, "revenue.impact", store.rules) == [
        (many / 2, now - 10_000 + many // 2 - 1),
        (many / 2, now - 10_000 + many - 1),
    ]


def test_a_visit_of_a_few_long_requests_is_folded_by_its_bytes(make_store):
    """Data that is always another, and long: it leaves early, whole."""
    store, now = make_store(), today()

    for turn in range(12):
        groups = {
            f's1money.{number}\n{{"n":{turn},"text":"{"x" * 200}"}}': (1.0, 1, now, now, None, None)
            for number in range(40)
        }
        store.merge(KEY, delta(context={"user": "ana"}, groups=groups, now=now))
        store.merge(KEY, delta(context={"user": "ana"}, groups=revenue(1.0, at=now), now=now))
    text = end(store, KEY)

    assert len(text) < 20_000
    records = ended(store)
    events = [event for record in records for event, _ in events_of(record, store.rules).values]
    assert sum(event.value for event in events) == 12 * 40 + 12


def test_accounts_that_are_over_leave_a_long_visit_early(make_store):
    """Each request key has its events once, and the user their visit once."""
    store, many = make_store(), MOST_LINES * 3
    now = today()

    for turn in range(many):
        ago = 10_000 - turn * 10
        context = {"user": "ana", "request": f"r-{turn}"}
        groups = revenue(2.0**turn, at=now - ago)
        store.merge(
            KEY, delta(context=context, groups=groups, started_ago=ago, last_ago=ago, now=now)
        )
    assert len(end(store, KEY)) < 10_000

    records = ended(store)
    assert len(records) > 1
    interactions, money = {}, 0
    for record in records:
        events = events_of(record, store.rules)
        for event, keys in events.totals:
            if event.event_key == "session.interactions":
                interactions[keys] = (*interactions.get(keys, ()), event.value)
        money += sum(event.value for event, _ in events.values)
    assert interactions == {
        (("user", "ana"),): (many,),
        **{(("request", f"r-{turn}"),): (1,) for turn in range(many)},
    }
    assert money == 2.0**many - 1


def test_values_that_do_not_fold_leave_a_long_visit_early(make_store):
    """Each with data of its own: none is lost, none comes twice."""
    store, many = make_store(), 150

    for number in range(many):
        store.merge(
            KEY, delta(context={"user": "ana"}, groups=revenue(1.0, data=f'{{"n":{number}}}'))
        )
    end(store, KEY)

    records = ended(store)
    assert len(records) > 1
    assert max(len(record.text()) for record in records) < 20_000
    assert sum(len(events_of(record, store.rules).values) for record in records) == many
    assert [len(events_of(record, store.rules).totals) for record in records].count(3) == 1


def test_an_exposure_between_two_requests_divides_them(make_store):
    """Nobody's request was open then; the next one, much later, brings it."""
    store, now = make_store(), today()
    long_ago = now - 1_500_000

    store.merge(
        KEY,
        delta(groups=revenue(1.0, at=long_ago), started_ago=1_500_000, last_ago=1_500_000, now=now),
    )
    store.merge(KEY, delta(groups=revenue(2.0, at=now), exposures={"a": now - 1_400_000}, now=now))
    store.merge(KEY, delta(exposures={"b": long_ago - 86_000_000}, now=now))
    end(store, KEY)

    (record,) = ended(store)
    assert len(record.exposures) == 1
    assert values_of(record, "revenue.impact", store.rules) == [(1.0, long_ago), (2.0, now)]


def test_an_exposure_of_a_request_whose_clock_was_set_forward_is_kept(make_store):
    """Dated an hour before the beginning of the visit, as its clock says at the end."""
    store, now, hour = make_store(), today(), 3_600_000
    store.merge(
        KEY,
        delta(exposures={"a": now - hour - 100}, started_ago=1000, now=now, shift=hour),
    )
    end(store, KEY)

    (record,) = ended(store)
    assert list(record.exposures.values()) == [now - hour - 100]


@pytest.mark.parametrize("ends", ["", "logout"])
def test_an_end_is_not_before_an_exposure_that_is_known(make_store, ends):
    """A worker whose clock is behind that of another one ends the visit: everybody counts."""
    store, now = make_store(), today()
    ahead = now + 600_000
    store.merge(KEY, delta(context={"user": "ana"}, exposures={"a": ahead}, now=ahead))
    store.merge(KEY, delta(context={"user": "ana"}, now=now, ends=ends))
    if not ends:
        end(store, KEY)

    (record,) = ended(store)
    ((_, at),) = values_of(record, "session.duration", store.rules)
    assert at >= ahead


def test_workers_whose_clocks_differ_make_one_visit(make_store):
    """Minutes apart: each worker's events carry its own dates, and the visit lasted what it did."""
    store, now, skew = make_store(), today(), 600_000
    context = {"user": "ana"}

    store.merge(
        KEY,
        delta(context=context, groups=revenue(1.0, at=now - 5000), started_ago=5000, last_ago=4000),
    )
    store.merge(
        KEY,
        delta(
            context=context,
            groups=revenue(2.0, at=now + skew),
            exposures={"a": now + skew - 100},
            started_ago=1000,
            now=now + skew,
        ),
    )
    end(store, KEY)

    (record,) = ended(store)
    assert values_of(record, "revenue.impact", store.rules) == [
        (1.0, now - 5000),
        (2.0, now + skew),
    ]
    ((duration, _),) = values_of(record, "session.duration", store.rules)
    assert 4900 <= duration <= 60_000


def test_numbers_keep_every_digit(make_store):
    """Sums are exact where doubles are, and the last value of equally late ones is the larger."""
    store = make_store()
    values = [0.1, 2**52 + 1.0, 1e-300, 123456789.123456789, 1e300]

    for number, value in enumerate(values):
        store.merge(KEY, delta(groups={f"l1gauge.{number}\n": (value, 1, 0, 0, value, value)}))
    end(store, KEY, "ended")

    (record,) = ended(store)
    assert [
        values_of(record, f"gauge.{number}", store.rules)[0][0] for number in range(len(values))
    ] == values


def test_texts_survive(make_store):
    """Quotes, newlines, other alphabets and very odd keys come back as they went."""
    store = make_store()
    odd = 'a"\\\n\u2028é{}😀'

    store.merge(
        f"session:{odd}", delta(odd, context={"user": odd}, data='{"who":"é\\n"}', name="chat")
    )
    end(store, f"session:{odd}", odd)

    (record,) = ended(store)
    assert (record.id, record.keys, record.data, record.name) == (
        odd,
        {"user": odd},
        '{"who":"é\\n"}',
        "chat",
    )
    assert record.reason == odd


def test_a_lease_keeps_others_away_and_runs_out(make_store):
    """What one has claimed nobody else is handed, until the lease has run out; then the first one
    is too late.
    """
    store = make_store()
    store.merge(KEY, delta())
    end(store, KEY, "ended")

    (mine,) = store.claim(10, 0.0, "first", early=True)
    (theirs,) = store.claim(10, 60.0, "second", early=True)
    assert store.claim(10, 60.0, "third", early=True) == []

    assert theirs == mine
    assert store.seal([mine.place], [Sealed("p-1", b"[]", 0)], 60.0, "first") == [mine.place]
    assert store.holdings().sealed == 0
    assert store.seal([theirs.place], [Sealed("p-2", b"[]", 0)], 60.0, "second") == []
    assert store.seal([theirs.place], [Sealed("p-3", b"[]", 0)], 60.0, "second") == [theirs.place]
    assert (store.holdings().ended, store.holdings().sealed) == (0, 1)


def test_a_lease_lasts_for_as_long_as_it_was_given(make_store):
    """Of a session as of a sealed payload: a worker that dies holding one delays it, no more."""
    store = make_store()
    store.merge(KEY, delta())
    end(store, KEY, "ended")
    found = []

    began = time.monotonic()
    (place,) = [session.place for session in store.claim(10, 0.3, "first", early=True)]
    until(lambda: found.extend(store.claim(10, 60.0, "second", early=True)) or found, 10.0)
    assert time.monotonic() - began > 0.28
    assert [session.place for session in found] == [place]
    store.seal([place], [Sealed("p-1", b"[]", 0)], 0.3, "second")
    began, found = time.monotonic(), []
    until(lambda: found.extend(store.claim_sealed(10, 60.0, "third")) or found, 10.0)
    assert time.monotonic() - began > 0.28
    assert [payload.id for payload in found] == ["p-1"]


def test_sealing_is_all_or_nothing(make_store):
    """One lost session keeps the whole batch from being sealed; the rest may be sealed without
    it.
    """
    store = make_store(window=ONE_WINDOW)
    for number in range(3):
        store.merge(f"session:{number}", delta())
        end(store, f"session:{number}", "ended")
    (taken,) = store.claim(1, 0.0, "first", early=True)
    places = [session.place for session in store.claim(3, 60.0, "second", early=True)]
    assert taken.place in places
    store.seal([taken.place], [], 60.0, "second")

    assert store.seal(places, [Sealed("p-1", b"[]", 0)], 60.0, "second") == [taken.place]
    rest = [place for place in places if place != taken.place]
    assert store.seal(rest, [Sealed("p-1", b"[]", 0)], 60.0, "second") == []
    assert (store.holdings().ended, store.holdings().sealed) == (0, 1)


def test_a_sealed_payload_comes_back_with_the_same_id_and_bytes_until_it_is_acknowledged(
    make_store,
):
    """A worker that dies after sealing leaves exactly what it would have sent."""
    store = make_store()
    store.merge(KEY, delta())
    end(store, KEY, "ended")
    places = [session.place for session in store.claim(10, 60.0, "first", early=True)]
    body = bytes(range(256))

    store.seal(places, [Sealed("p-1", body, 3, True)], 60.0, "first")
    assert store.claim_sealed(10, 60.0, "second") == []
    store.postpone("p-1", 0.0)
    (again,) = store.claim_sealed(10, 60.0, "second")

    assert (again.id, again.body, again.events, again.zipped, again.attempts) == (
        "p-1",
        body,
        3,
        True,
        2,
    )
    assert 0 <= again.age < 60
    assert store.claim_sealed(10, 60.0, "third") == []
    store.postpone("p-1", 0.0)
    assert [payload.attempts for payload in store.claim_sealed(10, 60.0, "third")] == [3]
    store.acknowledge("p-1")
    store.acknowledge("p-1")
    store.postpone("p-1", 0.0)
    assert (store.claim_sealed(10, 0.0, "fourth"), store.holdings().sealed) == ([], 0)


def test_a_payload_that_is_too_large_is_replaced_by_halves(make_store):
    """Both halves are there, or neither; an acknowledged one is not brought back."""
    store = make_store()
    store.merge(KEY, delta())
    end(store, KEY, "ended")
    places = [session.place for session in store.claim(10, 60.0, "first", early=True)]
    store.seal(places, [Sealed("p-1", b"[1,2]", 2)], 60.0, "first")

    store.replace("p-1", [Sealed("p-2", b"[1]", 1), Sealed("p-3", b"[2]", 1)])
    store.replace("p-1", [Sealed("p-4", b"[1]", 1)])

    assert sorted(payload.id for payload in store.claim_sealed(10, 60.0, "first")) == ["p-2", "p-3"]


def test_claims_are_bounded_and_disjoint(make_store):
    """Many sweepers at once share what is over: every session is handed to exactly one of them."""
    store = make_store(idle=0.01)
    for number in range(60):
        store.merge(f"session:{number}", delta(f"s-{number}"))
    silent()
    seen, lock = [], threading.Lock()

    def sweep(owner):
        while claimed := store.claim(7, 60.0, owner, early=True):
            assert len(claimed) <= 7
            with lock:
                seen.extend(readable(session.text).id for session in claimed)

    threads = [threading.Thread(target=sweep, args=(f"owner-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(seen) == sorted(f"s-{number}" for number in range(60))


def test_open_sessions_are_not_claimed(make_store):
    """Only what is over is handed out; holdings tell the three apart."""
    store = make_store()
    store.merge(KEY, delta())

    assert store.claim(10, 60.0, "first", early=True) == []
    assert (store.holdings().open, store.holdings().ended, store.holdings().sealed) == (1, 0, 0)


def test_a_repeated_merge_counts_once_where_time_outs_can_happen(make_store):
    """A shared server knows the names of merges; the others fail or succeed, and never leave it
    open.
    """
    store = make_store()
    named = delta(groups=revenue(5.0), operation=Operation("worker", 7))

    store.merge(KEY, named)
    if type(store).__name__ == "RedisStore":
        store.merge(KEY, named)
        end(store, KEY, "ended")
        store.merge(KEY, named)
        assert store.holdings().open == 0
    else:
        end(store, KEY, "ended")

    (record,) = ended(store)
    assert (tallies_of(record)[0], money(store, record)) == (1, 5.0)


def test_once(make_store):
    """A key is taken by one of many who ask at the same time; other keys are free."""
    store = make_store()
    taken = []

    def ask(number):
        taken.append(store.once("feedback:a", 60.0))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken) == [False] * 7 + [True]
    assert store.once("feedback:b", 60.0)


def test_once_for_a_while(make_store):
    """When its time is over a key can be taken again."""
    store = make_store()

    assert store.once("feedback:a", 2.0)
    assert not store.once("feedback:a", 60.0)
    until(lambda: store.once("feedback:a", 60.0))
    assert not store.once("feedback:a", 60.0)


def test_a_long_visit_has_one_session_of_each_who_overlapped(make_store):
    """Ana's slow requests go on beside Ben's, with an exposure in them: folded as older lines, they
    are one session of hers all the same.
    """
    store, now = make_store(), today()
    groups = revenue(1.0, at=now - 9000) | {
        "s1late\n": (1.0, 1, now - 2000, now - 2000, None, None)
    }
    ana = {"context": {"user": "ana"}, "exposures": {"a": now - 3000}, "groups": groups}
    store.merge(KEY, delta("s-1", started_ago=10_000, last_ago=1000, now=now, **ana))
    store.merge(KEY, delta(context={"user": "ben"}, started_ago=5000, last_ago=900, now=now))
    for _ in range(MOST_LINES):
        store.merge(KEY, delta(context={"user": "ben"}, started_ago=800, last_ago=700, now=now))
        store.merge(KEY, delta(context={"user": "ana"}, started_ago=9500, last_ago=1000, now=now))
    end(store, KEY)

    told = [
        account
        for record in ended(store)
        for event, account in events_of(record, store.rules).totals
        if event.event_key == "session.duration"
    ]
    assert sorted(told) == [(("user", "ana"),), (("user", "ben"),)]
