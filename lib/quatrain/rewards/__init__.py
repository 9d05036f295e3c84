"""Ready-made reward functions: `path: "quatrain.rewards:length_band"` with `args` in a spec, no file needed.

They follow the convention of all reward functions: lists in, one number for each sample out. A completion is a text, or
the messages of a conversation.
"""

from quatrain.rewards.answers import exact_match, numeric_match
from quatrain.rewards.formats import format_tags, json_schema, pattern
from quatrain.rewards.wording import keywords, length_band, repetition

__all__ = [
    "exact_match",
    "format_tags",
    "json_schema",
    "keywords",
    "length_band",
    "numeric_match",
    "pattern",
    "repetition",
]
