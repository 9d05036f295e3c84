"""`reward test`: what a reward says, before a job is made of it."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from quatrain.cli.jobs import Overrides
from quatrain.cli.output import Format, Output, hint, number, one_line, plain, print_data, print_names, print_table
from quatrain.client import Client, RewardTest, ScoredRow
from quatrain.errors import InvalidData, RewardFunctionError

reward = typer.Typer(no_args_is_help=True, help="Try rewards.")


@reward.callback()
def root() -> None:
    """Try rewards."""


@reward.command("test")
def try_reward(
    file: Annotated[str, typer.Argument(help="Job spec, YAML or JSON; - reads it from stdin.", metavar="SPEC")],
    n: Annotated[int, typer.Option("--n", min=1, max=64, help="Rows of the prompts, spread over all of them.")] = 8,
    completions: Annotated[
        Path | None,
        typer.Option(help="Completions to score: JSON Lines of texts or of objects with `completion`; one a row."),
    ] = None,
    gold: Annotated[bool, typer.Option("--gold", help="ppo.eval_gold on ppo.eval_prompts instead.")] = False,
    overrides: Overrides = None,
    output: Output = Format.table,
) -> None:
    """Score rows of a spec's prompts with its reward, where a job would, and make no job. Exit code 3 when a row fails.

    Example: quatrain reward test job.yaml --n 8 --set reward.timeout=10
    """
    spec: Path | str = sys.stdin.read() if file == "-" else Path(file)
    texts = () if completions is None else read_completions(completions)
    with Client() as client:
        found = client.test_reward(spec, overrides=overrides or (), rows=n, completions=texts, gold=gold)
    for warning in found.warnings:
        hint(f"warning: {warning}")
    if output is Format.name:
        print_names(str(row.row) for row in found.rows)
    elif output is Format.table:
        _print(found)
    else:
        print_data(found, output)
    if not found.sound:
        raise RewardFunctionError(found.together or "not every row has a score: the column OUTCOME says which")


def read_completions(path: Path) -> tuple[str, ...]:
    """Return the completions of a file. Raises InvalidData naming the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidData(f"{path} cannot be read: {error}") from error
    texts = tuple(_completion(path, number, line) for number, line in enumerate(lines, 1) if line.strip())
    if not texts:
        raise InvalidData(f"{path} has no completions; write one a line")
    return texts


def _completion(path: Path, line: int, text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidData(f'{path}:{line}: {one_line(text)!r} is not JSON; write a text with quotes: "..."') from error
    if isinstance(value, dict):
        value = value.get("completion")
    if not isinstance(value, str):
        raise InvalidData(f"{path}:{line}: neither a text nor an object whose `completion` is one")
    return value


def _print(found: RewardTest) -> None:
    names = list(dict.fromkeys(name for row in found.rows for name in row.terms))
    rows = [
        [
            str(row.row),
            row.outcome,
            number(row.score),
            *(number(row.terms.get(name)) for name in names),
            f"{row.seconds:.2f}",
            row.source,
            one_line(row.completion, 40),
        ]
        for row in found.rows
    ]
    print_table(["ROW", "OUTCOME", "SCORE", *names, "SECONDS", "FROM", "COMPLETION"], rows)
    for row in found.rows:
        if row.reason:
            print(plain(f"row {row.row}: {_reason(row)}"))
    for name, value in found.metrics.items():
        print(plain(f"{name}  {number(value)}"))
    hint(f"{len(found.rows)} rows of {found.prompts}, together in {found.together_seconds:.2f} s")
    if any(row.source == "made up" for row in found.rows):
        hint("made-up completions are beginnings of other prompts; --completions FILE scores yours")


def _reason(row: ScoredRow) -> str:
    return f"{row.outcome}: {row.reason}"
