"""Flag files and experiments of the command line: what they bring, and how they are refused."""

from __future__ import annotations

import json

import pytest
from ldclient import Context

from ldinstrument.devserver import LocalLaunchDarkly, simple_flag
from ldinstrument.devserver.flags.flags import parse_experiment, read_flags
from ldinstrument.errors import DefinitionError

CLAUSE = {"op": "segmentMatch", "attribute": "", "values": ["beta"]}
RULE = {"id": "r", "variation": 1, "clauses": [CLAUSE]}


@pytest.fixture(name="write")
def _write(tmp_path):
    def write(content: object) -> str:
        path = tmp_path / "flags.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write


@pytest.mark.parametrize(
    "content", [[{"key": "a"}], {"flags": {"a": {}}}, {"flags": {"a": {"key": "a"}}}]
)
def test_a_list_or_a_mapping_of_flags(write, content):
    """The key of a mapping counts where the flag names none."""
    (flag,) = read_flags(write(content))
    assert flag == simple_flag("a")


def test_flag_values_are_flags_that_serve_one_value(write, sdk):
    """Of any JSON type."""
    path = write({"flagValues": {"a": True, "b": {"x": 1}}})
    with LocalLaunchDarkly(flags=path) as ld:
        client = sdk(base_uri=ld.url, stream_uri=ld.url, events_uri=ld.url)
        assert client.variation("a", Context.create("u"), None) is True
        assert client.variation("b", Context.create("u"), None) == {"x": 1}


def test_segments_come_with_the_flags_that_refer_to_them(write, sdk):
    """Also through a list that was read before, as `read_flags` returns it."""
    segments = {"beta": {"included": ["u1"]}}
    path = write({"flags": {"c": {**simple_flag("c"), "rules": [RULE]}}, "segments": segments})
    with LocalLaunchDarkly(flags=read_flags(path)) as ld:
        client = sdk(base_uri=ld.url, stream_uri=ld.url, events_uri=ld.url)
        seen = [client.variation("c", Context.create(key), None) for key in ("u1", "u2")]
        assert seen == [True, False]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ("3", "expected a list of flags"),
        ({"flags": 3}, "expected a list of flags"),
        ({"flags": [{"version": 1}]}, 'each with a "key"'),
        ({"flagValues": []}, "flagValues"),
        ({"segments": [3]}, "segments"),
        ({"flags": {"c": {"rules": [RULE]}}}, "refers to segment 'beta'"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name_in_one_line(write, content, reason):
    """With the reason."""
    path = write(content)
    with pytest.raises(DefinitionError) as refused:
        read_flags(path)
    assert str(refused.value).startswith(path)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    """In the words of the operating system."""
    with pytest.raises(DefinitionError, match=r"nowhere\.json: No such file"):
        read_flags(tmp_path / "nowhere.json")


def test_an_experiment_of_the_command_line():
    """Values are JSON where they can be, else text."""
    flag = parse_experiment("new-prompt=short, long,3")
    assert (flag["key"], flag["variations"]) == ("new-prompt", ["short", "long", 3])
    assert flag["fallthrough"]["rollout"]["kind"] == "experiment"
    assert parse_experiment("f=false,true")["variations"] == [False, True]


@pytest.mark.parametrize("text", ["", "f", "f=", "f=a", "=a,b", "f=a,"])
def test_an_experiment_needs_a_key_and_two_variations(text):
    """The error shows the form."""
    with pytest.raises(DefinitionError, match="KEY=A,B"):
        parse_experiment(text)
