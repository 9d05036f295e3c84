"""CreateJob's checks: every refusal names its field and leaves nothing; equal requests make one job."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.world import World, deployment, put_rows, run, write_model

from quatrain.data.tables import read_pairs
from quatrain.digests import sha256_hex
from quatrain.errors import AlreadyExists, InvalidInput, RewardFunctionError, Unavailable
from quatrain.orchestrator.stages.model_card import card_files
from quatrain.orchestrator.submission.submit import Submission
from quatrain.stages import PPO
from quatrain.storage.folders import upload_model_folder

CLASSIFIER = "Qwen2ForSequenceClassification"
SHP_COLUMNS = {"prompt": "history", "a": "human_ref_A", "b": "human_ref_B", "label": "labels"}
Change = Callable[[World, dict[str, Any]], Any]


def model(world: World, name: str, **facts: Any) -> str:
    return f"sha256:{upload_model_folder(world.store, write_model(world.root / name, **facts)).digest}"


def wrong_offset(world: World, offset: str) -> str:
    folder = write_model(world.root / "offset", "Qwen2ForSequenceClassification")
    (folder / "quatrain.json").write_text(f'{{"offset": {offset}}}')
    return f"sha256:{upload_model_folder(world.store, folder).digest}"


def functions(path: str, digest: str | None = None) -> dict[str, Any]:
    return {"functions": [{"path": path} | ({} if digest is None else {"code_digest": digest})]}


REFUSALS: dict[str, tuple[str, str, Change]] = {
    "model without scheme": ("model.uri", "cannot be read here", lambda w, s: s["model"].update(uri="base")),
    "model on our disk": ("model.uri", "cannot be read here", lambda w, s: s["model"].update(uri="file:///etc")),
    "model without digest": ("model.uri", "", lambda w, s: s["model"].update(uri="sha256:")),
    "model outside": ("model.uri", "", lambda w, s: s["model"].update(uri="sha256:../../secret")),
    "model not there": ("model.uri", "", lambda w, s: s["model"].update(uri="sha256:" + "0" * 64)),
    "unknown name": ("model.uri", "known names: none", lambda w, s: s["model"].update(uri="models://nobody@3")),
    "no EOS": ("model.uri", "", lambda w, s: s["model"].update(uri=model(w, "endless", eos=None))),
    "prompts not there": ("ppo.prompts", "", lambda w, s: s["ppo"].update(prompts="sha256:" + "0" * 64)),
    "empty prompts": ("ppo.prompts", "", lambda w, s: s["ppo"].update(prompts=put_rows(w.store, []))),
    "no prompt column": ("ppo.prompts", "", lambda w, s: s["ppo"].update(prompts=put_rows(w.store, [{"x": 1}]))),
    "long prompt": (
        "ppo.generation.max_new_tokens",
        "but model.uri takes 64",
        lambda w, s: s["ppo"].update(prompts=put_rows(w.store, [{"prompt": "ab" * 30}])),
    ),
    "longer than max_prompt_length": ("ppo.prompts", "", lambda w, s: s["ppo"].update(max_prompt_length=1)),
    "file without digest": ("reward.functions.0.path", "", lambda w, s: s.update(reward=functions("r.py:count"))),
    "code not there": (
        "reward.functions.0.code_digest",
        "was uploaded",
        lambda w, s: s.update(reward=functions("r.py:count", "0" * 64)),
    ),
    "hostile code digest": (
        "reward.functions.0.code_digest",
        "",
        lambda w, s: s.update(reward=functions("r.py:count", "../../../etc/passwd")),
    ),
    "no classifier": ("reward.model", "not a reward model", lambda w, s: s.update(reward={"model": w.model_uri})),
    "offset is no number": (
        "reward.model",
        "quatrain.json",
        lambda w, s: s.update(reward={"model": wrong_offset(w, '"much"')}),
    ),
    "offset is NaN": (
        "reward.model",
        "offset nan is not a finite number",
        lambda w, s: s.update(reward={"model": wrong_offset(w, "NaN")}),
    ),
    "gold is no classifier": (
        "ppo.eval_gold.model",
        "not a reward model",
        lambda w, s: s["ppo"].update(eval_gold={"model": w.model_uri}, eval_prompts=s["ppo"]["prompts"]),
    ),
    "reference with other tokens": (
        "reference.model",
        "both must be the same",
        lambda w, s: s.update(reference={"model": model(w, "other", symbols="abcdefg")}),
    ),
    "reference with another end token": (
        "reference.model",
        "its eos_token is 'e', the policy's 'f'",
        lambda w, s: s.update(reference={"model": model(w, "otherend", eos="e")}),
    ),
    "reference with fewer positions": (
        "ppo.generation.max_new_tokens",
        "together 8, but reference.model takes 7",
        lambda w, s: s.update(reference={"model": model(w, "short", positions=7)}),
    ),
    "reward model with fewer positions": (
        "ppo.generation.max_new_tokens",
        "together 8, but reward.model takes 7",
        lambda w, s: s.update(reward={"model": model(w, "shortrm", positions=7, architecture=CLASSIFIER)}),
    ),
    "reward model with too few rows": (
        "reward.model",
        "its embedding has 5 rows, the policy samples from 6 tokens",
        lambda w, s: s.update(reward={"model": model(w, "narrow", vocabulary=5, architecture=CLASSIFIER)}),
    ),
    "end token outside the embedding": (
        "model.uri",
        "its end token has the id 5, its embedding only 5 rows",
        lambda w, s: s["model"].update(uri=model(w, "cut", vocabulary=5)),
    ),
    "prompt outside the embedding": (
        "ppo.prompts",
        "a prompt holds the token id 4, but model.uri has 4 embedding rows",
        lambda w, s: (
            s["model"].update(uri=model(w, "cutmore", eos="a", vocabulary=4)),
            s["ppo"].update(prompts=put_rows(w.store, [{"prompt": "be"}])),
        ),
    ),
    "SFT row outside the embedding": (
        "sft.data",
        "a row holds the token id 4, but model.uri has 4 embedding rows",
        lambda w, s: (
            s["model"].update(uri=model(w, "cutsft", eos="a", vocabulary=4)),
            s.update(sft={"data": put_rows(w.store, [{"prompt": "ab", "completion": "be"}])}),
        ),
    ),
    "pair outside the embedding": (
        "reward.data",
        "a row holds the token id 4, but model.uri has 4 embedding rows",
        lambda w, s: (
            s["model"].update(uri=model(w, "cutpair", eos="a", vocabulary=4)),
            s.update(reward={"data": put_rows(w.store, [{"prompt": "ab", "chosen": "be", "rejected": "c"}] * 4)}),
        ),
    ),
    "long SFT row": (
        "sft.data",
        "the longest row has 73 tokens, but model.uri takes 64; lower sft.max_length",
        lambda w, s: s.update(sft={"data": put_rows(w.store, [{"prompt": "ab", "completion": "cd" * 35}])}),
    ),
    "long pair": (
        "reward.data",
        "the longest row has 73 tokens, but model.uri takes 64; lower reward.max_length",
        lambda w, s: s.update(
            reward={"data": put_rows(w.store, [{"prompt": "ab", "chosen": "cd" * 35, "rejected": "d"}] * 4)}
        ),
    ),
    "too few pairs": (
        "reward.data",
        "",
        lambda w, s: s.update(reward={"data": put_rows(w.store, [{"prompt": "a", "chosen": "b"}])}),
    ),
    "sft without columns": ("sft.data", "", lambda w, s: s.update(sft={"data": put_rows(w.store, [{"y": "a"}])})),
    "pool of nobody": ("pool", "no pool 'a100' is served here; there is 'default'", lambda w, s: s.update(pool="a100")),
    "unknown key": ("ppo.kll", "", lambda w, s: s["ppo"].update(kll={})),
}


def test_every_refusal_names_its_field_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            submitter = world.submitter()
            for name, (field, part, change) in REFUSALS.items():
                spec = world.spec()
                change(world, spec)
                with pytest.raises(InvalidInput) as caught:
                    await submitter.submit(Submission(document=spec, owner="local", job_id="job-1"))
                fields = [violation.field for violation in caught.value.violations]
                assert any(found.startswith(field) for found in fields), f"{name}: {fields} {caught.value.message}"
                assert part in caught.value.message, f"{name}: {caught.value.message}"
            assert world.store.list("jobs/") == world.store.list("active/") == []

    run(scenario)


@pytest.mark.parametrize("job", ["UPPER", "-a", "a-", "a/b", "..", "a" * 64, "a b", "a\n", "a\0"])
def test_job_ids_are_plain(tmp_path: Path, job: str) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            for only in (True, False):
                with pytest.raises(InvalidInput, match="job_id") as caught:
                    await world.submitter().submit(Submission(world.spec(), "local", job, validate_only=only))
                assert caught.value.violations[0].field == "job_id"

    run(scenario)


def test_a_reward_that_fails_its_trial_is_refused_and_one_that_is_away_is_not(tmp_path: Path) -> None:
    def raising(batch: Any) -> tuple[float | None, ...]:
        raise RewardFunctionError("rewards:count raised ValueError: no")

    def away(batch: Any) -> tuple[float | None, ...]:
        raise Unavailable("the store is away")

    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            world.reward.opinion = raising
            with pytest.raises(InvalidInput, match=r"reward: .*raised ValueError") as caught:
                await world.submit(world.spec())
            assert caught.value.code_reason == "REWARD_FUNCTION_FAILED"
            world.reward.opinion = lambda batch: tuple(float("inf") for _ in batch.samples)
            with pytest.raises(InvalidInput, match="no usable score"):
                await world.submit(world.spec())
            world.reward.opinion = away
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("quatrain.orchestrator.submission.submit.TRIAL_SLACK_SECONDS", -59.0)
                with pytest.raises(Unavailable):
                    await world.submit(world.spec())

    run(scenario)


def test_the_same_request_is_one_job_and_another_one_under_its_id_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            submitter = world.submitter()
            request = Submission(world.spec(), "local", request_id="r1")
            made = await asyncio.gather(*(submitter.submit(request) for _ in range(3)))
            assert len({plan.job for plan in made}) == 1
            assert len(world.store.list("active/")) == 1
            assert len({plan.document.create_time for plan in made}) == 1
            with pytest.raises(AlreadyExists, match="request id 'r1' was used before with another spec"):
                await submitter.submit(Submission(world.spec(steps=4), "local", request_id="r1"))
            with pytest.raises(AlreadyExists):
                await submitter.submit(Submission(world.spec(), "local", job_id=made[0].job, request_id="r2"))

    run(scenario)


def test_validate_only_resolves_everything_and_leaves_no_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            plan = await world.submitter().submit(Submission(world.spec(), "local", validate_only=True))
            assert plan.job == ""
            assert plan.spec.ppo.value_init == "sft"
            assert plan.spec.model.dtype == "float32"
            assert world.store.list("jobs/") == world.store.list("active/") == []

    run(scenario)


def test_dropped_rows_are_warned_of_with_line_and_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            good = b'{"prompt": "ab"}\n'
            data = good + b"not JSON\n" + good
            digest = sha256_hex(data)
            world.store.put(f"data/sha256/{digest}", data)
            spec = world.spec()
            spec["ppo"]["prompts"] = f"sha256:{digest}"
            plan = await world.submitter().submit(Submission(spec, "local", validate_only=True))
            dropped, repeated, same = plan.document.warnings
            assert dropped.startswith("ppo.prompts: 1 of 3 rows are dropped; 1: not valid JSON")
            assert dropped.endswith("(first line 2)")
            assert repeated == "ppo.prompts: 1 rows repeat an earlier row"
            assert same == "ppo.prompts: all 2 rows have the same prompt"

    run(scenario)


def test_what_data_sets_have_in_common_is_warned_of(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            spec = world.spec()
            spec["ppo"]["prompts"] = put_rows(world.store, [{"prompt": "ab"}, {"prompt": "ba"}])
            spec["ppo"]["eval_prompts"] = put_rows(world.store, [{"prompt": "ba"}, {"prompt": "aab"}])
            plan = await world.submitter().submit(Submission(spec, "local", validate_only=True))
            (warning,) = plan.document.warnings
            assert warning.startswith("ppo.eval_prompts: 1 of its 2 prompts also stand in ppo.prompts")
            assert f"## Warnings of the submission\n- {warning}\n" in card_files(plan, PPO, {})["README.md"].decode()

    run(scenario)


def test_bare_text_for_a_chat_model_is_warned_of(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            folder = write_model(world.root / "chat")
            (folder / "chat_template.jinja").write_text(
                "{% for message in messages %}a{{ message.content }}{% endfor %}b"
            )
            spec = world.spec()
            spec["model"]["uri"] = f"sha256:{upload_model_folder(world.store, folder).digest}"
            for rows, warnings in (([{"prompt": "ab"}], 1), ([{"prompt": [{"role": "user", "content": "ab"}]}], 0)):
                spec["ppo"]["prompts"] = put_rows(world.store, rows)
                plan = await world.submitter().submit(Submission(spec, "local", validate_only=True))
                found = [warning for warning in plan.document.warnings if "all prompts are bare text" in warning]
                assert len(found) == warnings

    run(scenario)


@pytest.mark.parametrize("named", [{"format": "shp"}, {"label_rule": "a-if-true", "columns": SHP_COLUMNS}])
def test_labelled_pairs_are_read_by_the_spec(named: dict[str, Any], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            table = b"history,human_ref_A,human_ref_B,labels\na,ab,ba,1\nb,ba,ab,0\nab,a,aa,1\nba,b,aa,0\n"
            world.store.put(f"data/sha256/{sha256_hex(table)}", table)
            data = {"uri": f"sha256:{sha256_hex(table)}", **({"format": "csv"} | named)}
            spec = {**world.spec(), "reward": {"data": data, "held_out_share": 0.25}}
            plan = await world.submitter().submit(Submission(spec, "local", validate_only=True))
            assert plan.pinned.reward_data is not None
            pairs = read_pairs(world.store.get(plan.pinned.reward_data.key))
            assert len(pairs.line) == 3
            # The label prefers `a` to the longer `aa` on line 4, and `aa` to `b` on line 5.
            longer = {4: False, 5: True}
            sides = zip(pairs.line, pairs.chosen_ids, pairs.rejected_ids, strict=True)
            found = {line: len(chosen) > len(rejected) for line, chosen, rejected in sides if line in longer}
            assert found
            assert found.items() <= longer.items()

    run(scenario)


def test_what_may_be_meant_is_warned_of(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            other = model(world, "other", symbols="abcdefg", architecture=CLASSIFIER)
            spec = {**world.spec(), "reward": {"model": other}}
            plan = await world.submitter().submit(Submission(document=spec, owner="local", validate_only=True))
            (warning,) = plan.document.warnings
            assert warning.startswith("reward.model: its tokenizer is ")
            assert "the policy's is" in warning
            assert warning.endswith("it is given the text of prompt and completion, not the policy's tokens")

    run(scenario)
