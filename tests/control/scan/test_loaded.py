"""Which standard metrics the modules use that are loaded in a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ASK = """
if __name__ == "__main__":
    from ldinstrument.scan.loaded import standard_metrics_in_use
    used = standard_metrics_in_use()
    print(used if used is None else sorted(used))
"""


def told(folder: Path, **sources: str) -> str:
    """Run `app`, with the other modules beside it; what it is told of the metrics in use."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    program = folder / "app.py"
    program.write_text(program.read_text() + ASK)
    done = subprocess.run(
        [sys.executable, program], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


def test_uses_in_bodies_of_every_loaded_module_count(tmp_path: Path) -> None:
    """Also where only a function imports us."""
    late = "def f():\n    import ldinstrument as ld\n    ld.track_revenue(3.0)\n"
    early = "import ldinstrument as ld\ndef g(): ld.track_conversion(1)\n"

    used = told(tmp_path, app="import late, early", late=late, early=early)

    assert used == "['business.conversion', 'revenue.impact']"


def test_modules_that_are_not_loaded_do_not_count(tmp_path: Path) -> None:
    """They are somebody else's program, as far as this process is concerned."""
    unused = "import ldinstrument as ld\ndef g(): ld.track_conversion(1)\n"

    used = told(tmp_path, app="import ldinstrument as ld\nld.track_task\n", unused=unused)

    assert used == "[]"


def test_a_definition_is_warned_of_once(tmp_path: Path) -> None:
    """Reading its source warns nobody again, and nothing fails where warnings are errors."""
    program = tmp_path / "app.py"
    program.write_text(
        "import ldinstrument as ld, warnings\n"
        "warnings.simplefilter('error')\n"
        "try: ld.Metric('cart.size', unit='items', success_criteria='HigherThanBaseline', rollup='sum')\n"
        "except UserWarning as told: print(type(told).__name__)\n"
        "from ldinstrument.scan.loaded import standard_metrics_in_use\n"
        "print(standard_metrics_in_use())\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)

    assert (done.stdout.split(), done.stderr) == (["MetricWarning", "set()"], "")


def test_a_program_without_source_is_not_judged() -> None:
    """Typed at a prompt, frozen, compiled: then every metric is needed."""
    program = (
        "import ldinstrument as ld; ld.track_task\n"
        "from ldinstrument.scan.loaded import standard_metrics_in_use\n"
        "print(standard_metrics_in_use())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )

    assert done.stdout.strip() == "None"
