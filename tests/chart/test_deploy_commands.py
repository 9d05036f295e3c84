"""The commands of docs/deploy.md: those of each section are checked somewhere, those for GPUs at least render."""

import re
import subprocess
from pathlib import Path

import pytest
from tests.cluster.deploy_commands import CHECKED, DEPLOY_PAGE, RENDERED, REPLACED, script
from tests.cluster.programs import HELM, require
from tests.unit.docs.pages import ROOT, code_blocks, text_of


def test_the_commands_of_every_section_are_checked() -> None:
    sections = re.split(r"^## (.*)\n", text_of(DEPLOY_PAGE), flags=re.MULTILINE)
    with_commands = {head for head, text in zip(sections[1::2], sections[2::2], strict=True) if code_blocks(text, "sh")}

    assert with_commands == set(CHECKED)
    assert not code_blocks(sections[0], "sh")


def test_what_is_replaced_stands_on_the_page() -> None:
    commands = "\n".join(code_blocks(text_of(DEPLOY_PAGE), "sh"))
    for part in REPLACED:
        assert commands.count(part) == 1, part


@pytest.mark.parametrize("heading", [heading for heading, check in CHECKED.items() if check == RENDERED])
def test_installations_for_gpus_render(heading: str, tmp_path: Path) -> None:
    rendering = script(heading).replace("helm install", f"{require(HELM)} template --api-versions=keda.sh/v1alpha1")

    done = subprocess.run(
        ["bash", "-c", rendering], cwd=ROOT, capture_output=True, text=True, timeout=120.0, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("nvidia.com/gpu") > 4
