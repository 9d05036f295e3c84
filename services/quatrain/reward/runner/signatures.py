"""What a function asks for in its signature, against the keywords that it is called with."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

GIVEN_ALWAYS = (
    *("prompts", "completions", "prompt_ids", "completion_ids", "finish_reasons"),
    *("trainer_state", "log_extra", "log_metric"),
)

READY_MADE = "quatrain.rewards."


@dataclass(frozen=True)
class _Style:
    """How another system names its arguments, and what they are called here."""

    system: str
    arguments: tuple[str, ...]
    here: str


OTHER_STYLES = (
    _Style("OpenRLHF", ("queries", "prompts", "labels"), "queries are prompts + completions, labels is a column"),
    _Style(
        "verl",
        ("data_source", "solution_str", "ground_truth", "extra_info"),
        "solution_str is one of completions, ground_truth and data_source are columns; verl calls it once for each "
        "sample, here it gets lists and returns one",
    ),
    _Style("trlx", ("samples", "prompts", "outputs"), "outputs are completions, samples are prompts + completions"),
)


class BadSignature(Exception):
    """The function cannot be called with the keywords of the convention; the message says what would fit."""


def check_signature(function: Callable[..., Any], given: Collection[str], args: Collection[str] = ()) -> None:
    """Raise BadSignature unless the function can be called with these keywords, `args` of the spec among them."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # Compiled functions may have none: the call shows what they take.
        return
    by_name = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    needed = [each.name for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_ONLY]
    needed += [each.name for each in by_name if each.default is each.empty]
    missing = [name for name in needed if name not in given or name not in {each.name for each in by_name}]
    unknown = [name for name in args if name not in {each.name for each in by_name}]
    if unknown and getattr(function, "__module__", "").startswith(READY_MADE):  # Others may read their **kwargs.
        own = [each.name for each in by_name if each.name not in GIVEN_ALWAYS]
        raise BadSignature(f"has no argument {unknown[0]!r}; its `args` are {', '.join(own)}")
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters)
    names = {each.name for each in by_name}
    unwanted = [] if takes_all else [name for name in given if name not in names]
    if not missing and not unwanted:
        return
    raise BadSignature(_explain(inspect.signature(function), missing, unwanted, given))


def _explain(
    signature: inspect.Signature, missing: Collection[str], unwanted: Collection[str], given: Collection[str]
) -> str:
    columns = [name for name in given if name not in GIVEN_ALWAYS]
    style = _recognised(signature, missing)
    if style is not None:
        return (
            f"takes {style.system}'s arguments ({', '.join(signature.parameters)}), and is called by TRL's convention: "
            f"{style.here}. Write it as `def function(prompts, completions, **kwargs)` that returns one number for "
            f"each sample. What was passed: {', '.join(given)}"
        )
    if missing:
        there = f"the columns of the rows are {', '.join(columns)}" if columns else "the rows have no further columns"
        what = f"{'column' if len(missing) == 1 else 'columns'} {', '.join(map(repr, missing))}"
        return (
            f"asks for the {what}, which the rows do not have: {there}. Name one that is there, give the parameter "
            "a default, add the column to the prompts, or give the value in `args` of the function"
        )
    return (
        f"takes ({', '.join(signature.parameters)}) only, and was passed {', '.join(given)}: unexpected keyword "
        f"argument{'s' if len(unwanted) > 1 else ''} {', '.join(unwanted)}. Add **kwargs, as TRL's convention has it, "
        "for all that it does not use"
    )


def _recognised(signature: inspect.Signature, missing: Collection[str]) -> _Style | None:
    """Return the other system whose names are most of those that are missing here."""
    for style in OTHER_STYLES:
        own = [name for name in style.arguments if name not in GIVEN_ALWAYS]
        shared = [name for name in own if name in signature.parameters]
        if set(shared) & set(missing) and len(shared) >= 2:
            return style
    return None
