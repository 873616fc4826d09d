"""Run the handler under AWS's own runtime client, frozen after each invocation, and count what
arrived.

python run_local.py                  # both modes, 100 invocations each
python run_local.py --invocations 20 --round-trip 0.2
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from local_lambda.intake import Intake
from local_lambda.sandbox import Function
from local_lambda.state import Invocation

FOLDER = Path(__file__).resolve().parent
MODES = ("before_response", "after_response")


@dataclass(frozen=True)
class Run:
    """What became of one mode's invocations.

    Args:
        mode: the delivery mode.
        invocations: in order.
        arrived: by request id, when the `invocation.duration` event of each was in the server's
            hands.
        duplicates: payloads that LaunchDarkly would have counted once, but got more than once.
        log: what the function printed.
    """

    mode: str
    invocations: list[Invocation]
    arrived: dict[str, float]
    duplicates: int
    log: str

    @property
    def lost(self) -> int:
        """Invocations whose events never arrived."""
        return sum(invocation.request_id not in self.arrived for invocation in self.invocations)

    @property
    def in_time(self) -> int:
        """Invocations whose events were in the server's hands before the sandbox froze."""
        return sum(
            invocation.frozen is not None
            and self.arrived.get(invocation.request_id, float("inf")) <= invocation.frozen
            for invocation in self.invocations
        )


def run(mode: str, invocations: int, round_trip: float) -> Run:
    """Invoke the example *invocations* times, then kill it without a thaw, as Lambda does."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Intake(Path(folder), round_trip=round_trip) as intake,
    ):
        environment = {
            "DELIVER": mode,
            "LAUNCHDARKLY_SDK_KEY": "sdk-local",
            "LAUNCHDARKLY_EVENTS_URI": intake.uri,
            "EVENTS_CA_FILE": str(intake.certificate),
        }
        with Function("handler.handler", FOLDER, environment=environment) as function:
            done = []
            for number in range(invocations):
                done.append(function.invoke({"userId": f"user-{number}", "items": 1 + number % 3}))
                function.finish()
                if done[-1].outcome != "ok":
                    raise SystemExit(
                        f"invocation {number} {done[-1].outcome}; "
                        f"the function said:\n{function.log()}"
                    )
            log = function.log()
        arrived = {
            event["data"]["sessionId"]: event["received"]
            for event in intake.events("invocation.duration")
        }
        return Run(mode, done, arrived, intake.duplicates, log)


def row(result: Run) -> str:
    """One line of the table; the first invocation is cold, so it is not in the medians."""
    warm = result.invocations[1:] or result.invocations
    response, held = (
        statistics.median(getattr(invocation, name) for invocation in warm)
        for name in ("response_ms", "held_ms")
    )
    return (
        f"{result.mode:<16} {len(result.invocations):>11} {result.lost:>5} {result.in_time:>13} "
        f"{result.duplicates:>10} {response:>13.1f} {held:>9.1f}"
    )


def main() -> int:
    """Print the table; the exit status is 1 when an event was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--invocations", type=int, default=100)
    parser.add_argument(
        "--round-trip", type=float, default=0.04, help="seconds to LaunchDarkly and back"
    )
    options = parser.parse_args()
    print("mode             invocations  lost  before freeze duplicates   response ms   held ms")
    lost = 0
    for mode in MODES:
        result = run(mode, options.invocations, options.round_trip)
        lost += result.lost
        print(row(result), flush=True)
        if result.log.strip():
            print(result.log.strip())
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
