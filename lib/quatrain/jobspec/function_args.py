"""Keyword arguments that a spec gives to a reward function: JSON values under names that Python takes."""

import json
import keyword

from pydantic import JsonValue

MAX_BYTES = 64 * 1024
OF_THE_CALL = frozenset(
    ("prompts", "completions", "prompt_ids", "completion_ids", "finish_reasons", "trainer_state", "log_extra")
) | {"log_metric"}
"""What every function is called with anyway."""


def checked_args(args: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the arguments as they are. Raises ValueError for names and values that cannot be passed."""
    for name in args:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"{name[:60]!r} is no name of a parameter")
        if name in OF_THE_CALL:
            raise ValueError(f"{name!r} is what every function is called with; choose another name")
    try:
        size = len(json.dumps(args, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise ValueError(f"values are numbers, texts, lists and mappings, without NaN and infinity ({error})") from None
    if size > MAX_BYTES:
        raise ValueError(f"they have {size} bytes, more than {MAX_BYTES}; upload a folder with a data file")
    return args
