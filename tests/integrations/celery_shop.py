"""A Celery application over the file system: run as the worker, and imported as the sender, by `test_celery.py`."""

from __future__ import annotations

import os
from pathlib import Path

import ldclient
from celery import Celery

import ldinstrument as ld
from ldinstrument.integrations.celery import instrument

FOLDER = Path(os.environ["CELERY_SHOP_FOLDER"])
for name in ("queue", "processed", "results"):
    (FOLDER / name).mkdir(parents=True, exist_ok=True)

app = Celery("celery_shop", broker="filesystem://", backend=f"file://{FOLDER}/results")
app.conf.broker_transport_options = {
    "data_folder_in": str(FOLDER / "queue"),
    "data_folder_out": str(FOLDER / "queue"),
    "control_folder": str(FOLDER / "control"),
    "processed_folder": str(FOLDER / "processed"),
}
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


@app.task(bind=True, max_retries=2)
def flaky(self: object) -> str:
    if self.request.retries == 0:  # type: ignore[attr-defined]
        raise self.retry(countdown=0)  # type: ignore[attr-defined]
    return "done"


@app.task
def seen() -> str:
    session = ld.current_session()
    return "none" if session is None else session.name
