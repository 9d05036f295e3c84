from collections.abc import Callable
from pathlib import Path

import yaml

from quatrain.jobspec import parse_spec

Cli = Callable[..., tuple[int, str, str]]


def test_import_writes_a_spec_and_tells_what_became_what(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "ppo.yaml"
    file.write_text("learning_rate: 3e-6\nvf_coef: 0.1\n")

    code, out, err = cli("spec", "import", "trl", str(file))

    assert code == 0
    assert parse_spec(yaml.safe_load(out)).ppo.optimizer.policy_lr == 3e-6
    assert "ppo.optimizer.policy_lr: 3e-06  <- learning_rate" in err
    assert "vf_coef: " in err
    assert "model.uri, the model to train" in err


def test_a_tool_that_is_not_known_is_named(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("spec", "import", "axolotl", str(tmp_path / "x.yaml"))

    assert code == 3
    assert "trl, openrlhf, verl" in err
