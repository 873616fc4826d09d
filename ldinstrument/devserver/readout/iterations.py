"""Iterations of an experiment: from a start to a stop, each with its own exposures.

The first one starts by itself with the first exposure. While none runs, exposures count for
nothing, and events of one that was stopped count until its stop.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from ..database import Database
from ..events.measurement_log import MeasurementLog
from ..events.parsing import BIGGEST
from ..responses import now_ms

SCHEMA = """
CREATE TABLE IF NOT EXISTS iterations (
  id INTEGER PRIMARY KEY, flag INTEGER NOT NULL, started INTEGER NOT NULL,
  stopped INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Iteration:
    """One iteration of the experiment on a flag.

    Args:
        id: its number in the database.
        flag: the flag's key.
        number: 1 for the first iteration of this flag.
        started: epoch milliseconds; 0 for one that started by itself.
        stopped: epoch milliseconds; None while it runs.
    """

    id: int
    flag: str
    number: int
    started: int
    stopped: int | None

    @property
    def running(self) -> bool:
        """Return whether it goes on."""
        return self.stopped is None


class Iterations:
    """Starts, stops and lists iterations."""

    def __init__(self, database: Database, log: MeasurementLog):
        self.database = database
        self.log = log

    def of(self, flag: str) -> list[Iteration]:
        """Return the iterations of a flag, oldest first."""
        found = self.database.rows(
            "SELECT i.id, i.started, i.stopped FROM iterations i JOIN names n ON n.id = i.flag "
            "WHERE n.space = 'flag' AND n.name = ? ORDER BY i.id",
            (flag,),
        )
        return [
            Iteration(id, flag, number, started, None if stopped == BIGGEST else stopped)
            for number, (id, started, stopped) in enumerate(found, 1)
        ]

    def flags(self) -> list[str]:
        """Return the flags that have an iteration, in alphabetical order."""
        return [
            flag
            for (flag,) in self.database.rows(
                "SELECT DISTINCT n.name FROM iterations i JOIN names n ON n.id = i.flag ORDER BY 1"
            )
        ]

    def start(self, flag: str, at: int | None = None) -> Iteration:
        """Start an iteration; the one that runs is stopped at the same moment."""
        moment = now_ms() if at is None else at
        with self.database.changing() as connection:
            number = self.log.name_id(connection, "flag", flag)
            _stop(connection, number, moment)
            connection.execute(
                "INSERT INTO iterations VALUES (NULL, ?, ?, ?)", (number, moment, BIGGEST)
            )
        return self.of(flag)[-1]

    def stop(self, flag: str, at: int | None = None) -> Iteration | None:
        """Stop the iteration that runs; None when none does."""
        moment = now_ms() if at is None else at
        with self.database.changing() as connection:
            number = self.log.name_id(connection, "flag", flag)
            if not _stop(connection, number, moment):
                if self.of(flag):
                    return None
                values = (number, 0, moment)  # one that started by itself, if anybody was exposed
                connection.execute("INSERT INTO iterations VALUES (NULL, ?, ?, ?)", values)
        return self.of(flag)[-1]


def _stop(connection: sqlite3.Connection, flag: int, moment: int) -> int:
    sql = "UPDATE iterations SET stopped = ? WHERE flag = ? AND stopped = ?"
    return connection.execute(sql, (moment, flag, BIGGEST)).rowcount
