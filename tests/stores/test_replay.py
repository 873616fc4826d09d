"""`replay`: what LaunchDarkly counts of visits over requests, workers and clocks of all kinds."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import time
from collections import Counter

import pytest
from laboratory import keys_of, laboratory
from ldclient import Context
from stores_builders import today

from ldinstrument import session, stats
from ldinstrument.devserver import experiment_flag
from ldinstrument.sessions.current import entered
from ldinstrument.sessions.exposures import exposures
from ldinstrument.sessions.scopes import open_session
from ldinstrument.stores import MemoryStore, Rules, end_request, end_session, open_store, sweep
from ldinstrument.stores.deltas import HOST, StoredSegment, encoded
from ldinstrument.stores.records import Record
from ldinstrument.stores.replay import events_of
from ldinstrument.stores.sqlite import SqliteStore


@pytest.fixture(name="lab", scope="module")
def _lab():
    with laboratory() as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_seen(lab):
    lab.server.reset()
    lab.server.set_flag(experiment_flag("flag", ["a", "b"]))
    lab.until_served()


def values(lab, key, kind="user"):
    """The values of all events of a key, by whom they are for."""
    found: dict[str, list[object]] = {}
    for event in lab.server.custom_events(key):
        keys = keys_of(event)
        if kind in keys:
            found.setdefault(keys[kind], []).append(event.get("metricValue"))
    return found


def report(lab, store, visitor):
    """End a visit and have everything delivered."""
    end_session(store, visitor)
    assert sweep(store).error == ""
    lab.flush()


def test_overlapping_requests_are_divided_where_one_of_them_was_exposed(make_store, keep, lab):
    """What a request held before another one's exposure does not count, what came after does."""
    store, user = keep(make_store(), client=lab.client), f"ana-{time.time_ns()}"
    slow, quick = (open_session(user, client=lab.client, store=store) for _ in range(2))

    slow.revenue(100)
    slow.interaction()
    with entered(quick):
        lab.expose(user)
    slow.revenue(10)
    end_request(quick, store, "v")
    end_request(slow, store, "v")
    report(lab, store, "v")

    assert lab.counted("revenue.impact", user) == [10]
    assert sorted(values(lab, "revenue.impact")[user]) == [10, 100]
    assert lab.counted("session.interactions", user) == [0]
    assert len(lab.counted("session.duration", user)) == 1


WORKER = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, sys.argv[4])
    from laboratory import client_of
    from types import SimpleNamespace
    from ldinstrument import session, stats
    from ldinstrument.stores import open_store
    address, url, user = sys.argv[1:4]
    client = client_of(SimpleNamespace(url=url))
    store = open_store(address, sweep=False, client=client)
    with session(user, id="v", store=store, client=client):
        client.variation("flag", __import__("ldclient").Context.create(user), None)
    client.close()
    store.close()
    """
)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_an_exposure_in_another_worker_divides_a_request_that_goes_on(kind, lab, tmp_path, request):
    """Its process never hears of it: the store does, from that worker's part of the visit."""
    address = f"sqlite:///{tmp_path}/x.db?timeout=5"
    if kind == "redis":
        address = request.getfixturevalue("redis_of_its_own").url + "?timeout=5"
    user, folder = f"ana-{time.time_ns()}", sys.modules["laboratory"].__file__.rpartition("/")[0]
    with open_store(address, sweep=False, client=lab.client) as store:
        here = open_session(user, client=lab.client, store=store)
        here.revenue(100)
        here.interaction()
        command = [sys.executable, "-c", WORKER, address, lab.server.url, user, folder]
        subprocess.run(command, check=True, timeout=100)
        here.revenue(10)
        end_request(here, store, "v")
        report(lab, store, "v")

    assert lab.counted("revenue.impact", user) == [10]
    assert lab.counted("session.interactions", user) == [0]


def test_an_exposure_that_comes_after_its_values_have_folded_is_counted(lab, keep, tmp_path):
    """Beyond the entries that are kept apart for it, a sum counts as before it; it is said."""
    address = f"sqlite:///{tmp_path}/x.db?timeout=5"
    user, folder = f"ana-{time.time_ns()}", sys.modules["laboratory"].__file__.rpartition("/")[0]
    command = [sys.executable, "-c", WORKER, address, lab.server.url, user, folder]
    with open_store(address, sweep=False, client=lab.client) as store:
        here = open_session(user, client=lab.client, store=store)
        for _ in range(40):
            here.revenue(1)
            time.sleep(0.002)
        subprocess.run(command, check=True, timeout=100)
        here.revenue(10)
        end_request(here, store, "v")
        report(lab, store, "v")

    counted, told = lab.counted("revenue.impact", user), stats().sessions["session"]
    assert (counted, told.unseen, told.diluted) == ([], 1, 1)
    assert ("unseen_exposure", "session") in stats().warnings


@pytest.mark.parametrize("ahead", [-10_000, 10, 10_000])
def test_a_store_whose_clock_is_elsewhere_dates_nothing(lab, keep, ahead):
    """A server 10 ms behind made what came after an exposure vanish; how long a visit lasted is
    right all the same.
    """
    raw = MemoryStore(Rules(), clock=lambda: today() + ahead)
    store, user = keep(raw, client=lab.client), f"ana-{time.time_ns()}"
    before = today()

    for money in (1, 2):
        with session(user, id="v", store=store, client=lab.client) as visit:
            lab.expose(user)
            visit.revenue(money)
            visit.interaction()
    report(lab, store, "v")

    assert lab.counted("revenue.impact", user) == [3]
    assert lab.counted("session.interactions", user) == [2]
    (duration,) = lab.counted("session.duration", user)
    assert 0 < duration <= today() - before


def test_a_sqlite_clock_that_is_behind_dates_nothing(lab, keep, tmp_path, monkeypatch):
    """The same for the clock of the machine that SQLite reads."""
    queries = sys.modules["ldinstrument.stores.sqlite"]
    now = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
    monkeypatch.setattr(queries, "_NOW", queries._NOW.replace(now, f"{now} - 2000"))
    store = keep(SqliteStore(tmp_path / "x.db"), client=lab.client)
    user = f"ana-{time.time_ns()}"

    with session(user, id="v", store=store, client=lab.client) as visit:
        lab.expose(user)
        visit.revenue(5)
    report(lab, store, "v")

    assert lab.counted("revenue.impact", user) == [5]
    assert len(lab.counted("session.duration", user)) == 1


def test_an_exposure_after_the_last_activity_still_counts_the_visit(lab, keep):
    """A visit is over when it has been silent for `idle`: until then, exposures made elsewhere,
    such as in a browser, find its events.
    """
    ahead = [0]
    raw = MemoryStore(Rules(idle=60.0), clock=lambda: today() + ahead[0])
    store, user = keep(raw, client=lab.client), f"ana-{time.time_ns()}"

    with session(user, id="v", store=store, client=lab.client) as visit:
        visit.interaction()
    lab.elsewhere(lambda: lab.expose(user))
    ahead[0] = 61_000  # the store's clock alone says that it was silent
    sweep(store)
    lab.flush()

    assert len(lab.counted("session.duration", user)) == 1
    assert lab.counted("session.success_rate", user) == [100.0]


@pytest.mark.parametrize("rules", [Rules(idle=60.0), Rules(idle=600.0, maximum=60.0)])
def test_a_visit_ends_by_itself_after_the_exposures_of_a_worker_that_is_ahead(
    keep, lab, monkeypatch, rules
):
    """Else it would count for nobody: its end is dated by the worker that was there last."""
    ahead, real = [0.0], time.time
    raw = MemoryStore(rules, clock=lambda: int(real() * 1000 + ahead[0]))
    store, user = keep(raw, client=lab.client), f"ben-{time.time_ns()}"
    for by in (0, 90, 0):
        with monkeypatch.context() as there:
            there.setattr(time, "time", lambda by=by: real() + by)
            request = open_session(user, client=lab.client, store=store)
            request.interaction()
            if by:
                with entered(request):
                    lab.expose(user)
            end_request(request, store, "v")
        exposures.clear()  # the next worker has seen none
    ahead[0] = 1_300_000.0
    assert sweep(store).error == ""
    lab.flush()

    assert lab.counted("session.success_rate", user) == [100.0]
    assert len(lab.counted("session.duration", user)) == 1


def test_a_fresh_request_key_per_request_leaves_the_users_visit_whole(make_store, keep, lab):
    """One visit per user, however many requests; each request has events of its own."""
    store, run = keep(make_store(), client=lab.client), time.time_ns()

    for visitor in range(3):
        for turn in range(4):
            opened = open_session(client=lab.client, store=store)
            who = Context.create(f"user-{visitor}-{run}")
            which = Context.create(f"request-{visitor}-{turn}-{run}", "request")
            opened.identify(Context.create_multi(who, which))
            opened.interaction()
            opened.revenue(turn)
            end_request(opened, store, f"v-{visitor}")
        end_session(store, f"v-{visitor}")
    sweep(store)
    lab.flush()

    users, requests = (values(lab, "session.interactions", kind) for kind in ("user", "request"))
    assert users == {f"user-{visitor}-{run}": [4] for visitor in range(3)}
    assert len(requests) == 12
    assert set(map(tuple, requests.values())) == {(1,)}
    assert [len(found) for found in values(lab, "session.duration").values()] == [1, 1, 1]
    money = values(lab, "revenue.impact")
    assert {user: sum(found) for user, found in money.items()} == dict.fromkeys(users, 6)


def test_somebody_else_in_a_stored_block_takes_nothing_along(make_store, keep, lab):
    """Nine successes are the first one's, the failure is the second one's."""
    store, run = keep(make_store(), client=lab.client), time.time_ns()

    with session(f"ana-{run}", id="v", store=store, client=lab.client) as visit:
        for _ in range(9):
            visit.interaction()
        visit.identify(f"ben-{run}")
        visit.interaction(False)
    report(lab, store, "v")

    assert values(lab, "session.interactions") == {f"ana-{run}": [9], f"ben-{run}": [1]}
    assert values(lab, "session.success_rate") == {f"ana-{run}": [100.0], f"ben-{run}": [0.0]}
    reasons = {
        event["context"]["key"]: event["data"]["endReason"]
        for event in lab.server.custom_events("session.interactions")
    }
    assert reasons == {f"ana-{run}": "identified", f"ben-{run}": "ended"}


def test_a_key_that_comes_back_has_a_new_account(make_store, keep, lab):
    """Each stretch of it is a session of its own; the one in between is over when it is left."""
    store, run = keep(make_store(), client=lab.client), time.time_ns()

    with session(f"ana-{run}", id="v", store=store, client=lab.client) as visit:
        visit.interaction()
        visit.interaction()
        visit.identify(f"ben-{run}")
        visit.interaction(False)
        time.sleep(0.01)
        visit.identify(f"ana-{run}")
        visit.interaction()
    lab.elsewhere(lambda: lab.expose(f"ben-{run}"))
    report(lab, store, "v")

    found = values(lab, "session.interactions")
    assert sorted(filter(None, found[f"ana-{run}"])) == [1, 2]
    assert found[f"ben-{run}"] == [1]
    assert lab.counted("session.duration", f"ben-{run}") == []


def test_requests_that_overlap_keep_their_accounts(make_store, keep, lab):
    """Their entries lie between each other's: each request key has one account all the same."""
    store, run = keep(make_store(), client=lab.client), time.time_ns()
    ana = Context.create(f"ana-{run}")
    opened = []
    for turn in range(2):
        which = Context.create(f"request-{turn}-{run}", "request")
        who = Context.create_multi(ana, which)
        opened.append(open_session(who, client=lab.client, store=store))
    for _ in range(3):
        for request in opened:
            request.interaction()
            time.sleep(0.002)
    for request in opened:
        end_request(request, store, "v")
    report(lab, store, "v")

    assert values(lab, "session.interactions", "request") == {
        f"request-{turn}-{run}": [3] for turn in range(2)
    }
    assert values(lab, "session.interactions") == {f"ana-{run}": [6]}


@pytest.mark.parametrize("seconds", [5, 600, -600])
def test_a_clock_that_is_set_ages_nothing(make_store, keep, lab, monkeypatch, seconds):
    """A request becomes Ben's while one of Ana's is open, and the wall clock is set before both
    end: she had one session, he has one, and they lasted no longer than that.
    """
    store, run = keep(make_store(), client=lab.client), time.time_ns()
    ana, ben = (Context.create(f"{name}-{run}") for name in ("ana", "ben"))
    real = time.time

    login, page = (open_session(ana, client=lab.client, store=store) for _ in range(2))
    login.interaction()
    time.sleep(0.002)
    page.interaction()
    lab.expose(ana)
    end_request(page, store, "v")
    login.identify(ben)
    login.interaction()
    monkeypatch.setattr(time, "time", lambda: real() + seconds)
    lab.expose(ben)
    login.revenue(5)
    end_request(login, store, "v")
    report(lab, store, "v")

    durations = values(lab, "session.duration")
    assert {who: len(found) for who, found in durations.items()} == {ana.key: 1, ben.key: 1}
    assert all(0 <= value < 5000 for found in durations.values() for value in found)
    assert lab.counted("session.interactions", ana.key) == [0]
    assert lab.counted("session.interactions", ben.key) == [0]
    assert lab.counted("revenue.impact", ben.key) == [5]


def test_wanted_metrics_are_kept(make_store, keep, lab):
    """`metrics=` of a stored session decides which events its visit becomes."""
    store, user = keep(make_store(), client=lab.client), f"ana-{time.time_ns()}"
    wanted = ("successes", "unfinished")

    for success in (True, False):
        with session(user, id="v", store=store, client=lab.client, metrics=wanted) as visit:
            visit.interaction(success)
    report(lab, store, "v")

    found = Counter(event["key"] for event in lab.server.custom_events())
    assert found == {"session.successes": 1, "session.unfinished": 1}
    assert values(lab, "session.successes")[user] == [1]
    assert values(lab, "session.unfinished")[user] == [0]


def test_an_occurrence_counts_whenever_its_exposure_was(make_store, keep, lab):
    """Sent twice at most, dated to its first and its last."""
    store, user = keep(make_store(), client=lab.client), f"ana-{time.time_ns()}"

    for turn in range(4):
        with session(user, id="v", store=store, client=lab.client) as visit:
            visit.satisfaction(10)
            if turn == 1:
                lab.expose(user)
        time.sleep(0.002)
    report(lab, store, "v")

    assert len(values(lab, "user.negative_feedback")[user]) == 2
    assert len(lab.counted("user.negative_feedback", user)) == 1


def test_an_exposure_after_an_occurrence_is_no_activity(make_store, keep, lab):
    """An occurrence is told whole at the end; what it lies before makes the visit no longer."""
    store, user = keep(make_store(), client=lab.client), f"ana-{time.time_ns()}"

    began = time.monotonic()
    with session(user, id="v", store=store, client=lab.client) as visit:
        time.sleep(0.002)
        visit.satisfaction(10)
        lasted = (time.monotonic() - began) * 1000
        time.sleep(0.3)
        lab.expose(user)
    report(lab, store, "v")

    (duration,) = lab.counted("session.duration", user)
    assert duration <= lasted + 2  # of two dates in whole milliseconds
    assert lab.counted("user.negative_feedback", user) == []


def test_a_request_that_learns_of_another_kind_was_theirs_from_the_start(make_store, keep, lab):
    """Nothing was recorded in it yet, and it began before Ben came: Ana has one session."""
    store, run = keep(make_store(), client=lab.client), time.time_ns()
    ana, ben = f"ana-{run}", f"ben-{run}"

    page, other, login = (open_session(ana, client=lab.client, store=store) for _ in range(3))
    other.interaction()
    time.sleep(0.3)
    login.interaction()
    login.identify(ben)
    time.sleep(0.3)
    page.identify(
        Context.create_multi(Context.create(ana), Context.create(f"device-{run}", "device"))
    )
    for request in (login, other, page):
        end_request(request, store, "v")
    report(lab, store, "v")

    assert {who: len(found) for who, found in values(lab, "session.duration").items()} == {
        ana: 1,
        ben: 1,
    }


def test_a_login_makes_one_session_of_each_whatever_overlaps_it(make_store, keep, lab):
    """Two of Ana's requests go on beside the one in which she becomes Ben, and one of his begins
    meanwhile: whichever ends first, each has one session.
    """
    store, run = keep(make_store(), client=lab.client), time.time_ns()
    orders = [*itertools.permutations(["login", "page", "slow", "his"])]
    anas, bens = (
        [Context.create(f"{name}-{number}-{run}") for number in range(len(orders))]
        for name in ("ana", "ben")
    )
    visits = [
        {
            name: open_session(ana, client=lab.client, store=store)
            for name in ("page", "slow", "login")
        }
        for ana in anas
    ]
    for visit in visits:
        visit["page"].interaction()
    # All visits wait together: longer than a delta may be on its way to a store on a full machine.
    time.sleep(0.5)
    for visit, ben in zip(visits, bens, strict=True):
        visit["login"].identify(ben)
    time.sleep(0.5)
    for visit, ben in zip(visits, bens, strict=True):
        visit["his"] = open_session(ben, client=lab.client, store=store)
        for request in visit.values():
            request.interaction()
    for number, (order, visit) in enumerate(zip(orders, visits, strict=True)):
        for name in order:
            end_request(visit[name], store, f"v-{number}")
        report(lab, store, f"v-{number}")

    told, interactions = values(lab, "session.duration"), values(lab, "session.interactions")
    assert {len(found) for found in told.values()} == {1}
    assert len(told) == 48
    assert {tuple(found) for who, found in interactions.items() if "ana" in who} == {(3,)}
    assert {tuple(found) for who, found in interactions.items() if "ben" in who} == {(2,)}


@pytest.mark.parametrize("order", [*itertools.permutations(["login", "page", "his"])])
@pytest.mark.parametrize("late", ["login", "page", "his"])
def test_a_request_that_waits_for_the_store_keeps_its_place(
    make_store, keep, lab, monkeypatch, order, late
):
    """One of three requests around a login waits for a busy store ten times longer than they are
    apart: Ana's began before Ben came, and each has one session.
    """
    store, run = keep(make_store(), client=lab.client), time.time_ns()
    ana, ben = f"ana-{run}", Context.create(f"ben-{run}")
    opened = {name: open_session(ana, client=lab.client, store=store) for name in ("page", "login")}
    for request in opened.values():
        request.interaction()
    time.sleep(0.005)
    opened["login"].identify(ben)
    time.sleep(0.005)
    opened["his"] = open_session(ben, client=lab.client, store=store)
    for request in opened.values():
        request.interaction()

    merge = store.store.merge

    def merge_late(key, delta):
        time.sleep(0.05)
        return merge(key, delta)

    for name in order:
        with monkeypatch.context() as patch:
            if name == late:
                patch.setattr(store.store, "merge", merge_late)
            end_request(opened[name], store, "v")
    report(lab, store, "v")

    told = values(lab, "session.interactions")
    assert {who: sorted(found) for who, found in told.items()} == {ana: [3], ben.key: [2]}


@pytest.mark.parametrize(
    ("hosts", "late", "split"),
    [
        (("a", "a", "a"), 80, False),
        (("a", "a", "a"), 3_600_000, True),  # the store's clock was set, or the host slept
        (("a", "b", "a"), 80, True),  # what monotonic clocks of two hosts say compares nothing
        (("", "", ""), 80, True),
    ],
)
def test_only_lines_of_one_host_tell_which_of_them_waited(hosts, late, split):
    """In a visit where Ana becomes Ben beside another request of hers, which arrives *late*."""
    ana, ben = (("user", "ana"),), (("user", "ben"),)
    began, read = 1_700_000_000_000, 5_000
    requests = (
        [StoredSegment(ana, began, began + 10), StoredSegment(ben, began + 20, began + 30)],
        [StoredSegment(ana, began, began + 300)],
        [StoredSegment(ben, began + 40, began + 50)],
    )
    lines = []
    for host, offset, segments in zip(hosts, (5, 5 + late, 5), requests, strict=True):
        for segment in segments:
            segment.started, segment.ended = segment.first, segment.last
        text = encoded(segments, {}, offset=began - read if host else None)
        lines.append(f"[{offset},{text.replace(HOST, host)}]")
    record = Record("s-1", "", "session", began, 0, 300, lines=lines)

    durations = [
        (keys[0][1], event.value)
        for event, keys in events_of(record, Rules()).totals
        if event.event_key == "session.duration"
    ]

    if split:
        assert sorted(who for who, _ in durations) == ["ana", "ana", "ben"]
    else:
        assert sorted(durations) == [("ana", 300.0), ("ben", 30.0)]
