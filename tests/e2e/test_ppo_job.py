"""One short PPO job through all services, looked at from every side that a person or a script has."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from tests.e2e.metric_names import AT_EVALUATIONS, EVERY_STEP
from tests.e2e.stack import Stack, finish, running_stack
from tests.e2e.tasks import changed, count_symbol, write_spec
from transformers import AutoModelForCausalLM, AutoTokenizer

from quatrain.batches import read_batch, read_tokens
from quatrain.client import Client, Event, Job
from quatrain.storage.folders import read_object
from quatrain.storage.local import LocalStore

STEPS = 6


@dataclass(frozen=True)
class Finished:
    """The finished job and what it ran on."""

    stack: Stack
    client: Client
    job: Job

    def json(self, *arguments: str) -> Any:
        result = self.stack.run_cli(*arguments, "-o", "json")
        assert result.code == 0, result.stderr
        return json.loads(result.stdout)

    def events(self, kind: str) -> list[Event]:
        return [event for event in self.client.events(self.job.id) if event.type == kind]

    def store(self) -> LocalStore:
        return LocalStore(self.stack.home / "store")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("ppo-job")
    spec = count_symbol(folder)
    spec = changed(
        spec, ppo__eval_prompts=str(folder / "held_out.jsonl"), ppo__eval_every=3, ppo__eval_gold=spec["reward"]
    )
    path = write_spec(folder / "spec.yaml", spec)
    with running_stack(folder / "home") as stack, stack.client() as client:
        submitted = stack.run_cli("job", "submit", str(path), "-o", "name")
        assert submitted.code == 0, submitted.stderr
        job = client.get(submitted.stdout.strip())
        yield Finished(stack, client, finish(stack, client, job))


def test_job_says_what_it_reached(finished: Finished) -> None:
    job = finished.job

    assert (job.state, job.stage, job.step, job.total_steps) == ("SUCCEEDED", "ppo", STEPS, STEPS)
    assert (job.attempt, job.policy_version, job.error, job.conditions) == (1, STEPS, None, {})
    assert job.model is not None
    assert len(job.weights_sha256) == 64


def test_exit_codes_say_the_outcome(finished: Finished) -> None:
    waited = finished.stack.run_cli("job", "wait", finished.job.id)
    unknown = finished.stack.run_cli("job", "get", "no-such-job")

    assert (waited.code, waited.stdout.strip()) == (0, "SUCCEEDED")
    assert unknown.code == 4


def test_every_metric_at_every_step(finished: Finished) -> None:
    rows = finished.json("job", "metrics", finished.job.id)

    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for row in rows:
        wanted = EVERY_STEP | {"reward/count_symbol_mean"} | (AT_EVALUATIONS if row["step"] % 3 == 0 else set())
        assert wanted - set(row) == set()
        assert {"stage": "ppo", "attempt": 1}.items() <= row.items()
        numbers = [value for name, value in row.items() if name != "stage" and value is not None]
        assert all(math.isfinite(number) for number in numbers)
        # Only what has no value in this task may be null: all lengths are equal.
        assert {name for name in wanted if row[name] is None} <= {"reward/length_corr", "reward/length_explained"}


def test_first_step_is_on_policy(finished: Finished) -> None:
    row = finished.json("job", "metrics", finished.job.id)[0]

    assert abs(row["kl/ref_seq"]) < 1e-4
    assert row["policy/clip_fraction_first"] == 0
    assert row["policy/ratio_dev_first"] < 1e-6
    assert row["sampler/mismatch_max"] < 1e-5
    assert row["policy/entropy"] == pytest.approx(math.log(6), abs=1e-4)


def test_learning_rate_falls_linearly(finished: Finished) -> None:
    rows = finished.json("job", "metrics", finished.job.id)

    rates = [row["optim/policy_lr"] for row in rows]
    assert rates == pytest.approx([1e-3 * (1 - k / STEPS) for k in range(STEPS)])


def test_events_in_order(finished: Finished) -> None:
    events = finished.client.events(finished.job.id)

    assert [event.revision for event in events] == list(range(1, len(events) + 1))
    kinds = [event.type for event in events if event.type != "state_changed"]
    step = ["batch_sealed", "step_completed"]
    kept = ["checkpoint", "policies_released"]
    assert kinds == [
        *("owner_taken", "stage_started", "policy_published", "learner_opened", "evaluated"),
        *(*step, *step, *kept),
        *(*step, "evaluated", *step, *kept),
        *(*step, *step, *kept, "evaluated"),
        *("stage_completed", "job_finished"),
    ]
    states = [event.data["state"] for event in events if event.type == "state_changed"]
    assert states == ["STARTING", "RUNNING"]


def test_watch_shows_the_end_to_those_who_come_late(finished: Finished) -> None:
    updates = list(finished.client.watch(finished.job.id))
    later = list(finished.client.watch(finished.job.id, after_revision=finished.job.revision - 3))

    assert updates[-1].job.state == "SUCCEEDED"
    assert [update.revision for update in later] == [finished.job.revision - 2 + i for i in range(3)]


def test_sealed_batches_are_parquet_files_of_real_samples(finished: Finished) -> None:
    store, seen = finished.store(), set()

    for sealed in finished.events("batch_sealed"):
        rows = read_batch(read_object(store, sealed.data["key"], sealed.data["sha256"]))
        assert len(rows) == 64
        assert rows == sorted(rows, key=lambda row: (row.prompt_index, row.sample_index))
        assert {row.policy_version for row in rows} == {sealed.data["step"] - 1}
        for row in rows:
            assert row.status == "rollout"
            assert row.finish_reason == "length"
            assert row.score == list(row.completion_ids).count(0)
            assert len(row.completion_ids) == len(row.logprobs) == len(row.ref_logprobs) == 4
            assert json.loads(row.extra) == {"topic": f"t{row.prompt_index}"}
        seen |= {row.rollout_id for row in rows}
    assert len(seen) == 64 * STEPS


def test_batches_open_with_plain_tools(finished: Finished) -> None:
    sealed = finished.events("batch_sealed")[0]

    table = pyarrow.parquet.read_table(finished.stack.home / "store" / sealed.data["key"])

    assert table.num_rows == 64
    assert {"rollout_id", "completion_ids", "logprobs", "score"} <= set(table.column_names)


def test_token_tables_belong_to_the_batches(finished: Finished) -> None:
    store = finished.store()
    for sealed, done in zip(finished.events("batch_sealed"), finished.events("step_completed"), strict=True):
        batch = read_batch(read_object(store, sealed.data["key"], sealed.data["sha256"]))
        tokens = read_tokens(read_object(store, done.data["tokens"]["key"], done.data["tokens"]["sha256"]))
        assert [row.rollout_id for row in tokens] == [row.rollout_id for row in batch]
        assert all(len(row.advantages) == 4 for row in tokens)


def test_rollouts_of_a_step_and_of_an_evaluation(finished: Finished) -> None:
    samples = finished.json("job", "rollouts", finished.job.id, "--step", "2")
    worst = finished.json("job", "rollouts", finished.job.id, "--worst", "3")
    evaluation = finished.json("job", "rollouts", finished.job.id, "--step", "3", "--eval")

    assert len(samples) == 64
    assert {sample["policy_version"] for sample in samples} == {1}
    assert samples[0]["prompt"].startswith("s1 ")
    assert len(samples[0]["completion"].split()) == 4
    scores = [sample["score"] for sample in worst]
    assert len(scores) == 3
    assert scores == sorted(scores)
    assert [sample["prompt"] for sample in evaluation] == [f"s2 s{i}" for i in range(6)]
    assert all(sample["gold"] == sample["score"] for sample in evaluation)


def test_nothing_of_the_job_stays_in_the_queue(finished: Finished) -> None:
    with finished.stack.redis() as redis:
        keys = redis.keys(f"quatrain:*{finished.job.id}*")
        waiting = redis.xlen("quatrain:tasks:default")

    assert keys == []
    assert waiting == 0


def test_result_folder_opens_with_transformers(finished: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    result = finished.stack.run_cli("checkpoint", "download", finished.job.id, "--to", str(folder))

    assert result.code == 0, result.stderr
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer("s1 s0")["input_ids"]])
    logits = model(input_ids=ids).logits[0, -1]
    assert logits.shape == (6,)
    assert logits[0] == logits.max()  # symbol 0 is what the reward counts
    weights = b"".join(path.read_bytes() for path in sorted(folder.glob("*.safetensors")))
    assert hashlib.sha256(weights).hexdigest() == finished.job.weights_sha256
    assert (folder / "README.md").is_file()


def test_checkpoints_are_listed_and_their_policies_downloaded(finished: Finished, tmp_path: Path) -> None:
    listed = finished.json("checkpoint", "list", finished.job.id)
    result = finished.stack.run_cli(
        "checkpoint", "download", finished.job.id, "--step", "4", "--to", str(tmp_path / "step-4")
    )

    assert [(entry["stage"], entry["step"]) for entry in listed] == [("ppo", 2), ("ppo", 4), ("ppo", 6)]
    assert result.code == 0, result.stderr
    AutoModelForCausalLM.from_pretrained(tmp_path / "step-4")
