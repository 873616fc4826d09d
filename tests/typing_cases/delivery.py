"""Never run, only type-checked: one processor and one plugin for either kind of `Config`."""

from functools import partial

from ldclient import Config
from ldclient.async_config import AsyncConfig

from ldinstrument.delivery import (
    EventProcessor,
    FlushReport,
    Plugin,
    aflush,
    flush,
    launchdarkly_config,
)

config: Config = launchdarkly_config("sdk-key", events_only=True, spool="/tmp/spool")
plain = Config("sdk-key", plugins=[Plugin()], event_processor_class=EventProcessor)
with_options = Config("sdk-key", event_processor_class=partial(EventProcessor, spool="/tmp/spool"))
asynchronous = AsyncConfig("sdk-key", plugins=[Plugin()], event_processor_class=EventProcessor)
report: FlushReport = flush(2.0)


async def main() -> FlushReport:
    """The async twin."""
    return await aflush(2.0)
