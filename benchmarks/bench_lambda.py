"""What `lambda_handler` costs: milliseconds on the response, milliseconds of import.

The same handler four times, under AWS's own runtime client and frozen after each invocation, events
over TLS with 40 ms there and back: bare, with the plain SDK's flush(), and with lambda_handler in
both modes. The four take turns, so that a busy machine is busy for all of them. Imports are timed
in fresh processes, all of them compiled before.

    python benchmarks/bench_lambda.py [--invocations 100] [--imports 15]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "lambda"))

from local_lambda.intake import Intake
from local_lambda.sandbox import Function
from local_lambda.state import Invocation

WARM_UP = 10

SDK = """
import os, ldclient
from ldclient.config import Config, HTTPConfig
URI, HTTP = os.environ["LAUNCHDARKLY_EVENTS_URI"], HTTPConfig(ca_certs=os.environ["EVENTS_CA_FILE"])
"""
OURS = f"""{SDK}
import ldinstrument as ld
from ldinstrument.integrations.aws_lambda import lambda_handler
ldclient.set_config(ld.launchdarkly_config(events_only=True, http=HTTP))
ldclient.get()
@lambda_handler(context=lambda event, context: event["user"], deliver=os.environ["DELIVER"])
def handler(event, context):
    return {{"statusCode": 200}}
"""
PLAIN = f"""{SDK}
ldclient.set_config(Config("sdk-key", base_uri=URI, stream_uri=URI, events_uri=URI, use_ldd=True,
                           diagnostic_opt_out=True, http=HTTP))
client = ldclient.get()
def handler(event, context):
    who = ldclient.Context.create(event["user"])
    for key in ("invocation.duration", "invocation.success_rate", "invocation.interactions"):
        client.track(key, who, {{"sessionId": context.aws_request_id}}, 1.0)
    client.flush()
    return {{"statusCode": 200}}
"""
BARE = "def handler(event, context): return {'statusCode': 200}"
VARIANTS = {
    "bare handler": (BARE, ""),
    "plain SDK, flush()": (PLAIN, ""),
    "before_response": (OURS, "before_response"),
    "after_response": (OURS, "after_response"),
}

IMPORTS = """
import sys, time
began = time.perf_counter()
import ldclient
loaded = time.perf_counter()
import ldinstrument
from ldinstrument.integrations.aws_lambda import lambda_handler
from ldinstrument.delivery import launchdarkly_config, flush
print(loaded - began, time.perf_counter() - loaded)
"""


def responses(rounds: int) -> None:
    """Print the table of response times, and what arrived before the freeze."""
    with tempfile.TemporaryDirectory() as name, Intake(Path(name)) as intake:
        functions = {variant: _deployed(Path(name), intake, variant) for variant in VARIANTS}
        done: dict[str, list[Invocation]] = {variant: [] for variant in VARIANTS}
        for number in range(WARM_UP + rounds):
            for variant, function in functions.items():
                done[variant].append(function.invoke({"user": f"user-{number}"}))
                function.finish()
        for function in functions.values():
            function.close()
        arrived = {
            event["data"]["sessionId"]: event["received"]
            for event in intake.events("invocation.duration")
        }
    bare = statistics.median(
        invocation.response_ms for invocation in done["bare handler"][WARM_UP:]
    )
    print(
        f"{'response, ms':<20} {'median':>8} {'p99':>8} {'added':>8} {'held after':>11} {'before freeze':>14}"
    )
    for variant, invocations in done.items():
        warm = invocations[WARM_UP:]
        times = sorted(invocation.response_ms for invocation in warm)
        median, p99 = statistics.median(times), times[max(0, round(0.99 * len(times)) - 1)]
        held = statistics.median(invocation.held_ms for invocation in warm)
        in_time = sum(
            arrived.get(invocation.request_id, float("inf")) <= (invocation.frozen or 0.0)
            for invocation in warm
        )
        said = "-" if variant == "bare handler" else f"{in_time} of {len(warm)}"
        print(
            f"{variant:<20} {median:>8.2f} {p99:>8.2f} {median - bare:>+8.2f} {held:>11.2f} {said:>14}"
        )


def _deployed(folder: Path, intake: Intake, variant: str) -> Function:
    module, mode = VARIANTS[variant]
    place = folder / variant.split()[0]
    place.mkdir()
    (place / "app.py").write_text(module)
    environment = {
        "DELIVER": mode,
        "LAUNCHDARKLY_SDK_KEY": "sdk-local",
        "LAUNCHDARKLY_EVENTS_URI": intake.uri,
        "EVENTS_CA_FILE": str(intake.certificate),
    }
    return Function("app.handler", place, environment=environment)


def imports(runs: int) -> None:
    """Print what an import of ours adds to a loaded `ldclient`, as a share of `import ldclient`
    itself.
    """
    with tempfile.TemporaryDirectory() as compiled:
        pairs = [_import_times(compiled) for _ in range(runs + 2)][2:]  # the first ones compile
    theirs, ours = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
    share = statistics.median(mine / other for other, mine in pairs)
    print(
        f"\nimport ldclient {theirs:.0f} ms, ours on top of it {ours:.1f} ms: {share:.1%} (at most 15 %)"
    )


def _import_times(compiled: str) -> tuple[float, float]:
    command = [sys.executable, "-c", IMPORTS]
    variables = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    printed = subprocess.run(
        command, env=variables, capture_output=True, text=True, check=True
    ).stdout
    theirs, ours = json.loads(f"[{printed.strip().replace(' ', ',')}]")
    return theirs, ours


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--invocations", type=int, default=100)
    parser.add_argument("--imports", type=int, default=15)
    options = parser.parse_args()
    responses(options.invocations)
    imports(options.imports)


if __name__ == "__main__":
    main()
