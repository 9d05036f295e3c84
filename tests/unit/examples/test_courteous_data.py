import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from tests.unit.examples.loading import COURTEOUS, script

from quatrain.data import load_pairs, load_prompts, load_sft

Row = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("courteous")
    script(COURTEOUS, "make_data").make(made)
    return made


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_bytes_are_those_of_the_readme(folder: Path) -> None:
    stated = dict(re.findall(r"`([\w-]+\.jsonl)`.*`([0-9a-f]{64})`", (COURTEOUS / "README.md").read_text()))
    made = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert stated == made


def test_quatrain_reads_every_row(folder: Path) -> None:
    sft, sft_report = load_sft(folder / "sft.jsonl")
    prompts, prompts_report = load_prompts(folder / "prompts.jsonl")

    assert (len(sft), len(prompts)) == (2400, 2000)
    assert not sft_report.dropped
    assert not prompts_report.dropped


def test_transcripts_and_trl_rows_are_the_same_pairs(folder: Path) -> None:
    standard, standard_report = load_pairs(folder / "preferences.jsonl")
    transcripts, transcripts_report = load_pairs(folder / "preferences-hh.jsonl")

    assert (standard_report.format, transcripts_report.format) == ("trl-standard", "hh-rlhf")
    assert standard == transcripts
    assert len(standard) == 3000


def test_held_out_messages_stand_nowhere_else(folder: Path) -> None:
    held_out = {row["prompt"] for row in rows(folder / "held_out.jsonl")}
    others = {row["prompt"] for name in ("sft", "preferences", "prompts") for row in rows(folder / f"{name}.jsonl")}

    assert len(held_out) == 128
    assert held_out.isdisjoint(others)


def test_labels_come_from_the_stated_coin(folder: Path) -> None:
    gold = script(COURTEOUS, "gold").gold
    pairs = rows(folder / "preferences.jsonl")
    prompts = [row["prompt"] for row in pairs]
    chosen, rejected = (gold(prompts, [row[side] for row in pairs]) for side in ("chosen", "rejected"))
    gains = [abs(a - b) for a, b in zip(chosen, rejected, strict=True)]

    upset = sum(a < b for a, b in zip(chosen, rejected, strict=True))
    expected = sum(1 / (1 + math.exp(gain)) for gain in gains if gain > 0)

    assert abs(upset - expected) < 4 * math.sqrt(expected)
    assert 0.07 < upset / len(pairs) < 0.1


def test_most_flaws_are_repetitions_of_the_other_reply(folder: Path) -> None:
    told = script(COURTEOUS, "gold").told
    pairs = rows(folder / "preferences.jsonl")
    again = [row for row in pairs if any(told(row[side].strip())[1] for side in ("chosen", "rejected"))]

    assert 0.35 < len(again) / len(pairs) < 0.5
    assert sum(told(row["rejected"].strip())[1] > 0 for row in again) > 0.9 * len(again)
    assert not any(told(row["completion"].strip())[1] for row in rows(folder / "sft.jsonl"))


def test_texts_vary(folder: Path) -> None:
    sft = rows(folder / "sft.jsonl")
    shapes = {re.sub(r"\d+", "0", row["completion"]) for row in sft}

    assert len({row["prompt"] for row in sft}) == len(sft)
    assert len(shapes) > 0.7 * len(sft)
