"""Flag delivery to server SDKs over plain HTTP: ETags, chunks, segments, the second data system."""

from __future__ import annotations

import json

import ldclient
import pytest
import requests
from ldclient import Context, datasystem

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag, simple_flag

IN_SEGMENT = {"op": "segmentMatch", "attribute": "", "values": ["beta"]}


def by_segment() -> dict:
    """A flag that serves b to the segment beta, and a to everybody else."""
    rules = [{"id": "r", "variation": 1, "clauses": [IN_SEGMENT]}]
    return {**simple_flag("by-segment", ["a", "b"], 0), "rules": rules}


def segment(*keys: str) -> dict:
    return {"key": "beta", "version": 1, "included": list(keys), "excluded": [], "rules": []}


def test_polling_answers_304_until_a_flag_changes(ld, http):
    """By ETag, in both data systems."""
    for path in ("/sdk/latest-all", "/sdk/poll"):
        first = http("GET", path)
        assert (
            http("GET", path, headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
        )
        ld.set_flag(simple_flag("new-prompt", ["x", "y"]))
        assert (
            http("GET", path, headers={"If-None-Match": first.headers["ETag"]}).status_code == 200
        )
        ld.set_flag(experiment_flag("new-prompt", ["x", "y"]))


def test_streams_are_sent_in_chunks(ld):
    """Without chunks the Python SDK waits for its buffer to fill, and initialises only after a
    time-out.
    """
    headers = {"Authorization": "sdk-key"}
    with requests.get(ld.url + "/all", headers=headers, stream=True, timeout=5) as stream:
        assert stream.headers["Transfer-Encoding"] == "chunked"
        lines = stream.iter_lines(decode_unicode=True)
        assert next(lines) == "event: put"
        put = json.loads(next(lines).removeprefix("data: "))
        assert (put["path"], set(put["data"])) == ("/", {"flags", "segments"})


def test_flags_carry_clientside_beside_its_successor(http, ld):
    """The Python SDK's `all_flags_state(client_side_only=True)` goes by the older field."""
    ld.set_flag({**simple_flag("server"), "clientSideAvailability": {"usingMobileKey": True}})
    flags = http("GET", "/sdk/latest-all").json()["flags"]
    assert (flags["new-prompt"]["clientSide"], flags["server"]["clientSide"]) == (True, False)


def test_bootstrap_data_of_the_sdk_holds_the_flags_of_browsers(sdk):
    """Only those that are available to them."""
    state = sdk().all_flags_state(Context.create("u"), client_side_only=True)
    assert list(state.to_values_map()) == ["new-prompt"]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_segments_decide_and_change_while_clients_are_connected(ld, sdk, version):
    """In both data systems."""
    config = {} if version == "v1" else {"datasystem_config": datasystem.default().build()}
    ld.set_segment(segment("u1"))
    ld.set_flag(by_segment())
    client = sdk(**config)
    seen = [client.variation("by-segment", Context.create(key), None) for key in ("u1", "u2")]
    assert seen == ["b", "a"]
    ld.set_segment(segment("u2"))
    ld.wait_for(lambda: client.variation("by-segment", Context.create("u2"), None) == "b")
    ld.delete_segment("beta")
    ld.wait_for(lambda: client.variation("by-segment", Context.create("u2"), None) == "a")


@pytest.mark.parametrize("system", ["default", "streaming"])
def test_a_client_of_the_second_data_system_hears_of_a_restart_with_other_flags(free_port, system):
    """The versions of both are the same; the ids of their payloads are not."""
    port = free_port()
    first = LocalLaunchDarkly(port, flags=[simple_flag("f", ["old", "new"], 0)])
    with first:
        uris = dict.fromkeys(("base_uri", "stream_uri", "events_uri"), first.url)
        system_config = getattr(datasystem, system)().build()
        client = ldclient.LDClient(
            ldclient.Config(
                "k", initial_reconnect_delay=0.05, datasystem_config=system_config, **uris
            ),
            start_wait=60,
        )
        assert client.variation("f", Context.create("u"), None) == "old"
    first.close()
    second = LocalLaunchDarkly(port, flags=[simple_flag("f", ["old", "new"], 1)])
    with second:
        second.wait_for(lambda: client.variation("f", Context.create("u"), None) == "new", 60)
        second.set_flag(simple_flag("g", ["x"], 0))
        second.wait_for(lambda: client.variation("g", Context.create("u"), None) == "x", 60)
        client.close()
    second.close()


def test_a_database_file_keeps_the_id_of_its_payload(tmp_path, http):
    """A restart with the same flags transfers nothing anew."""
    states = set()
    for _ in range(2):
        ld = LocalLaunchDarkly(db=tmp_path / "dev.db", flags=[simple_flag("f")])
        with ld:
            headers = {"Authorization": "k"}
            found = requests.get(f"{ld.url}/sdk/poll", headers=headers, timeout=30).json()
            states.add(json.dumps(found["events"][-1]["data"]))
        ld.close()
    assert len(states) == 1
