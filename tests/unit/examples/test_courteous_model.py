import json
from pathlib import Path

import pytest
from tests.unit.examples.loading import COURTEOUS, script
from transformers import AutoModelForCausalLM, AutoTokenizer

from quatrain.text import Tokenizer
from quatrain.text.model_folder import check_model_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("courteous")
    script(COURTEOUS, "make_data").make(made)
    for name in ("one", "two"):
        script(COURTEOUS, "make_model").make(made, made / name)
    return made


def test_two_runs_give_the_same_bytes(folder: Path) -> None:
    names = sorted(path.name for path in (folder / "one").iterdir())
    assert "model.safetensors" in names
    assert all((folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes() for name in names)


def test_about_a_million_parameters(folder: Path) -> None:
    facts = check_model_folder(folder / "one")
    assert (facts.vocab_size, facts.max_positions, facts.model_type) == (1024, 1024, "qwen2")
    assert 0.8e6 < facts.parameters < 1.2e6


def test_transformers_reads_the_folder_as_quatrain_does(folder: Path) -> None:
    ours, theirs = Tokenizer.load(folder / "one"), AutoTokenizer.from_pretrained(folder / "one")
    lines = (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()[:100]
    texts = [json.loads(line)["prompt"] for line in lines] + ["naïve café €5 \U0001f600"]

    assert [ours.encode(text) for text in texts] == [theirs(text)["input_ids"] for text in texts]
    assert [ours.decode(ours.encode(text)) for text in texts] == texts
    assert ours.eos_token_ids == (theirs.eos_token_id,) == (0,)
    assert theirs.pad_token_id == 1
    assert AutoModelForCausalLM.from_pretrained(folder / "one").config.pad_token_id == 1
