"""Both majors of wrapt: what is no plain function is a proxy of it, and must pass with either.

The suite runs with the installed one. With `OTHER_WRAPT` naming a folder that holds another major
(`pip install --target FOLDER 'wrapt<2'`), the tests of proxies run with that one, too, in a process
of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OTHER = "OTHER_WRAPT"


def test_the_installed_major_is_one_we_promise() -> None:
    """`wrapt>=1.17,!=2.2.0,<3`."""
    version = metadata.version("wrapt")
    assert version != "2.2.0"
    assert (1, 17) <= tuple(int(part) for part in version.split(".")[:2]) < (3, 0)


def test_the_other_major(other_wrapt: str) -> None:
    """Descriptors, pickling, copying and awaitables with the major that is not installed."""
    program = (
        "import sys, wrapt, pytest; assert wrapt.__version__.split('.')[0] != sys.argv[1], "
        "wrapt.__version__; "
        "raise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[2:]]))"
    )
    files = [str(HERE / name) for name in ("test_transparency.py", "test_matrix.py")]
    mine = metadata.version("wrapt").partition(".")[0]
    environment = {**os.environ, "PYTHONPATH": other_wrapt}
    environment.pop(OTHER, None)
    ran = subprocess.run(
        [sys.executable, "-c", program, mine, *files],
        capture_output=True,
        text=True,
        timeout=110,
        env=environment,
        cwd=HERE.parents[1],
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]


@pytest.fixture(name="other_wrapt")
def _other_wrapt() -> str:
    folder = os.environ.get(OTHER, "")
    if not folder:
        pytest.skip(
            f"set {OTHER} to a folder with the other major: pip install --target FOLDER 'wrapt<2'"
        )
    return folder
