"""The output of `--print-config`: a YAML file that could be used unchanged, with each value's source as a comment."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from quatrain.config.schema import ProcessConfig
from quatrain.config.sources import is_secret

MASK = "********"


def render(config: ProcessConfig, sources: Mapping[str, str]) -> str:
    """Return one line for each value; a secret that is set is shown as asterisks, in a URL only its password."""
    lines: list[str] = []
    for section in ProcessConfig.model_fields:
        lines.append(f"{section}:")
        body = getattr(config, section)
        for key, info in type(body).model_fields.items():
            value = getattr(body, key)
            shown = _shown(mask(value) if is_secret(info) else value)
            lines.append(f"  {key + ':':<20} {shown:<32} # {sources[f'{section}.{key}']}")
    return "\n".join(lines)


def mask(value: object) -> object:
    """Hide a secret; of a URL only the password, so that the host stays readable."""
    if not value:
        return value
    if "://" in str(value):
        return re.sub(r"(://[^:/@]*):[^@]*@", rf"\1:{MASK}@", str(value))
    return MASK


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return json.dumps(list(value))
    return json.dumps(str(value) if isinstance(value, Path) else value)
