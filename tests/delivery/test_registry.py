"""Who a flush, a fork and the exit reach: the workers and clients of this process."""

from __future__ import annotations

import gc
import weakref

from clients import client_of
from ldclient import LDClient

from ldinstrument.delivery.registry import (
    all_workers,
    foreign_clients,
    register_client,
    running_workers,
)
from ldinstrument.delivery.worker import worker_of


def stock(server, **settings) -> LDClient:
    """A client without our event processor, known from now on."""
    client = client_of(server, use_ldd=True, diagnostic_opt_out=True, **settings)
    register_client(client)
    return client


def test_a_worker_is_known_from_its_client_on_to_its_end(server, make):
    """A closed one takes no events, but belongs to the process still."""
    first, second = make(), make()
    workers = worker_of(first), worker_of(second)
    assert set(workers) <= set(running_workers())
    first.close()
    assert workers[0] not in running_workers()
    assert workers[1] in running_workers()
    assert set(workers) <= set(all_workers())


def test_a_client_is_new_once(server):
    """Attaching it again says so."""
    client = client_of(server, use_ldd=True, diagnostic_opt_out=True)
    assert register_client(client)
    assert not register_client(client)
    client.close()


def test_only_open_clients_of_others_are_foreign(server, make):
    """Ours, closed ones, and those that send nothing have nobody to ask."""
    ours, open_one, closed = make(), stock(server), stock(server)
    quiet = [stock(server, offline=True), stock(server, send_events=False)]
    register_client(ours)
    closed.close()
    found = foreign_clients()
    assert open_one in found
    assert not any(client in found for client in (ours, closed, *quiet))
    for client in (open_one, *quiet):
        client.close()
    assert open_one not in foreign_clients()


def test_nobody_is_kept_alive(server):
    """A client that the program has dropped is forgotten."""
    dropped = weakref.ref(stock(server, offline=True))
    gc.collect()
    assert dropped() is None
