"""The default rendering as a whole, so that a review shows what a change of the templates does.

QUATRAIN_UPDATE_SNAPSHOTS=1 writes it anew.
"""

import os
import re
from pathlib import Path

from tests.chart.rendering import Rendered, render

SNAPSHOT = Path(__file__).parent / "snapshots" / "default.yaml"
RANDOM = re.compile(
    r"^(  (?:token|tokens\.yaml|password|url|auth\.conf|access-key|secret-key): )\S+$", flags=re.MULTILINE
)


def test_default_rendering() -> None:
    text = stable(render())
    assert "import " not in text, "scripts are files of their own"
    if os.environ.get("QUATRAIN_UPDATE_SNAPSHOTS") == "1":
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8")


def stable(rendered: Rendered) -> str:
    """Without what is random, and without the scripts, which are files of their own."""
    text = RANDOM.sub(r"\1*", rendered.text)
    return re.sub(r"^  (\w+\.py): \|\n(?:(?:    .*| *)\n)*", r"  \1: *\n", text, flags=re.MULTILINE)
