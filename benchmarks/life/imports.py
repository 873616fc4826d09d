"""Print the CPU ms of `import ldclient`, and of ours with a first decoration on top of it.

    python benchmarks/life/imports.py

A program of its own: in an interpreter that has loaded what others import, too, nothing is cheap.
"""

import sys
import time

sys.path[:1] = [__file__.rpartition("/benchmarks/")[0]]

began = time.process_time()
import ldclient  # noqa: E402

middle = time.process_time()
import ldinstrument as ld  # noqa: E402


@ld.track_task("answer")
def answer() -> int:
    """Do nothing."""
    return 1


ended = time.process_time()
assert ldclient
print((middle - began) * 1000, (ended - middle) * 1000)
