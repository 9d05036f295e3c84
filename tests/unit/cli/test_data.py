"""`data preview|stats|convert`, and sets of several files: what a person sees of their rows."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.unit.text.folders import CHATML, bpe_tokenizer, write_folder

Cli = Callable[..., tuple[int, str, str]]
PAIRS = [
    {"prompt": "Where is\tit?", "chosen": " Here.\nLook.", "rejected": " No", "score_chosen": 3, "score_rejected": 1},
    {"prompt": "Where is it?", "chosen": " Here!  look", "rejected": " NO.", "score_chosen": 4, "score_rejected": 1},
]


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def model(folder: Path) -> Path:
    return write_folder(folder, bpe_tokenizer(), {"eos_token": "<|im_end|>", "chat_template": CHATML})


def test_preview_shows_every_character_and_trims_nothing(cli: Cli, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *PAIRS)

    code, out, err = cli("data", "preview", str(path), "--rows", "1")

    assert code == 0
    shown = {"prompt": "Where is\\tit?", "chosen": " Here.\\nLook.", "rejected": " No", "margin": "2.0"}
    assert out == "line 1\n" + "".join(f"  {name}:\n    {text}\n" for name, text in shown.items())
    assert "trl-standard" in err


def test_preview_shows_tokens_and_the_end(cli: Cli, tmp_path: Path) -> None:
    row = {
        "prompt": [{"role": "user", "content": "Hello, where is my parcel?"}],
        "completion": "Your refund will arrive.",
    }
    path = jsonl(tmp_path / "a.jsonl", row)

    code, out, _ = cli("data", "preview", str(path), "--tokenizer", str(model(tmp_path / "model")))

    assert code == 0
    lines = out.splitlines()
    assert lines[2].replace("│", "").strip().startswith("<|im_start|>user\\nHello, where is my parcel?<|im_end|>")
    assert lines[4].endswith("│<|im_end|>")
    assert "│" in lines[2]


def test_stats_count_what_tells_answers_apart(cli: Cli, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *PAIRS, PAIRS[0])

    code, out, err = cli("data", "stats", str(path), "-o", "json")

    figures = json.loads(out)
    assert code == 0
    assert (figures["rows"], figures["duplicates"], figures["different_prompts"]) == (3, 1, 2)
    assert figures["near_duplicates"] == 2
    assert figures["chosen_longer_share"] == 1.0
    assert figures["margins"]["max"] == 3.0
    assert figures["lengths"]["chosen"]["max"] == 12
    assert "repeat an earlier row" in err


def test_convert_writes_what_reads_back_equal(cli: Cli, tmp_path: Path) -> None:
    row = {"instruction": "Count.", "input": "one two", "output": "Two."}
    path, to = jsonl(tmp_path / "alpaca.json", row), tmp_path / "out.jsonl"

    assert cli("data", "convert", str(path), "--to", str(to))[0] == 0

    assert json.loads(to.read_text()) == {
        "prompt": [{"role": "user", "content": "Count.\n\none two"}],
        "completion": "Two.",
    }
    shown = cli("data", "preview", str(to), "-o", "json")[1]
    assert shown == cli("data", "preview", str(path), "-o", "json")[1]


def test_convert_leaves_a_file_that_is_there(cli: Cli, tmp_path: Path) -> None:
    path, to = jsonl(tmp_path / "a.jsonl", *PAIRS), tmp_path / "mine.jsonl"
    to.write_text("mine")

    code, _, err = cli("data", "convert", str(path), "--to", str(to))

    assert (code, to.read_text()) == (3, "mine")
    assert "--force" in err
    assert cli("data", "convert", str(path), "--to", str(to), "--force")[0] == 0
    assert len(to.read_text().splitlines()) == 2


def test_a_folder_with_splits_is_read_by_split(cli: Cli, tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", PAIRS[0])
    jsonl(tmp_path / "test.jsonl", PAIRS[1])

    code, out, _ = cli("data", "validate", str(tmp_path), "--split", "test", "-o", "json")

    assert code == 0
    assert json.loads(out)["examples"][0]["prompt"] == "Where is it?"
    code, _, err = cli("data", "validate", str(tmp_path))
    assert code == 3
    assert "test, train" in err


def test_rows_that_a_template_refuses_are_left_out_as_a_job_does(cli: Cli, tmp_path: Path) -> None:
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for message in messages %}{{ message.content }}<|im_end|>{% endfor %}"
    )
    folder = write_folder(tmp_path / "model", bpe_tokenizer(), {"eos_token": "<|im_end|>", "chat_template": template})
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Your refund"}]
    path = jsonl(tmp_path / "a.jsonl", {"messages": turns}, {"messages": [{"role": "system", "content": "x"}, *turns]})

    code, out, _ = cli("data", "validate", str(path), "--tokenizer", str(folder), "-o", "json")

    report = json.loads(out)
    assert code == 0
    assert (report["rows"], report["kept"]) == (2, 1)
    assert [drop["line"] for drop in report["dropped"]] == [2]
    assert "no system" in report["dropped"][0]["reason"]
