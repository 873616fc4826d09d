"""Where token, host and project come from, in which order, and what is said when they are wrong."""

from __future__ import annotations

import copy
import getpass
import json
import os
import pickle
import pty
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from ldinstrument.errors import CredentialsError
from ldinstrument.rest.credentials import (
    HOSTS,
    Host,
    Token,
    find_api_host,
    find_api_token,
    find_project,
)

US = Host(HOSTS["us"], "test")


def config(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def claude(token: Any) -> dict[str, Any]:
    return {"mcpServers": {"launchdarkly": {"env": {"LAUNCHDARKLY_API_KEY": token}}}}


# -- the order -------------------------------------------------------------------------------------


def test_the_order_is_the_seeds(tmp_path: Path) -> None:
    """Explicit, ~/.claude/config.json, then the variables one after the other."""
    path = config(tmp_path, claude("api-file"))
    environ = {
        "LAUNCHDARKLY_API_KEY": "api-1",
        "LAUNCHDARKLY_API_TOKEN": "api-2",
        "LD_API_KEY": "api-3",
        "LAUNCHDARKLY_ACCESS_TOKEN": "api-4",
    }
    assert find_api_token("api-0", environ=environ, config_file=path).source == "token="
    assert find_api_token(environ=environ, config_file=path).source == str(path)
    path.unlink()
    for number, name in enumerate(list(environ), 1):
        found = find_api_token(environ=environ, config_file=path)
        assert (found.reveal(), found.source) == (f"api-{number}", name)
        del environ[name]
    with pytest.raises(CredentialsError, match="LAUNCHDARKLY_ACCESS_TOKEN"):
        find_api_token(environ=environ, config_file=path, prompt=False)


def test_the_default_file_is_in_the_home_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`~/.claude/config.json`, looked up when asked."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / "config.json").write_text(json.dumps(claude(" api-home \n")))
    found = find_api_token(environ={})
    assert (found.reveal(), found.source) == ("api-home", "~/.claude/config.json")


def test_two_sources_that_differ_are_said_without_the_tokens(tmp_path: Path) -> None:
    """Which one is used, and where the other stands; equal ones are nothing to talk about."""
    path = config(tmp_path, claude("api-aaa"))
    found = find_api_token(environ={"LD_API_KEY": "api-bbb"}, config_file=path)
    assert found.remarks == (f"another token stands in LD_API_KEY; the one from {path} is used",)
    assert find_api_token(environ={"LD_API_KEY": "api-aaa"}, config_file=path).remarks == ()


def test_a_local_launchdarkly_gets_no_real_token(tmp_path: Path) -> None:
    """With LDINSTRUMENT_URL nothing is searched; an explicit token is still used."""
    host = find_api_host(environ={"LDINSTRUMENT_URL": "http://127.0.0.1:8030"})
    path = config(tmp_path, claude("api-real"))
    found = find_api_token(host=host, environ={"LD_API_KEY": "api-real"}, config_file=path)
    assert found.reveal() == "local"
    assert find_api_token("api-x", host=host).reveal() == "api-x"


# -- what can be wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"mcpServers": ', "not valid JSON at line 1"),
        (b"\xff\xfe\x00".decode("latin-1"), "not valid JSON"),
        (claude(17), "not a string"),
        (claude(""), "empty"),
        (claude("   "), "empty"),
        (claude("sdk-secret-123"), "an SDK key"),
    ],
)
def test_a_file_that_is_wrong_is_a_remark_and_the_next_source_is_used(
    tmp_path: Path, content: Any, words: str
) -> None:
    """Broken JSON, empty values and SDK keys: said, then the environment."""
    path = config(tmp_path, content)
    found = find_api_token(environ={"LD_API_KEY": "api-1"}, config_file=path)
    assert found.source == "LD_API_KEY"
    assert any(words in remark for remark in found.remarks)
    with pytest.raises(CredentialsError, match=words.split()[-1]) as caught:
        find_api_token(environ={}, config_file=path, prompt=False)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"mcpServers": []}', '{"mcpServers": {"launchdarkly": null}}']
)
def test_a_file_without_the_entry_is_nothing_wrong(tmp_path: Path, content: str) -> None:
    """People have other things in there."""
    assert (
        find_api_token(
            environ={"LD_API_KEY": "api-1"}, config_file=config(tmp_path, content)
        ).remarks
        == ()
    )


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """As some editors write it."""
    (tmp_path / "config.json").write_text(json.dumps(claude("api-marked")), encoding="utf-8-sig")
    assert find_api_token(environ={}, config_file=tmp_path / "config.json").reveal() == "api-marked"


def test_a_placeholder_in_the_file_leads_to_the_environment(tmp_path: Path) -> None:
    """As people write it who keep the token elsewhere."""
    path = config(tmp_path, claude("${LAUNCHDARKLY_API_KEY}"))
    found = find_api_token(environ={"LAUNCHDARKLY_API_KEY": "api-real"}, config_file=path)
    assert (found.reveal(), found.source) == ("api-real", "LAUNCHDARKLY_API_KEY")
    assert "filled in" in found.remarks[0]


def test_an_unreadable_file_is_a_remark(tmp_path: Path) -> None:
    """A directory in its place cannot be read, not even by root."""
    (tmp_path / "config.json").mkdir()
    found = find_api_token(environ={"LD_API_KEY": "api-1"}, config_file=tmp_path / "config.json")
    assert "cannot be read" in found.remarks[0]


def test_bytes_that_are_no_text_are_a_remark(tmp_path: Path) -> None:
    """Not UTF-8."""
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    found = find_api_token(environ={"LD_API_KEY": "api-1"}, config_file=tmp_path / "config.json")
    assert "not UTF-8" in found.remarks[0]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "empty"),
        ("sdk-secret", "an SDK key"),
        ("mob-secret", "a mobile key"),
        ("5ec4e7" * 4, "a client-side ID"),
        ("Bearer api-secret", "without 'Bearer'"),
        ("api secret", "white space"),
        ("api-secret\x00", "white space"),
        ("api-s\u00e9cret", "characters"),
        ('"api-secret"', "in quotes"),
        ("'api-secret'", "in quotes"),
        ("${LAUNCHDARKLY_SECRET}", "filled in"),
        ("{{secret}}", "filled in"),
        ("<your-secret-token>", "filled in"),
        ("api-...", "filled in"),
        ("op://vault/secret", "filled in"),
    ],
)
def test_an_explicit_token_that_cannot_be_one(value: str, words: str) -> None:
    """A clear word, and never the value."""
    with pytest.raises(CredentialsError, match=words) as caught:
        find_api_token(value)
    assert "secret" not in str(caught.value)


def test_variables_that_are_wrong_are_all_named(tmp_path: Path) -> None:
    """The error lists what stood where."""
    with pytest.raises(CredentialsError) as caught:
        find_api_token(
            environ={"LAUNCHDARKLY_API_KEY": "sdk-secret", "LD_API_KEY": ""},
            config_file=tmp_path / "none",
            prompt=False,
        )
    assert "LAUNCHDARKLY_API_KEY: this is an SDK key" in str(caught.value)
    assert "LD_API_KEY: the API token is empty" in str(caught.value)
    assert "secret" not in str(caught.value)


# -- it does not show ------------------------------------------------------------------------------


def test_a_token_does_not_show_itself() -> None:
    """repr, str, format, vars, pickle and copy give nothing away."""
    token = Token("api-secret-9", "LD_API_KEY")
    attributes = [getattr(token, name) for name in token.__slots__]
    told = f"{token} {token!r} {[token]} {attributes} {getattr(token, '__dict__', {})}"
    assert "secret" not in told
    assert repr(token) == "<Token from LD_API_KEY>"
    assert token == Token("api-secret-9", "elsewhere")
    assert len({token, Token("api-secret-9", "elsewhere"), Token("api-other")}) == 2
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(token)


def test_the_prompt_does_not_echo(tmp_path: Path) -> None:
    """On a real terminal: the question appears, what is typed does not; and without a terminal
    nobody is asked.
    """
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ldinstrument.rest.credentials import find_api_token\n"
        "t = find_api_token(environ={}, config_file='/nonexistent')\n"
        "print('SOURCE', t.source, len(t.reveal()))\n"
    )
    root = str(Path(__file__).resolve().parents[3])
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", program, root])
    seen = b""
    while b"not shown" not in seen:
        seen += os.read(terminal, 1000)
    os.write(terminal, b"api-typed-secret\n")
    try:
        while b"SOURCE" not in seen or not seen.endswith(b"\n"):
            seen += os.read(terminal, 1000)
    except OSError:
        pass
    os.waitpid(pid, 0)
    os.close(terminal)
    assert b"SOURCE the prompt 16" in seen
    assert b"typed-secret" not in seen


def test_a_prompt_that_would_show_what_is_typed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where echo cannot be switched off, getpass warns and goes on; a token is not worth that."""

    def shown(*_: Any, **__: Any) -> str:
        warnings.warn("Can not control echo on the terminal.", getpass.GetPassWarning, stacklevel=2)
        return "api-shown-to-everybody"

    monkeypatch.setattr(getpass, "getpass", shown)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CredentialsError, match="no LaunchDarkly API token"):
            find_api_token(environ={}, config_file=tmp_path / "none", prompt=True)


# -- the host --------------------------------------------------------------------------------------


def test_hosts_in_their_order() -> None:
    """Explicit, LAUNCHDARKLY_API_HOST, LDINSTRUMENT_URL, LaunchDarkly in the US."""
    environ = {
        "LAUNCHDARKLY_API_HOST": "app.eu.launchdarkly.com",
        "LDINSTRUMENT_URL": "http://localhost:8030/",
    }
    assert find_api_host("federal", environ=environ) == Host(
        "https://app.launchdarkly.us", "base_uri (--host)"
    )
    assert find_api_host(environ=environ) == Host(
        "https://app.eu.launchdarkly.com", "LAUNCHDARKLY_API_HOST"
    )
    del environ["LAUNCHDARKLY_API_HOST"]
    assert find_api_host(environ=environ) == Host(
        "http://localhost:8030", "LDINSTRUMENT_URL", local=True
    )
    assert find_api_host(environ={}) == Host("https://app.launchdarkly.com", "LaunchDarkly (US)")
    assert find_api_host("EU", environ={}).url == "https://app.eu.launchdarkly.com"
    assert find_api_host("http://[::1]:8030", environ={}).local


@pytest.mark.parametrize(
    ("value", "url"),
    [
        (" us ", "https://app.launchdarkly.com"),
        ("localhost:8030", "http://localhost:8030"),
        ("127.0.0.1:8030/", "http://127.0.0.1:8030"),
        ("app.launchdarkly.com:443", "https://app.launchdarkly.com:443"),
    ],
)
def test_hosts_without_their_scheme(value: str, url: str) -> None:
    """This machine speaks http, everybody else https."""
    assert find_api_host(value, environ={}).url == url


@pytest.mark.parametrize(
    "value",
    [
        "http://10.0.0.1:8030",
        "https://app.launchdarkly.com",
        "http://localhost.example.org",
        "http://127.0.0.1.example.org",
        "http://0.0.0.0:8030",
        "http://example.org#127.0.0.1",
        "http://127.0.0.1@example.org",
    ],
)
def test_the_local_url_is_loopback_only(value: str) -> None:
    """Anything else is refused, also what only looks like loopback."""
    with pytest.raises(CredentialsError, match="LDINSTRUMENT_URL"):
        find_api_host(environ={"LDINSTRUMENT_URL": value})


@pytest.mark.parametrize(
    "value",
    [
        "http://app.launchdarkly.com",
        "ftp://x.org",
        "https://",
        "https://u:p@x.org",
        "https://x.org?a=b",
        "http://[bad",
        "https://x.org:port",
        "usa",
        "https://x .org",
        "https://x.org\n.com",
        "//",
        "[bad",
    ],
)
def test_hosts_that_cannot_be_used(value: str) -> None:
    """Unencrypted, with a password in it, or no URL."""
    with pytest.raises(CredentialsError, match="base_uri") as caught:
        find_api_host(value, environ={})
    assert "u:p" not in str(caught.value)


# -- the project -----------------------------------------------------------------------------------


def test_projects_in_their_order() -> None:
    """Explicit, LAUNCHDARKLY_PROJECT, `default`: on every host the same."""
    assert find_project("a", environ={"LAUNCHDARKLY_PROJECT": "b"}) == "a"
    assert find_project(environ={"LAUNCHDARKLY_PROJECT": " b "}) == "b"
    assert find_project(" ", environ={"LAUNCHDARKLY_PROJECT": " "}) == "default"
