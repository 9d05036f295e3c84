"""`docs/extending.md` names files that are there, and says how many each addition takes."""

import re

from tests.unit.docs.pages import ROOT, section, text_of

PAGE = "docs/extending.md"
FILE = re.compile(r"`((?:lib|services|orchestrator|proto|docs|docker)/[^`\s]+\.[a-z]+)`")
ADDITIONS = {
    "a metric": "A metric",
    "a field of the spec": "A field of the spec",
    "an advantage estimator with a critic": "An advantage estimator",
    "an advantage estimator without a critic": "An advantage estimator",
    "an inference engine": "An inference engine",
    "a stage": "A stage",
}


def test_the_files_exist() -> None:
    files = FILE.findall(text_of(PAGE))

    assert len(files) > 20
    missing = [name for name in files if "NAME" not in name and not (ROOT / name).is_file()]
    assert missing == []
    # A new file goes into a folder that is there.
    assert [name for name in files if "NAME" in name and not (ROOT / name).parent.is_dir()] == []


def test_each_list_is_as_long_as_the_table_says() -> None:
    counts = dict(re.findall(r"^\| (an? [^|]+?) \| (\d+)(?: and \d protos?)? \|", text_of(PAGE), re.MULTILINE))

    assert counts.keys() == ADDITIONS.keys()
    for addition, heading in ADDITIONS.items():
        steps = re.findall(r"^\d+\. (.*)$", section(PAGE, heading), re.MULTILINE)
        of_the_product = [step for step in steps if not step.startswith("`proto/")]
        assert len(of_the_product) == int(counts[addition]), addition
