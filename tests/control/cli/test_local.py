"""`ldinstrument dev` and `tail`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import ldclient
import pytest
from shells import COMMAND, SUM, Ran

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag
from ldinstrument.rest import MetricsAPI


def test_readout_and_tail(run: Callable[..., Ran], ld: LocalLaunchDarkly, api: MetricsAPI) -> None:
    """What real traffic by the real SDK left behind."""
    ld.set_flag(experiment_flag("new-cart", [False, True]))
    api.create(SUM)
    client = ldclient.LDClient(
        ldclient.Config(
            "sdk-test",
            base_uri=ld.url,
            events_uri=ld.url,
            stream_uri=ld.url,
            diagnostic_opt_out=True,
        )
    )
    context = ldclient.Context.create("u-1")
    client.variation("new-cart", context, False)
    client.track("cart.value", context, {"via": "test"}, 12.5)
    client.close()
    ld.wait_for(lambda: ld.custom_events("cart.value"))
    shown = run("readout")
    assert shown.code == 0
    assert re.search(r"(?s)new-cart, iteration 1.*cart\.value .* 1 of 1 units, 1 events", shown.out)
    assert {row["metric"] for row in run("readout", "--json").json["rows"]} == {"cart.value"}
    tailed = run("tail", "--key", "cart.value")
    assert 'cart.value  = 12.5  user:u-1  {"via": "test"}' in tailed.out
    (line,) = run("tail", "--key", "cart.value", "--json", "-n", "1").out.splitlines()
    assert json.loads(line)["metricValue"] == 12.5
    assert run("tail", "-n", "0").out == ""


def test_tail_follows(ld: LocalLaunchDarkly) -> None:
    """Events show while it runs; Ctrl-C ends it without a traceback."""
    environ = {
        **os.environ,
        "LDINSTRUMENT_URL": ld.url,
        "no_proxy": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }
    command = [*COMMAND, "tail", "-f", "-n", "0", "--json"]
    following = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )
    lines: list[str] = []
    assert following.stdout is not None
    reader = threading.Thread(
        target=lambda: lines.extend(iter(following.stdout.readline, "")), daemon=True
    )  # type: ignore[union-attr]
    reader.start()
    try:
        assert following.stderr is not None
        assert "token from" in following.stderr.readline()
        end = time.monotonic() + 100
        while not lines and time.monotonic() < end:
            client = ldclient.LDClient(
                ldclient.Config(
                    "sdk-test", events_uri=ld.url, use_ldd=True, diagnostic_opt_out=True
                )
            )
            client.track("followed", ldclient.Context.create("u"))
            client.close()
            time.sleep(0.3)
        following.send_signal(2)
        assert following.wait(100) == 0
        assert "Traceback" not in following.stderr.read()
    finally:
        following.kill()
        following.wait()
    assert "followed" in {json.loads(line).get("key") for line in lines}


def test_readout_is_for_a_local_launchdarkly_only(
    run: Callable[..., Ran], ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against LaunchDarkly itself: what to start instead; no request is made. The same for a proxy
    on this machine.
    """
    monkeypatch.setenv("LD_API_KEY", "api-x")
    ran = run("readout", "--host", "https://launchdarkly.invalid", "--project", "p")
    assert (ran.code, "ldinstrument dev" in ran.err) == (1, True)
    ld.fault("/dev/readout", status=404)
    assert "only a local LaunchDarkly has this" in run("readout").err


@pytest.mark.parametrize("command", ["tail", "readout"])
def test_what_only_a_local_server_has_needs_its_address(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Without one it is not a token that is missing."""
    monkeypatch.delenv("LDINSTRUMENT_URL")
    ran = run(command)
    assert (ran.code, "token" in ran.err) == (1, False)
    assert "export LDINSTRUMENT_URL=http://127.0.0.1:8030" in ran.err


def test_dev_serves_until_ctrl_c() -> None:
    """It prints its address, works, keeps its data in a file, and ends cleanly."""
    command = [*COMMAND, "dev", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert f"export LDINSTRUMENT_URL={url}" in process.stdout.readline()
        with MetricsAPI(token="api-x", base_uri=url) as api:
            api.create(SUM)
            assert api.count() == 1
        process.send_signal(2)
        assert process.wait(100) == 0
    finally:
        process.kill()
        process.wait()


def test_dev_on_a_taken_port(run: Callable[..., Ran], ld: LocalLaunchDarkly) -> None:
    """One line."""
    ran = run("dev", "--port", str(ld.port))
    assert (ran.code, "error: " in ran.err, "Traceback" in ran.err) == (1, True, False)


@pytest.mark.parametrize(
    ("option", "content", "said"),
    [
        ("--flags", None, "No such file"),
        ("--flags", "{bad", "not JSON"),
        ("--flags", '[{"nokey": 1}]', '"key"'),
        ("--db", "no database at all, " * 60, "not a database"),
    ],
)
def test_dev_refuses_a_bad_file_in_one_line_with_its_name(
    run: Callable[..., Ran], tmp_path: Path, option: str, content: str | None, said: str
) -> None:
    """No traceback, and nothing listens."""
    path = tmp_path / "given.file"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    refused = run("dev", "--port", "0", option, str(path))
    assert refused.code != 0
    assert said in refused.err
    assert "given.file" in refused.err
    assert len(refused.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("store", "said"),
    [("memory:", "another program's memory"), ("redis://127.0.0.1:1/0", "Connection refused")],
)
def test_dev_refuses_a_store_that_it_cannot_look_into(
    run: Callable[..., Ran], store: str, said: str
) -> None:
    """A store in another program's memory, and one that does not answer."""
    refused = run("dev", "--port", "0", "--store", store)
    assert refused.code != 0
    assert said in refused.err
    assert len(refused.err.strip().splitlines()) == 1
