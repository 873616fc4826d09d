"""What the running programs say of themselves: their warnings, for `ldinstrument doctor`.

The answer to a POST of events names the route; ldinstrument's sender then posts what its process
has warned about. Nothing of it goes to LaunchDarkly.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..database import Database, Document
from ..database_thread import DatabaseThread
from ..request_body import read_body
from ..responses import decode, invalid, now_ms
from .intake import PROGRAM, IntakeRoutes

MOST_BYTES = 65_536
MOST_PROGRAMS = 50
COLLECTION = "program"


class ProgramRoutes:
    """Takes what programs say, and lists it.

    Args:
        database_thread: where the database work is done.
        database: where it is kept.
        intake: knows which SDK keys are accepted.
    """

    def __init__(self, database_thread: DatabaseThread, database: Database, intake: IntakeRoutes):
        self.database_thread = database_thread
        self.database = database
        self.intake = intake

    def routes(self) -> list[Route]:
        """Return the route of programs, and that of whoever asks about them."""
        return [
            *(Route(path, self._take, methods=["POST"]) for path in PROGRAM.values()),
            Route("/dev/programs", self._list),
        ]

    async def _take(self, request: Request) -> Response:
        self.intake.check_key(request)
        body = await read_body(request, MOST_BYTES)
        try:
            told = _checked(decode(body))
        except (ValueError, TypeError, KeyError):
            raise invalid("expected id, pid and warnings") from None
        await self.database_thread.run(self._keep, told)
        return Response(status_code=202)

    def _keep(self, told: Document) -> None:
        self.database.put(COLLECTION, "", told["id"], told)
        known = self.database.documents(COLLECTION)
        for old in sorted(known, key=lambda program: program["received"])[:-MOST_PROGRAMS]:
            self.database.remove(COLLECTION, "", old["id"])

    async def _list(self, request: Request) -> Response:
        return JSONResponse(await self.database_thread.read(self.database.documents, COLLECTION))


def _checked(told: Any) -> Document:
    """Return what a program has said with nothing else in it."""
    return {
        "id": str(told["id"])[:64],
        "pid": int(told["pid"]),
        "received": now_ms(),
        "warnings": [
            [str(cause)[:200], str(subject)[:200], int(count)]
            for cause, subject, count in told["warnings"]
        ],
    }
