"""The options of a request boundary: checked by name, and what each of them stands for."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from ldinstrument.errors import DefinitionError
from ldinstrument.integrations.asgi import SessionMiddleware as ASGIMiddleware
from ldinstrument.integrations.options import (
    OPTIONS,
    RequestOptions,
    check_options,
    ignored_paths,
    store_of,
    visitors_of,
)
from ldinstrument.integrations.wsgi import SessionMiddleware as WSGIMiddleware
from ldinstrument.stores import MemoryStore, SqliteStore, open_store


@pytest.mark.parametrize("middleware", [ASGIMiddleware, WSGIMiddleware])
def test_an_unknown_option_is_refused_where_it_is_written(middleware: Any) -> None:
    """By its name, with those that exist."""
    with pytest.raises(DefinitionError, match=r"unknown contxt, nmae; the options are .*ignore"):
        middleware(lambda: None, nmae="shop", contxt="ada")


def test_every_option_is_documented() -> None:
    """In the one docstring that all boundaries point to."""
    documented = inspect.getdoc(RequestOptions) or ""  # 3.13 takes the indentation away itself
    for name in OPTIONS:
        assert f"\n    {name}: " in documented, name
    check_options("SessionMiddleware", dict.fromkeys(OPTIONS))


def test_a_boundary_may_know_fewer() -> None:
    """The message names it, and its own options only."""
    with pytest.raises(DefinitionError) as refused:
        check_options("instrument", {"store": 1, "nmae": 2}, frozenset({"name"}))
    assert str(refused.value) == "instrument: unknown nmae, store; the options are name"


def test_a_store_is_given_or_opened_by_its_address(tmp_path: Path) -> None:
    """An address is a text or a path; none is none."""
    assert store_of({}) is store_of({"store": None}) is None
    with open_store("memory:", sweep=False) as given:
        assert store_of({"store": given}) is given
    for address, kind in (("memory:", MemoryStore), (tmp_path / "a.db", SqliteStore)):
        opened = store_of({"store": address})
        assert opened is not None
        with opened:
            assert isinstance(opened.store, kind)


def test_visitors_are_marked_only_with_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """And with a secret; neither cookie nor header marks nobody."""
    assert visitors_of({"cookie": True, "secret": "s"}) is None
    with open_store("memory:", sweep=False) as store:
        assert visitors_of({"store": store, "secret": "s"}) is not None
        assert visitors_of({"store": store, "secret": "s", "cookie": False}) is None
        assert visitors_of({"store": store, "secret": "s", "cookie": False, "header": "X-V"})


@pytest.mark.parametrize(
    ("ignore", "paths"), [("/static/*", ["/static/*"]), (("/a", "/b"), ["/a", "/b"]), ([], [])]
)
def test_a_single_path_is_no_list_of_letters(ignore: Any, paths: list[str]) -> None:
    """One pattern may be given as it is."""
    assert ignored_paths({"ignore": ignore}) == paths
    assert ignored_paths({}) == []
