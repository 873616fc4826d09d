"""A Celery application over Redis: run as the worker, and imported as the sender, by
`test_celery.py`.
"""

from __future__ import annotations

import os

import ldclient
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

import ldinstrument as ld
from ldinstrument.integrations.celery import instrument

# Redis, and not the file system: there a reader may find a message or a result half written.
app = Celery(
    "celery_shop", broker=os.environ["CELERY_SHOP_REDIS"], backend=os.environ["CELERY_SHOP_REDIS"]
)
app.conf.worker_hijack_root_logger = False
instrument(app)
# At import, before prefork forks: the hardest place for a client to be made.
ldclient.set_config(ld.launchdarkly_config("sdk-local"))
ldclient.get()


@app.task
def pack(order: int) -> int:
    ld.track_conversion(2.0)
    return order


@app.task
def break_down() -> None:
    raise ValueError("broken on purpose")


@app.task(soft_time_limit=2)
def linger() -> str:
    ldclient.get().track("lingered", ldclient.Context.create("ada"))
    try:
        ld.flush(60)
    except SoftTimeLimitExceeded:
        return "stopped"
    return "not stopped"


@app.task(bind=True, max_retries=2)
def flaky(self: object) -> str:
    if self.request.retries == 0:  # type: ignore[attr-defined]
        raise self.retry(countdown=0)  # type: ignore[attr-defined]
    return "done"
