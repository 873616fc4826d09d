"""What commands say, and where, with and without a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from shells import SUM, Ran

from ldinstrument.cli import terminal
from ldinstrument.devserver import LocalLaunchDarkly
from ldinstrument.metrics.metric import Metric
from ldinstrument.rest import MetricsAPI


def test_a_local_launchdarkly_that_does_not_run(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said soon, with the command that starts one."""
    monkeypatch.setenv("LDINSTRUMENT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    ran = run("plan")
    assert (ran.code, "is it running? (ldinstrument dev)" in ran.err) == (1, True)
    assert time.monotonic() - began < 30


def test_a_local_launchdarkly_that_is_slow(
    run: Callable[..., Ran], ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens, so it is waited for as any other: a busy machine is no reason to say that nobody
    is there.
    """
    monkeypatch.setattr(terminal, "LOCAL_SECONDS", 1.0)
    ld.fault("/api/v2/metrics/default", delay=2.0)
    assert run("metrics", "list").code == 0


def test_forced_colours_make_no_terminal(shell: Callable[..., Any], api: MetricsAPI) -> None:
    """FORCE_COLOR, as in many a CI: colours, and nobody is asked anything."""
    api.create(SUM.replace(unit="euros"))
    ran = shell("metrics", "update", "cart.value", "unit=pounds", env={"FORCE_COLOR": "1"})
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("columns", ["30", "60", "80", "200"])
def test_no_table_loses_letters(
    run: Callable[..., Ran], api: MetricsAPI, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """However narrow: what does not fit is folded, not cut off."""
    name = "The value of a cart when it is paid"
    api.create(SUM.replace(key="a.rather.long.key.of.a.metric", name=name))
    monkeypatch.setenv("COLUMNS", columns)
    rows = run("metrics", "list").out.splitlines()
    ruler = next(line for line in run("metrics", "list").out.splitlines() if "─" in line)
    assert len(ruler) <= int(columns)
    for word in ("a.rather.long.key.of.a.metric", name.replace(" ", ""), "sumofdollars"):
        letters = sorted("".join(rows[2:]).replace(" ", ""))
        assert all(letters.count(letter) >= word.count(letter) for letter in set(word))


def test_a_token_is_named_by_its_source_only(
    run: Callable[..., Ran], ld: LocalLaunchDarkly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sources that differ are a warning; neither token is printed, not even on failure."""
    monkeypatch.setenv("LAUNCHDARKLY_API_HOST", ld.url)
    monkeypatch.setenv("LD_API_KEY", "api-secret-one")
    monkeypatch.setenv("LAUNCHDARKLY_ACCESS_TOKEN", "api-secret-two")
    ran = run("metrics", "list", "--project", "default")
    assert ran.code == 0
    assert "token from LD_API_KEY" in ran.err
    assert "warning: another token stands in LAUNCHDARKLY_ACCESS_TOKEN" in ran.err
    ld.fault("*", status=401, times=None)
    failed = run("plan", "--project", "default")
    assert failed.code == 1
    assert "secret" not in ran.out + ran.err + failed.out + failed.err


def test_control_characters_do_not_reach_the_terminal(
    run: Callable[..., Ran], api: MetricsAPI
) -> None:
    """A name in LaunchDarkly is somebody else's text."""
    api.create(Metric("odd.name", measure="count", name="red \x1b[31m [bold]x[/bold] \x07"))
    for command in (("list",), ("get", "odd.name"), ("rename", "odd.name", "\x1b[2J")):
        shown = run("metrics", *command)
        assert shown.code == 0
        assert not {"\x1b", "\x07"} & set(shown.out + shown.err)
    assert "[bold]" in run("metrics", "update", "odd.name", 'name="[bold]"').out


def test_ctrl_c_is_the_ordinary_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Any other exception passes."""
    called: list[type[BaseException]] = []

    def fails(error: type[BaseException]) -> None:
        called.append(error)
        raise error

    terminal.guarded(lambda: fails(KeyboardInterrupt))
    with pytest.raises(ZeroDivisionError):
        terminal.guarded(lambda: fails(ZeroDivisionError))
    assert called == [KeyboardInterrupt, ZeroDivisionError]
    assert "Traceback" not in capsys.readouterr().err
