import re
from pathlib import Path

import pytest

from quatrain.errors import InvalidSpec
from quatrain.jobspec import parse_spec
from quatrain.jobspec.metric_names import METRIC_NAMES

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()


def test_the_names_are_those_of_the_page() -> None:
    written = set(re.findall(r"^\| `([a-z_0-9/]+)` \|", PAGE, re.MULTILINE))

    assert {name for name in written if not name.startswith("quatrain_")} == set(METRIC_NAMES)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("reward/score_maen", "did you mean 'reward/score_mean'"),
        ("-kl/ref_sequence", "did you mean 'kl/ref_seq"),
        ("bananas", "quatrain job metrics JOB -o name"),
    ],
)
def test_a_metric_that_no_step_has_is_refused(name: str, words: str) -> None:
    document = {"name": "j", "model": {"uri": "m"}, "reward": {"model": "r"}, "ppo": {"prompts": "p", "steps": 1}}
    assert parse_spec({**document, "checkpoint": {"keep_best": "-reward/polite_mean"}})

    with pytest.raises(InvalidSpec, match=r"checkpoint\.keep_best: no step has a metric") as caught:
        parse_spec({**document, "checkpoint": {"keep_best": name}})

    assert words in caught.value.message
