"""The table of faults in docs/reliability.md: `python benchmarks/faults.py [--scale 30] [--write]`.

The same scenarios as tests/delivery/test_faults.py, with waits `--scale` times as long.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ["no_proxy"] = "*"
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "delivery")]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
HEADER = (
    "| fault | sent | arrived | dropped by reason | duplicates | posts | most posts per payload "
    "id | seconds | seen |\n"
    "|---|---:|---:|---|---:|---:|---:|---:|---|\n"
)


def table(scale: float) -> tuple[str, bool]:
    """The rows as Markdown, and whether each adds up."""
    import faults
    import ldclient

    lines, fine = [], True
    for fault in faults.FAULTS:
        row = fault(scale)
        fine &= row.adds_up
        print(("ok   " if row.adds_up else "BAD  ") + str(row), flush=True)
        dropped = (
            ", ".join(f"{reason} {count:,}" for reason, count in row.dropped.items()) or "none"
        )
        lines.append(
            f"| {row.fault} | {row.sent:,} | {row.arrived:,} | {dropped} | {row.duplicates} | {row.posts} | "
            f"{row.most_posts} | {row.seconds:.1f} | {row.note} |"
        )
    where = f"CPython {platform.python_version()}, SDK {ldclient.__version__}, `--scale {scale:g}`"
    return f"{HEADER}{chr(10).join(lines)}\n\nMeasured with {where}, on loopback.", fine


def main() -> int:
    """Print, and with `--write` put the table into the page."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--scale", type=float, default=1.0)
    arguments.add_argument("--write", action="store_true")
    given = arguments.parse_args()
    logging.disable(logging.WARNING)
    text, fine = table(given.scale)
    if given.write:
        page = PAGE.read_text()
        before, _, rest = page.partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")
    else:
        print(text)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
