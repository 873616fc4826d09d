"""Where the REST API's token, host and project come from; and the promise that a token shows
nowhere.

The order for the token: an explicit `token=`, `~/.claude/config.json`, the environment, then (on a
terminal) a hidden prompt. For the host: an explicit `base_uri=`, `LAUNCHDARKLY_API_HOST`,
`LDINSTRUMENT_URL` (a local LaunchDarkly, loopback only), LaunchDarkly's own. For the project: an
explicit one, `LAUNCHDARKLY_PROJECT`, `default`.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import CredentialsError, DefinitionError
from ..settings import LOCAL_URL, is_loopback, local_url, variable

HOSTS: Mapping[str, str] = {
    "us": "https://app.launchdarkly.com",
    "eu": "https://app.eu.launchdarkly.com",
    "federal": "https://app.launchdarkly.us",
}
TOKEN_VARIABLES = (
    "LAUNCHDARKLY_API_KEY",
    "LAUNCHDARKLY_API_TOKEN",
    "LD_API_KEY",
    "LAUNCHDARKLY_ACCESS_TOKEN",
)
CONFIG_FILE = "~/.claude/config.json"
_CONFIG_PATH = ("mcpServers", "launchdarkly", "env", "LAUNCHDARKLY_API_KEY")
_UNFILLED = ("${", "$(", "{{", "<", "...", "://")
_ADVICE = (
    "make an API access token in LaunchDarkly (Organization settings, Authorization, role Writer) "
    "and "
    "export LAUNCHDARKLY_ACCESS_TOKEN=api-...; or try without an account: ldinstrument dev, "
    "then export LDINSTRUMENT_URL=http://127.0.0.1:8030"
)


class Token:
    """An API token that does not show itself: only `reveal()` gives the text.

    Args:
        value: the token; surrounding white space is dropped.
        source: where it came from, in words that may be printed.
        remarks: what the search for it stumbled over, in words that may be printed.

    Raises:
        CredentialsError: it cannot be an API token; the message never contains it.

    """

    __slots__ = ("_reveal", "remarks", "source")

    def __init__(self, value: str, source: str = "token=", remarks: tuple[str, ...] = ()) -> None:
        text = value.strip() if isinstance(value, str) else value
        wrong = why_not_a_token(text)
        if wrong:
            raise CredentialsError(f"{source}: {wrong}")
        # A closure, not an attribute: `vars()`, debuggers' reprs and error trackers walk
        # attributes.
        self._reveal: Callable[[], str] = lambda: text
        self.source = source
        self.remarks = remarks

    def reveal(self) -> str:
        """Return the token itself, for the `Authorization` header and nothing else."""
        return self._reveal()

    def __repr__(self) -> str:
        return f"<Token from {self.source}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self.reveal() == other.reveal()

    def __hash__(self) -> int:
        return hash(self.reveal())

    def __reduce__(self) -> Any:
        raise TypeError("a Token is not written anywhere; hand over where it comes from instead")


@dataclass(frozen=True, slots=True)
class Host:
    """Where REST calls go.

    Args:
        url: scheme and host, perhaps a path; no trailing slash.
        source: where it came from, in words that may be printed.
        local: it is a loopback address.

    """

    url: str
    source: str
    local: bool = False


def why_not_a_token(text: object) -> str:
    """Say why *text* cannot be an API access token, in words that do not repeat it; empty when it
    can.
    """
    if not isinstance(text, str) or not text:
        return "the API token is empty"
    if text.lower().startswith(("bearer ", "authorization:")):
        return "give the bare API token, without 'Bearer' or 'Authorization:' before it"
    if text[0] in "\"'`" or text[-1] in "\"'`":
        return (
            "the API token stands in quotes; leave them out (docker and systemd keep those of "
            "an environment file)"
        )
    if any(mark in text for mark in _UNFILLED):
        return "this is no API token: it was meant to be filled in, and nobody has"
    if not text.isascii() or not text.isprintable() or " " in text:
        return "this is no API token: it contains white space or other characters that no token has"
    for prefix, what in (("sdk-", "an SDK key"), ("mob-", "a mobile key")):
        if text.startswith(prefix):
            return (
                f"this is {what}, which the REST API refuses; it needs an API access token "
                "(api-...)"
            )
    if re.fullmatch(r"[0-9a-f]{24}", text):
        return (
            "this is a client-side ID, which the REST API refuses; it needs an API access token "
            "(api-...)"
        )
    return ""


# -- the token -----------------------------------------------------------------------------------


def find_api_token(
    token: str | Token | None = None,
    *,
    host: Host | None = None,
    environ: Mapping[str, str] | None = None,
    config_file: str | Path = CONFIG_FILE,
    prompt: bool | None = None,
) -> Token:
    """Find the API token.

    Args:
        token: used as it is, before everything else.
        host: where it will be sent. A local LaunchDarkly named by `LDINSTRUMENT_URL` takes any
            token, so nothing is searched and no real token is sent there.
        environ: instead of `os.environ`.
        config_file: instead of `~/.claude/config.json`.
        prompt: ask on the terminal when nothing was found; `None` asks when there is a terminal.

    Returns:
        The token, with its `source` and the `remarks` that a command should print.

    Raises:
        CredentialsError: nothing was found; says what was wrong in each place that had something.

    """
    if token is not None:
        return token if isinstance(token, Token) else Token(token)
    if host is not None and host.local and host.source == "LDINSTRUMENT_URL":
        return Token("local", "LDINSTRUMENT_URL (any token will do there)")
    found, remarks = _candidates(os.environ if environ is None else environ, Path(config_file))
    if found:
        first, *others = found
        differing = [other.source for other in others if other != first]
        if differing:
            remarks.append(
                f"another token stands in {' and '.join(differing)}; the one from {first.source} "
                "is used"
            )
        return Token(first.reveal(), first.source, tuple(remarks))
    if prompt or (prompt is None and on_a_terminal()):
        return _ask(remarks)
    raise CredentialsError("; ".join([*remarks, f"no LaunchDarkly API token: {_ADVICE}"]))


def _candidates(environ: Mapping[str, str], config_file: Path) -> tuple[list[Token], list[str]]:
    found: list[Token] = []
    remarks: list[str] = []
    value, remark = _from_config(config_file)
    if remark:
        remarks.append(remark)
    for source, text in [
        (_shown(config_file), value),
        *((name, environ.get(name)) for name in TOKEN_VARIABLES),
    ]:
        if text is None:
            continue
        try:
            found.append(Token(text, source))
        except CredentialsError as error:
            remarks.append(str(error))
    return found, remarks


def _from_config(path: Path) -> tuple[str | None, str]:
    """Return the token of the config file, and what was wrong with the file; a missing file is
    nothing wrong.
    """
    shown = _shown(path)
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, RuntimeError):
        return None, ""
    except (OSError, UnicodeDecodeError) as error:
        return (
            None,
            f"{shown}: cannot be read ({_reason(error)}); looking in the environment instead",
        )
    place = ".".join(_CONFIG_PATH)
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        at = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        return None, f"{shown}: not valid JSON{at}; mend it, or export LAUNCHDARKLY_ACCESS_TOKEN"
    for step in _CONFIG_PATH:
        if not isinstance(found, dict) or found.get(step) is None:
            return None, ""
        found = found[step]
    return (found, "") if isinstance(found, str) else (None, f"{shown}: {place} is not a string")


def _reason(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "not UTF-8"


def _shown(path: Path) -> str:
    return str(path)


def on_a_terminal() -> bool:
    """Whether somebody is there to answer a question."""
    try:
        return sys.stdin.isatty() and sys.stderr.isatty()
    except (AttributeError, ValueError):  # closed or replaced streams
        return False


def _ask(remarks: list[str]) -> Token:
    with warnings.catch_warnings():
        # Rather no prompt than one that shows what is typed.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            typed = getpass.getpass(
                "LaunchDarkly API access token (not shown): ", stream=sys.stderr
            )
        except (EOFError, getpass.GetPassWarning):
            typed = ""
    if not typed.strip():
        raise CredentialsError("; ".join([*remarks, f"no LaunchDarkly API token: {_ADVICE}"]))
    return Token(typed, "the prompt", tuple(remarks))


# -- the host and the project --------------------------------------------------------------------


def find_api_host(base_uri: str | None = None, *, environ: Mapping[str, str] | None = None) -> Host:
    """Find where REST calls go.

    Args:
        base_uri: a URL, or `us`, `eu` or `federal`.
        environ: instead of `os.environ`.

    Raises:
        CredentialsError: neither a region nor a usable URL, a token would travel unencrypted, or
            `LDINSTRUMENT_URL` is not loopback.

    """
    for source, value in (
        ("base_uri (--host)", base_uri),
        ("LAUNCHDARKLY_API_HOST", variable("LAUNCHDARKLY_API_HOST", environ)),
    ):
        if value:
            return _checked_host(source, value)
    try:
        local = local_url(environ)
    except DefinitionError as error:
        raise CredentialsError(str(error)) from None
    return (
        Host(HOSTS["us"], "LaunchDarkly (US)")
        if local is None
        else Host(local, LOCAL_URL, local=True)
    )


def _checked_host(source: str, value: str) -> Host:
    try:
        text = _as_url(value.strip())
        parts = urlsplit(text)
        loopback = is_loopback(parts.hostname or "")
        _ = parts.port
    except ValueError:
        text = ""
    if not text or not text.isprintable() or " " in text:
        raise CredentialsError(
            f"{source}: write us, eu, federal, or a URL such as https://app.launchdarkly.com"
        )
    if parts.username or parts.password or parts.query or parts.fragment or not parts.hostname:
        raise CredentialsError(
            f"{source}: give scheme and host only, such as https://app.launchdarkly.com"
        )
    if parts.scheme not in ("http", "https") or (parts.scheme == "http" and not loopback):
        raise CredentialsError(
            f"{source}: use https for {parts.hostname}, or the token travels unencrypted"
        )
    return Host(text.rstrip("/"), source, loopback)


def _as_url(value: str) -> str:
    """*value*, a region or a URL with or without its scheme, as a URL; empty when it is a word that
    is neither.
    """
    if value.lower() in HOSTS or "://" in value:
        return HOSTS.get(value.lower(), value)
    hostname = urlsplit(f"//{value}").hostname or ""
    if is_loopback(hostname):
        return f"http://{value}"
    return f"https://{value}" if "." in hostname else ""


def find_project(project: str | None = None, *, environ: Mapping[str, str] | None = None) -> str:
    """Find the project key: *project*, `LAUNCHDARKLY_PROJECT`, or `default`.

    LaunchDarkly calls an account's first project `default`; where there is none of that name, the
    first call says so.
    """
    return (project or "").strip() or variable("LAUNCHDARKLY_PROJECT", environ) or "default"
