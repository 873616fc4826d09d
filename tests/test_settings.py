"""The environment is read by one parser for everybody."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ldinstrument import settings
from ldinstrument.delivery import launchdarkly_config
from ldinstrument.errors import CredentialsError, DefinitionError
from ldinstrument.rest.credentials import find_api_host

LOOPBACK = [
    ("http://127.0.0.1:8030", "http://127.0.0.1:8030"),
    ("http://127.0.0.2:8030/", "http://127.0.0.2:8030"),
    ("127.0.0.1:8030", "http://127.0.0.1:8030"),
    (" http://127.0.0.1:8030 ", "http://127.0.0.1:8030"),
    ("http://LOCALHOST:8030", "http://LOCALHOST:8030"),
    ("http://[::1]:8030", "http://[::1]:8030"),
    ("http://[0:0:0:0:0:0:0:1]:8030", "http://[0:0:0:0:0:0:0:1]:8030"),
]
REFUSED = [
    "http://10.0.0.1:8030",
    "https://app.launchdarkly.com",
    "http://user:secret@127.0.0.1",
    "http://127.0.0.1:8030/?a=b",
    "ftp://127.0.0.1",
    "http://127.0.0.1:port",
    "http://[::1",
    "http://127.0.0.1 .example.com",
]


@pytest.mark.parametrize(("value", "url"), LOOPBACK)
def test_the_local_url_means_the_same_to_rest_and_sdk(
    value: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """White space, a missing scheme, every spelling of loopback: one reading for both."""
    monkeypatch.setenv("LDINSTRUMENT_URL", value)
    config = launchdarkly_config("sdk-x")

    assert settings.local_url() == url
    assert find_api_host().url == url
    assert {config.base_uri, config.stream_base_uri} == {url}
    assert config.events_uri.startswith(url)


@pytest.mark.parametrize("value", REFUSED)
def test_a_local_url_that_is_not_local_is_refused_by_both(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one line, and without repeating a password."""
    monkeypatch.setenv("LDINSTRUMENT_URL", value)

    with pytest.raises(DefinitionError, match="LDINSTRUMENT_URL") as definition:
        launchdarkly_config("sdk-x")
    with pytest.raises(CredentialsError, match="LDINSTRUMENT_URL"):
        find_api_host()
    assert "secret" not in str(definition.value)


@pytest.mark.parametrize("value", ["1", " 1 ", "true", "TRUE", "yes\n", "On"])
def test_a_switch_that_is_on(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any case, with white space."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", value)

    assert settings.disabled()


@pytest.mark.parametrize("value", ["", " ", "0", "false", "off", "no", "2"])
def test_a_switch_that_is_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else is off, an unset variable, too."""
    monkeypatch.setenv("LDINSTRUMENT_DISABLED", value)
    monkeypatch.delenv("LDINSTRUMENT_DEBUG", raising=False)

    assert not settings.disabled()
    assert not settings.debug()


def test_a_blank_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that `export LAUNCHDARKLY_SDK_KEY=` is no key."""
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "  ")

    assert settings.variable("LAUNCHDARKLY_SDK_KEY") is None
    with pytest.raises(DefinitionError, match="no SDK key"):
        launchdarkly_config()


def test_a_switch_is_read_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is set, changed and taken away while the program runs, or when somebody puts
    another mapping in the place of the environment.
    """
    monkeypatch.delenv("LDINSTRUMENT_DEBUG", raising=False)
    assert not settings.debug()
    monkeypatch.setenv("LDINSTRUMENT_DEBUG", " Yes ")
    assert settings.debug()
    monkeypatch.setenv("LDINSTRUMENT_DEBUG", "0")
    assert not settings.debug()
    monkeypatch.delenv("LDINSTRUMENT_DEBUG")
    assert not settings.debug()

    monkeypatch.setattr(os, "environ", {"LDINSTRUMENT_DEBUG": "1"})
    assert settings.debug()
    assert not settings.disabled()


def test_another_mapping_may_be_there_from_the_start() -> None:
    """A program that replaces `os.environ` before it imports us is read all the same."""
    program = (
        "import os; os.environ = dict(os.environ, LDINSTRUMENT_DISABLED='1')\n"
        "from ldinstrument import settings; print(settings.disabled(), settings.debug())"
    )
    environ = {name: value for name, value in os.environ.items() if name != "LDINSTRUMENT_DEBUG"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environ
    )
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize(
    ("excepted", "after"),
    [
        ("a.test, 127.0.0.1", "a.test, 127.0.0.1"),
        ("*", "*"),
        ("a.test", "a.test,127.0.0.1"),
        ("127.0.0.10", "127.0.0.10,127.0.0.1"),
    ],
)
def test_the_local_host_is_added_to_no_proxy_once(
    monkeypatch: pytest.MonkeyPatch, excepted: str, after: str
) -> None:
    """White space after a comma hides no entry."""
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", excepted)
    settings.bypass_proxy("http://127.0.0.1:8030")
    assert os.environ["no_proxy"] == after
