from pathlib import Path

import pytest
from tests.unit.examples.loading import COUNT_TOKEN, COURTEOUS

from quatrain.jobspec import load_yaml, parse_spec


@pytest.mark.parametrize("folder", [COURTEOUS, COUNT_TOKEN], ids=lambda folder: folder.name)
def test_the_spec_is_valid(folder: Path) -> None:
    assert parse_spec(load_yaml(folder / "spec.yaml")).name == folder.name
