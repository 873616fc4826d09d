"""The page on statistics: its program prints what stands below it; its defaults are true."""

from __future__ import annotations

import re
from pathlib import Path

from ldinstrument.analysis import AnalysisOptions, least_units

PAGE = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")


def test_the_program_prints_what_stands_below_it(capsys):
    """What a reader copies does what the page says."""
    program, printed = re.findall(r"```(?:python)?\n(.*?)```", PAGE, re.DOTALL)[:2]
    exec(compile(program, "docs/statistics.md", "exec"), {})
    assert capsys.readouterr().out == printed


def _numbers(table: str, name: str) -> tuple[float, ...]:
    """The numbers of an option that has several: `100; 1,000; 10,000`."""
    (cell,) = re.findall(rf"^\| `{name}` \| (.*?) \|", table, re.MULTILINE)
    return tuple(float(number.replace(",", "")) for number in cell.split("; "))


def test_the_table_of_options_has_every_option_and_its_default():
    """No option is missing on the page, and no default is another one."""
    table = PAGE.split("## Options")[1]
    told = {}
    for names, values in re.findall(r"^\| (`.*?`) \| (.*?) \|", table, re.MULTILINE):
        defaults = re.findall(r'"\w+"|False|[\d.,]+(?=, |$| |`)', values.replace("`", ""))
        for name, default in zip(re.findall(r"`(\w+)`", names), defaults, strict=False):
            told[name] = eval(default.rstrip(",").replace(",", ""))
    told.pop("AnalysisOptions", None)
    told["concentrations"] = _numbers(table, "concentrations")
    options = AnalysisOptions()
    assert told == {name: getattr(options, name) for name in AnalysisOptions.__dataclass_fields__}


def test_the_units_that_a_percentile_needs_are_those_on_the_page():
    """Figures in prose are computed."""
    assert f"{least_units(95)} for P95, {least_units(99)} for P99" in PAGE
