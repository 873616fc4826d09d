"""The private members of `launchdarkly-server-sdk` that we use: look here when a new version moves
them.

Nothing here imports the SDK by itself: a program that never touched `ldclient` pays nothing for us.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import sys
import time
import weakref
from collections.abc import Callable, Iterable
from importlib import import_module
from operator import attrgetter
from types import FunctionType
from typing import Any
from urllib.parse import urlsplit

from .settings import is_loopback


def singleton_client() -> Any | None:
    """Return the `ldclient` singleton when it exists already.

    `ldclient.get()` would create it, and may wait 5 seconds for the first flags: never on the
    host's thread.
    """
    module = sys.modules.get("ldclient")
    return None if module is None else vars(module).get("__client")


def sdk_key_of(client: Any) -> str | None:
    """Return the SDK key of *client*; None when it is none of the SDK's."""
    key = getattr(getattr(client, "_config", None), "sdk_key", None)
    return key if isinstance(key, str) and key else None


def environment_of(client: Any) -> tuple[str, str]:
    """Return what tells *client*'s environment from others: its SDK key and where events go."""
    return _environment(getattr(client, "_config", None))


def environment_of_singleton() -> tuple[str, str] | None:
    """Return the environment of the `ldclient` singleton that is configured; None without one."""
    config = vars(sys.modules.get("ldclient", sys)).get("__config")
    return None if config is None else _environment(config)


def _environment(config: Any) -> tuple[str, str]:
    return str(getattr(config, "sdk_key", "")), str(getattr(config, "events_uri", ""))


def discards_everything(client: Any) -> str | None:
    """Why *client* throws every event away (`offline`, `send_events_off`), or None when it does
    not.
    """
    is_offline = getattr(client, "is_offline", None)
    if callable(is_offline) and is_offline() is True:
        return "offline"
    config = getattr(client, "_config", None)
    return "send_events_off" if getattr(config, "send_events", True) is False else None


# -- what `delivery` borrows, so that an event leaves exactly as the SDK would have sent it --------


@functools.cache
def _internals(module: str) -> Any:
    """Return a module of the SDK that its type hints do not cover."""
    return import_module(module)


def is_async(config: Any) -> bool:
    """Whether *config* belongs to an `AsyncLDClient` (SDK 9.17 and newer)."""
    module = sys.modules.get("ldclient.async_config")
    return module is not None and isinstance(config, module.AsyncConfig)


def is_async_client(client: Any) -> bool:
    """Whether *client* is an `AsyncLDClient` (SDK 9.17 and newer)."""
    module = sys.modules.get("ldclient.async_client")
    return module is not None and isinstance(client, module.AsyncLDClient)


def can_watch_events() -> bool:
    """Tell whether clients of this SDK send their events by a method that `watch_events` knows."""
    module = sys.modules.get("ldclient.client")
    return module is not None and callable(getattr(module.LDClient, "_send_event", None))


def watch_events(client: Any, look: Callable[[Any], None]) -> bool:
    """Let *look* see, and date, each event of *client* before its event processor does.

    It stays through `postfork()`, which makes a new event processor and drops added hooks.

    Returns:
        Whether the client has the method for it.
    """
    if not callable(getattr(type(client), "_send_event", None)):
        return False
    reference, send = weakref.ref(client), client._send_event.__func__

    def send_event(event: Any) -> None:
        look(event)
        sender = reference()
        if sender is not None:
            send(sender, event)

    client._send_event = send_event
    return True


def event_processor_of(client: Any) -> Any | None:
    """Return the event processor inside *client*, whoever made it."""
    return getattr(client, "_event_processor", None)


worker_in = attrgetter("_event_processor.worker")
"""Return what delivers for a client with our event processor; AttributeError for any other."""

track_path = attrgetter(
    "__class__",
    "track.__func__",
    "_send_event.__func__",
    "_event_processor.send_event.__func__",
    "_event_processor.worker.thread",
)
"""Return all that `track` of a client with our event processor passes. Whoever patches, wraps or
replaces some of it, on the object or its class, changes this, or it raises AttributeError; so do a
fork, and `postfork()`.
"""


def has_ended(client: Any) -> bool:
    """Whether *client* was closed, as far as its event processor tells."""
    return getattr(event_processor_of(client), "_closed", False) is True


_OWN_METHODS: dict[type, tuple[Any, Any]] = {}


def batch_taker(client: Any) -> Any | None:
    """Return what takes a session's events for *client* at once, or None where `track` must be
    called.

    That is the `take_batch` of our event processor's queue, and only for a client whose `track`
    would do nothing but give it one event: an `LDClient` or `AsyncLDClient` itself, and our event
    processor itself, which nobody has subclassed, wrapped or patched so that it looks at each.
    """
    cls = type(client)
    methods = _OWN_METHODS.get(cls) or _own_methods(cls)
    if methods is None or methods != _methods(cls):
        return None
    members = vars(client)
    if "track" in members or "_send_event" in members:
        return None
    check_forked = getattr(client, "_check_forked", None)
    if check_forked is not None:  # the SDK warns, as its `track` does, after a fork
        check_forked()
    processor: Any = members.get("_event_processor")
    kind: Any = type(processor)
    own = getattr(kind, "own_send_event", None)  # of ours only
    if own is None or kind.send_event is not own or "send_event" in vars(processor):
        return None
    if processor.worker.thread is None:  # not at work yet, or a forked child
        processor.worker.start()
    return processor.worker.events.take_batch


def _methods(cls: type) -> tuple[Any, Any]:
    return cls.__dict__.get("track"), cls.__dict__.get("_send_event")


def _own_methods(cls: type) -> tuple[Any, Any] | None:
    """Return the SDK's own methods of *cls*; None for any other class, and when one was patched."""
    if (cls.__module__, cls.__qualname__) not in (
        ("ldclient.client", "LDClient"),
        ("ldclient.async_client", "AsyncLDClient"),
    ):
        return None
    home = getattr(sys.modules[cls.__module__], "__file__", None)
    found = _methods(cls)
    for method in found:
        if type(method) is not FunctionType or method.__code__.co_filename != home:
            return None
    _OWN_METHODS[cls] = found
    return found


def is_exposure(event: Any) -> bool:
    """Tell whether *event* is an evaluation that is sent with full data, as in an experiment."""
    return getattr(event, "track_events", False) is True


def is_custom(event: Any) -> bool:
    """Whether *event* came from `track`."""
    return type(event).__name__ == "EventInputCustom"


def _indexes(event: Any, context: Any) -> bool:
    """Whether *event* indexes *context*, of one kind and not anonymous."""
    if type(event).__name__ != "IndexEvent" or event.context is not context:
        return False
    return not (context.multiple or context.anonymous)


context_fields = attrgetter(
    "valid",
    "multiple",
    "anonymous",
    "name",
    "custom_attributes",
    "private_attributes",
    "kind",
    "key",
)
"""Return the fields of a context; of its attributes, their names."""


class Writer:
    """Write custom events as JSON texts, in the SDK's shape, on whichever thread tracks them.

    A session's events come in a row and share one (immutable) context; writing it is half of what
    an event costs, so the last one is remembered. Safe for several threads at once.

    Args:
        config: a `Config` or an `AsyncConfig`.
    """

    def __init__(self, config: Any) -> None:
        theirs = _internals("ldclient.impl.events.event_processor")
        self._formatter: Any = theirs.EventOutputFormatter(config)
        self._context_of: Any = getattr(self._formatter, "_process_context", None)
        if self._context_of is not None:
            self._formatter._process_context = _Aside
        self._how: tuple[Any, ...] | None = self._way_of_contexts()
        self._last: tuple[Any, str] = (None, "")

    def _way_of_contexts(self) -> tuple[Any, ...] | None:
        """Return how the formatter writes the context of a custom event; None when it tells not."""
        specimen = custom_event("", None, 0, None, None)
        aside = self._formatter.make_output_event(specimen).get("context")
        return aside.how if type(aside) is _Aside else None

    def text(self, event: Any) -> str:
        """Return the custom *event* as JSON.

        Raises:
            TypeError: its data cannot be JSON.
            ValueError: it holds a number that JSON has not, or itself.
            RecursionError: it is nested too deep.
        """
        out: dict[str, Any] = self._formatter.make_output_event(event)
        if self._how is None:
            return as_json(out)
        del out["context"]
        return f'{as_json(out)[:-1]},"context":{self.context_text(event.context)}}}'

    def context_text(self, context: Any) -> str:
        """Return the *context* of custom events as JSON.

        Raises:
            LookupError: this SDK writes events in another way; write them one by one.
        """
        known, text = self._last
        if known is not context:
            if self._how is None:
                raise LookupError("context")
            text = as_json(self._context_of(context, *self._how))
            self._last = (context, text)
        return text

    def plain_context(self, kind: str, *, named: bool) -> tuple[str, str, str, bool]:
        """Return the text of a context of *kind* that tells no more than its key, and its name when
        it is *named*: cut where those belong, and whether the name is in it, which may be private.

        Raises:
            LookupError: this SDK writes events in another way; write them one by one.
        """
        builder = _internals("ldclient").Context.builder(_SPECIMEN_KEY).kind(kind)
        specimen = builder.name(_SPECIMEN_NAME if named else None).build()
        before, found, rest = self.context_text(specimen).partition(as_json(_SPECIMEN_KEY))
        if not found:
            raise LookupError("key")
        between, name, after = rest.partition(as_json(_SPECIMEN_NAME))
        return before, between, after, bool(name)

    def template(self, event_key: str, with_data: bool, with_value: bool) -> tuple[str, ...]:
        """Return the text of a custom event, cut where its date, data, value and context belong.

        It is cut out of the SDK's own output for a specimen.

        Args:
            event_key: of the event.
            with_data: whether it has data; without, the piece before it is empty.
            with_value: whether it has a metric value; without, the piece before it is empty.

        Raises:
            LookupError: this SDK writes events in another way; write them one by one.
        """
        data = _SPECIMEN_DATA if with_data else None
        value = _SPECIMEN_VALUE if with_value else None
        event = custom_event(event_key, None, _SPECIMEN_DATE, data, value)
        out: dict[str, Any] = self._formatter.make_output_event(event)
        if type(out.pop("context", None)) is not _Aside:
            raise LookupError("context")
        pieces, rest = [], f'{as_json(out)[:-1]},"context":'
        for mark in (_SPECIMEN_DATE, data, value):
            piece, found, rest = ("", "", rest) if mark is None else rest.partition(as_json(mark))
            if mark is not None and not found:
                raise LookupError(str(mark))
            pieces.append(piece)
        return (*pieces, rest)


_SPECIMEN_KEY = "a specimen \N{REPLACEMENT CHARACTER} of a key"
_SPECIMEN_NAME = "a specimen \N{REPLACEMENT CHARACTER} of a name"
_SPECIMEN_DATE = 8_640_000_000_001
_SPECIMEN_DATA = {"ldinstrument": "a specimen \N{REPLACEMENT CHARACTER}"}
_SPECIMEN_VALUE = 8_640_000_000_002


def custom_event(event_key: str, context: Any, at: int, data: Any, value: Any) -> Any:
    """Return the SDK's event for a `track` call, dated *at* (milliseconds since the epoch)."""
    return _internals("ldclient.impl.events.types").EventInputCustom(
        at, context, event_key, data, value
    )


class _Aside:
    """A context that is yet to be written, and how."""

    __slots__ = ("context", "how")

    def __init__(self, context: Any, *how: Any) -> None:
        self.context = context
        self.how = how


_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def _pieces(value: Any, depth: int) -> Iterable[str]:
    return (_encoder.encode(value),)


def _quick_encode() -> Callable[[Any, int], Iterable[str]]:
    """Return the C encoder that `JSONEncoder.encode` makes anew for each value, which takes as long
    as writing a small one; `_pieces` where the interpreter has none.
    """
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    string = json.encoder.encode_basestring_ascii
    with contextlib.suppress(TypeError):  # of another version of Python
        if make is not None:
            made: Callable[[Any, int], Iterable[str]] = make(
                None, _encoder.default, string, None, ":", ",", False, False, False
            )
            return made
    return _pieces


encode = _quick_encode()
"""`encode(value, 0)` returns a value as JSON in pieces, those of `as_json`. A value that contains
itself raises RecursionError here, not ValueError.
"""


def as_json(value: Any) -> str:
    """Return *value* as JSON, without white space.

    Raises:
        TypeError: it cannot be JSON.
        ValueError: it holds a number that JSON has not, or itself.
        RecursionError: it is nested too deep.
    """
    try:
        return "".join(encode(value, 0))
    except RecursionError:  # too deep, or a circle: the other one tells which
        return _encoder.encode(value)


class Intake:
    """The SDK's own event dispatcher without its threads: what it makes of events, not how it sends
    them.

    Context dedupe, index events, summaries, debug events, sampling and the redaction of private
    attributes are the SDK's code. Not safe for several threads at once.

    Args:
        config: a `Config` or an `AsyncConfig`.
    """

    def __init__(self, config: Any) -> None:
        from random import Random

        theirs = _internals("ldclient.impl.events.event_processor")
        dispatcher: Any = theirs.EventDispatcher.__new__(theirs.EventDispatcher)
        dispatcher._disabled = False
        dispatcher._outbox = theirs.EventBuffer(sys.maxsize)  # our own queue is the bound
        dispatcher._context_keys = _internals("ldclient.impl.lru_cache").SimpleLRUCache(
            config.context_keys_capacity
        )
        dispatcher._last_known_past_time = 0
        dispatcher._deduplicated_contexts = 0
        dispatcher._sampler = _internals("ldclient.impl.sampler").Sampler(Random())
        dispatcher._omit_anonymous_contexts = config.omit_anonymous_contexts
        self._index = dispatcher._get_indexable_context
        dispatcher._get_indexable_context = self._index_unless_bare
        self._theirs = dispatcher
        self._formatter: Any = theirs.EventOutputFormatter(config)
        self._ours = False
        self._date: str | None = None

    def passed(self, event: Any, *, ours: bool) -> list[Any]:
        """Return what is to be sent for *event*, in order: itself, an index or a debug event.

        Args:
            event: as the SDK hands it to an event processor.
            ours: never index a bare context over a richer one.
        """
        self._ours = ours
        outbox = self._theirs._outbox
        try:
            self._theirs._process_event(event)
            found: list[Any] = outbox._events
        finally:
            outbox._events = []
        return found

    def text(self, event: Any, known: tuple[Any, str, int] | None = None) -> str | None:
        """Return an event out of `passed` as JSON; None for a kind that LaunchDarkly does not read.

        Args:
            event: one of them.
            known: a context, how custom events have it in JSON, and a date. Its index event has it
                in the same way, but for what is anonymous.

        Raises:
            Exception: it cannot be JSON.
        """
        if known is not None and _indexes(event, known[0]):
            return f'{{"kind":"index","creationDate":{event.timestamp},"context":{known[1]}}}'
        out: dict[str, Any] | None = self._formatter.make_output_event(event)
        return None if out is None else as_json(out)

    def index_text(self, context: Any, text: str, at: int) -> str | None:
        """Return the index event of *context* as JSON; None when LaunchDarkly has had it.

        It is what `passed` and `text` make of a custom event of this context, without one.

        Args:
            context: of one kind and not anonymous; more than its key is known.
            text: how custom events have it in JSON.
            at: milliseconds since the epoch.
        """
        found: list[Any] = []
        self._index(_Aside(context), found.append)
        return f'{{"kind":"index","creationDate":{at},"context":{text}}}' if found else None

    def summary_text(self) -> str | None:
        """Return the summary of evaluations since the last one as JSON; None when there is none.

        Raises:
            Exception: it cannot be JSON.
        """
        outbox = self._theirs._outbox
        if not outbox._summarizer.flags:
            return None
        summary = outbox.get_payload().summary
        outbox._summarizer.clear()
        return as_json(self._formatter.make_summary_event(summary))

    def forget_contexts(self) -> None:
        """Let every context be indexed again, as the SDK does every
        `context_keys_flush_interval`.
        """
        self._theirs._context_keys.clear()

    def hear(self, answer: Any) -> None:
        """Take the server's `Date` from a 2xx *answer* (`status`, `headers`); it bounds debug
        events.
        """
        date = answer.headers.get("Date")
        if date != self._date:  # it changes once a second at most
            self._date = date
            with contextlib.suppress(Exception):  # a date that nobody can read
                self._theirs._handle_response(answer)

    def _index_unless_bare(self, event: Any, block: Any) -> None:
        if not self._ours or (rich := _rich_part(event.context)) is event.context:
            self._index(event, block)
        elif rich is not None:
            self._index(type(event)(event.timestamp, rich, event.key), block)


def _rich_part(context: Any) -> Any | None:
    """*context* without the kinds of which it knows no more than the key; None when nothing is
    left.
    """
    parts = [
        context.get_individual_context(place) for place in range(context.individual_context_count)
    ]
    rich = [
        part for part in parts if part.name is not None or any(True for _ in part.custom_attributes)
    ]
    if len(rich) == len(parts):
        return context
    return type(context).create_multi(*rich) if rich else None


WRAPPER = "ldinstrument"
"""Tells the receiver that we know of a client's exposures."""


def name_wrapper(client: Any) -> None:
    """Let *client*, whose events leave by the SDK's own processor, name us as its wrapper.

    A wrapper that the program or another library has named stays.
    """
    config = getattr(client, "_config", None)
    if getattr(config, "wrapper_name", "") is None:
        owner = "_AsyncConfig" if is_async(config) else "_Config"
        setattr(config, f"{owner}__wrapper_name", WRAPPER)


def event_headers(config: Any) -> dict[str, str]:
    """Return the headers of a POST of events, with the key that *config* has now; the payload id is
    the caller's.
    """
    theirs, util = (
        _internals("ldclient.impl.events.event_processor"),
        _internals("ldclient.impl.util"),
    )
    who = (_internals("ldclient.impl.http").ASYNC_USER_AGENT,) if is_async(config) else ()
    headers: dict[str, str] = util._headers(config, *who)
    headers.setdefault("X-LaunchDarkly-Wrapper", WRAPPER)
    schema = getattr(theirs, "CURRENT_EVENT_SCHEMA", None) or theirs.__CURRENT_EVENT_SCHEMA__
    return headers | {"X-LaunchDarkly-Event-Schema": str(schema)}


def connection_pool(config: Any, size: int) -> Any:
    """Return the SDK's own urllib3 manager, with its proxies, CA and verification.

    Args:
        config: a `Config` or an `AsyncConfig`.
        size: how many connections to one host stay open.
    """
    factory = _internals("ldclient.impl.http")._http_factory(config)
    manager = factory.create_pool_manager(1, config.events_uri)
    manager.connection_pool_kw["maxsize"] = size
    return manager


LAUNCHDARKLYS = (".launchdarkly.com", ".launchdarkly.us")


def redirect(config: Any, url: str) -> bool:
    """Turn addresses of LaunchDarkly's servers in *config* into *url*; tell whether there were any.

    Meant for an event processor that is being made: the SDK opens its other connections later.
    """
    found = False
    for name, given in _addresses(config).items():
        if f".{_host(given)}".endswith(LAUNCHDARKLYS):
            _set(config, name, url)
            found = True
    return found


def drop_proxy(config: Any) -> None:
    """Let *config* name no proxy itself: it would be used for servers on this machine, too.

    What the user's `HTTPConfig` says otherwise stays, and so does that object.
    """
    http = getattr(config, "http", None)
    if getattr(http, "http_proxy", None) is not None:
        direct: Any = copy.copy(http)
        direct._HTTPConfig__http_proxy = None
        _set(config, "http", direct)


def _set(config: Any, name: str, value: Any) -> None:
    owner = "_AsyncConfig" if is_async(config) else "_Config"
    setattr(config, f"{owner}__{name}", value)


def remote_hosts(config: Any) -> list[str]:
    """Return the hosts that *config* names and that are not this machine."""
    hosts = {_host(given) for given in _addresses(config).values()}
    return sorted(host for host in hosts if host and not is_loopback(host))


def _addresses(config: Any) -> dict[str, str]:
    addresses = {
        "base_uri": getattr(config, "base_uri", None),
        "events_uri": getattr(config, "events_base_uri", None),
        "stream_uri": getattr(config, "stream_base_uri", None),
    }
    return {name: given for name, given in addresses.items() if isinstance(given, str)}


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def null_event_processor(config: Any) -> Any:
    """Return the SDK's event processor that takes events and does nothing."""
    stubs = _internals("ldclient.impl.stubs")
    return stubs.AsyncNullEventProcessor() if is_async(config) else stubs.NullEventProcessor()


def default_event_processor(config: Any) -> Any:
    """Return the SDK's own event processor for *config*, as if we were not there."""
    if is_async(config):
        return _internals("ldclient.impl.events.async_event_processor").DefaultAsyncEventProcessor(
            config
        )
    return _internals("ldclient.impl.events.event_processor").DefaultEventProcessor(config)


def flush_sdk_processor(processor: Any, deadline: float) -> bool:
    """Make the SDK's own sync *processor* send, and wait for it until *deadline*
    (`time.monotonic`).

    Twice, because a flush behind five busy workers is a no-op.

    Returns:
        Whether both rounds ended in time; a closed processor has nothing to wait for. What
        LaunchDarkly answered, the SDK does not tell.
    """
    import threading

    message_of = _internals("ldclient.impl.events.event_processor").EventProcessorMessage
    for _ in range(0 if processor._closed else 2):
        done = threading.Event()
        for message in (message_of("flush", None), message_of("test_sync", done)):
            if not _put(processor._inbox, message, deadline):
                return False
        if not done.wait(max(0.0, deadline - time.monotonic())):
            return False
    return True


def _put(inbox: Any, message: Any, deadline: float) -> bool:
    """Put *message* into the bounded *inbox*, whose reader may be parked, before *deadline*."""
    import queue

    try:
        inbox.put(message, timeout=max(0.001, deadline - time.monotonic()))
    except queue.Full:
        return False
    return True
