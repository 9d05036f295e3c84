"""The stored outcomes of the families, and the table of docs/models.md that they make."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.families.jobs import REFUSED, Outcome

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- families: make families writes this table -->", "<!-- end of families -->"


def read_results() -> list[Outcome]:
    """Return the stored outcomes."""
    return [Outcome(**entry) for entry in json.loads(RESULTS.read_text(encoding="utf-8"))]


def write_results(outcomes: Sequence[Outcome]) -> None:
    """Store the outcomes and write the page's table anew."""
    RESULTS.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(outcomes)}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the Markdown table."""
    lines = ["| family | `model_type` | runs | sampler against learner, at most |", "|---|---|---|---|"]
    for each in outcomes:
        figure = "-" if each.stages == REFUSED else f"{each.mismatch:.0e}"
        lines.append(f"| {each.title} | `{each.model_type}` | {each.stages} | {figure} |")
    return "\n".join(lines) + "\n"
