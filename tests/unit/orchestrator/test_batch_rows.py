"""What comes over the wire becomes a rollout, a skip, or a refusal that says why; step metrics; model names."""

from typing import Any

import numpy as np
import pytest
from tests.unit.orchestrator.scenery import DIGEST, expected, made_of, make_plan
from tests.unit.text.folders import symbol_tokenizer, write_folder

from quatrain.batches import BatchRow, read_batch, write_batch
from quatrain.data.tables import PromptTable
from quatrain.errors import Corrupt, InvalidInput, NotFound, PermissionRefused
from quatrain.orchestrator.rollout.batch_rows import batch_rows
from quatrain.orchestrator.rollout.samples import ExpectedSample
from quatrain.orchestrator.stages.step_metrics import collected_metrics
from quatrain.orchestrator.submission import model_names
from quatrain.rpc.server.access import LOCAL, Principal, Role
from quatrain.storage.memory import MemoryStore
from quatrain.text import Tokenizer
from quatrain.v1 import common_pb2, rollout_pb2

PLAN = make_plan()
NAN = float("nan")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    return Tokenizer.load(write_folder(folder, symbol_tokenizer("abcdefgh"), {"eos_token": "b"}))


def table() -> PromptTable:
    prompts = [np.array([index % 8], dtype=np.int32) for index in range(10)]
    return PromptTable(prompts, ['"a"'] * 10, ['{"topic": "x"}'] * 10, list(range(10)))


def sealed(tokenizer: Tokenizer, **changes: Any) -> BatchRow:
    batch = expected(PLAN)
    made = [made_of(batch, sample, 0) for sample in batch.samples]
    made[0] = made_of(batch, changes.pop("told", batch.samples[0]), 0, **changes)
    rows = batch_rows(PLAN, batch, made, table(), tokenizer)
    assert [row.status for row in rows[1:]] == ["rollout"] * 5
    assert [row.rollout_id for row in read_batch(write_batch(rows))] == [sample.rollout_id for sample in batch.samples]
    return rows[0]


def outcome(**fields: Any) -> dict[str, Any]:
    return {"scores": [rollout_pb2.ScoreOutcome(name="score", **fields)]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"completion_ids": b""}, "completion of 0 tokens"),
        ({"completion_ids": b"\0\0\0"}, "completion of 0 tokens"),
        ({"completion_ids": np.zeros(500, "<i4").tobytes()}, "completion of 500 tokens"),
        ({"completion_ids": np.array([2, 8, 1], "<i4").tobytes()}, "token outside the vocabulary of 8"),
        ({"completion_ids": np.array([2, -1, 1], "<i4").tobytes()}, "token outside the vocabulary of 8"),
        ({"logprobs": b""}, "sampler logprobs"),
        ({"logprobs": b"odd"}, "sampler logprobs"),
        ({"logprobs": np.array([0, NAN, 0], "<f4").tobytes()}, "sampler logprobs"),
        ({"ref_logprobs": np.array([0, -np.inf, 0], "<f4").tobytes()}, "reference logprobs"),
        ({"ref_logprobs": np.zeros(2, "<f4").tobytes()}, "reference logprobs"),
        ({"finish_reason": common_pb2.FINISH_REASON_UNSPECIFIED}, "the finish reason is missing"),
        ({"scores": []}, "the score is missing"),
        (outcome(status="perfect", score=1.0), "the score is missing"),
        (outcome(status="rollout"), "the score is missing"),
        (outcome(status="rollout", score=NAN), "the score is nan"),
        (outcome(status="refused", reason="term 'x' is inf"), "term 'x' is inf"),
    ],
)
def test_unsound_samples_are_refused_with_the_reason(
    tokenizer: Tokenizer, changes: dict[str, Any], reason: str
) -> None:
    row = sealed(tokenizer, **changes)

    assert row.status == "refused"
    assert reason in row.reason
    assert row.score is None


def test_a_skipped_sample_has_no_score_and_a_term_that_is_no_number_is_null(tokenizer: Tokenizer) -> None:
    terms = [common_pb2.NamedValue(name="x", value=NAN), common_pb2.NamedValue(name="y", value=2.0)]

    row = sealed(tokenizer, **outcome(status="skipped", terms=terms))

    assert (row.status, row.score, row.terms, row.reason) == ("skipped", None, '{"x":null,"y":2.0}', "")


def test_a_rollout_is_what_was_expected_whatever_the_worker_says_of_it(tokenizer: Tokenizer) -> None:
    wrong = ExpectedSample(rollout_id="other", prompt_index=77, sample_index=5, seed=1)
    expected_row = expected(PLAN).samples[0]

    row = sealed(tokenizer, told=wrong, **outcome(status="rollout", score=1.5))

    assert (row.rollout_id, row.prompt_index, row.seed) == (
        expected_row.rollout_id,
        expected_row.prompt_index,
        expected_row.seed,
    )
    assert (row.status, row.score, row.completion, row.policy_digest) == ("rollout", 1.5, "cdb", DIGEST)


def test_collected_metrics_count_each_chunk_once() -> None:
    batch = expected(PLAN)
    logged = [common_pb2.NamedValue(name="words", value=2.0), common_pb2.NamedValue(name="empty")]
    made = [made_of(batch, each, index // 4, reward_metrics=logged) for index, each in enumerate(batch.samples)]

    metrics = collected_metrics(made)

    assert metrics["time/generate"] == 1.0
    assert metrics["completions/tokens"] == 18.0
    assert metrics["reward/logged/words"] == 2.0
    assert "reward/logged/empty" not in metrics


def test_names_are_a_series_of_which_the_newest_is_meant() -> None:
    store = MemoryStore()
    for digest, number in (("a", 1), ("b", 2), ("b", 2), ("a", 3)):
        assert model_names.register(store, "mine", digest, LOCAL).number == number

    assert model_names.resolve_name(store, "models://mine") == "a"
    assert model_names.resolve_name(store, "models://mine@2") == "b"
    assert [(entry.number, entry.digest) for entry in model_names.list_models(store)] == [(1, "a"), (2, "b"), (3, "a")]
    for unknown in ("models://mine@4", "models://other", "models://", "models://../x"):
        with pytest.raises(NotFound, match="known names: mine"):
            model_names.resolve_name(store, unknown)


class ReadKeys(MemoryStore):
    """Notes the keys that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get(self, key: str) -> bytes:
        self.read.append(key)
        return super().get(key)


def test_a_name_is_resolved_by_reading_one_entry() -> None:
    store = ReadKeys()
    for name in ("base", "mine", "mine-too"):
        for number in range(1, 12):
            model_names.register(store, name, f"{name}-{number}", LOCAL)
    store.read.clear()

    assert model_names.resolve_name(store, "models://mine") == "mine-11"
    assert store.read == ["model-names/mine/0000000011.json"]
    with pytest.raises(NotFound, match="known names: base, mine, mine-too"):
        model_names.resolve_name(store, "models://min")
    assert len(store.read) == 1


def test_a_name_is_its_makers_to_add_to() -> None:
    store = MemoryStore()
    ana, eve = (Principal(name, Role.SUBMITTER, frozenset({"ana"})) for name in ("ana", "eve"))
    model_names.register(store, "base", "good", ana)

    with pytest.raises(PermissionRefused, match="belongs to 'ana'"):
        model_names.register(store, "base", "evil", eve)
    assert model_names.register(store, "base", "good", eve).number == 1
    assert model_names.register(store, "base", "better", ana).number == 2
    assert model_names.register(store, "base", "best", LOCAL).owner == "local"
    assert model_names.register(store, "base", "last", ana).number == 4


def test_bad_names_are_refused_and_damaged_entries_told() -> None:
    store = MemoryStore()
    for name in ("", "Mine", "a/b", "..", "a..b", "-a", "a-", "a" * 64, "a\n"):
        with pytest.raises(InvalidInput, match="model name"):
            model_names.register(store, name, "a", LOCAL)
    store.put("model-names/mine/0000000001.json", b"{}")
    with pytest.raises(Corrupt, match="mine/0000000001"):
        model_names.list_models(store)
