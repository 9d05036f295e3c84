"""Pinning rewards: the section that ScoreRequest carries, and a trial of it on four rows before anything is queued."""

import asyncio
import json
import re
from typing import Literal

from quatrain.data.tables import PromptTable
from quatrain.errors import (
    TRANSIENT_ERRORS,
    FieldViolation,
    InvalidSpec,
    QuatrainError,
)
from quatrain.jobspec import RewardFunctionSpec, RewardSpec
from quatrain.jobspec.reward_section import FunctionSource, ModelSource, RewardSection
from quatrain.orchestrator.peers.service_clients import ScoreCall, ScoreSample, ServiceClients
from quatrain.orchestrator.submission.models import ModelPinner, PinnedModel, offset_of
from quatrain.storage import ObjectStore
from quatrain.storage.folders import FolderCache
from quatrain.text.tensors import score_problem

DIGEST = re.compile(r"[0-9a-f]{64}")
TRIAL_ROWS = 4
TRIAL_TOKENS = 16
ValueInit = Literal["reward", "sft"]
CLASSIFIER = "ForSequenceClassification"


async def pin_reward(
    section: RewardSpec, field: str, pinner: ModelPinner, folders: FolderCache, store: ObjectStore
) -> tuple[RewardSection, PinnedModel | None]:
    """Return the reward section by content, and its model if it names one.

    Raises InvalidSpec or InvalidData naming the field.
    """
    model, models = None, list[ModelSource]()
    if section.model is not None:
        model = await pinner.pin(section.model, f"{field}.model")
        if not any(CLASSIFIER in name for name in model.facts.architectures):
            found = "/".join(model.facts.architectures)
            text = f"the model is a {found}, not a reward model (...{CLASSIFIER}); train one here: reward.data"
            raise InvalidSpec(f"{field}.model: {text}", [FieldViolation(f"{field}.model", text)])
        problem = score_problem(model.facts.shapes)
        if problem is not None:
            raise InvalidSpec(f"{field}.model: {problem}", [FieldViolation(f"{field}.model", problem)])
        offset = await asyncio.to_thread(offset_of, folders, model.ref, f"{field}.model")
        models.append(ModelSource(uri=model.ref.uri, digest=model.ref.digest, offset=offset, name="reward_model"))
    functions = [
        await asyncio.to_thread(_function, function, f"{field}.functions.{index}", store)
        for index, function in enumerate(section.functions)
    ]
    pinned = RewardSection(
        models=tuple(models),
        functions=tuple(functions),
        service=section.service,
        scale=section.scale,
        clip=section.clip,
        timeout=section.timeout,
    )
    return pinned, model


def _function(function: RewardFunctionSpec, field: str, store: ObjectStore) -> FunctionSource:
    path, digest = function.path, function.code_digest
    file = path.rpartition(":")[0]
    if file.endswith(".py") and digest is None:
        text = f"{path!r} is a file: the client uploads it and sends its digest; give code_digest, or a module"
        raise InvalidSpec(f"{field}.path: {text}", [FieldViolation(f"{field}.path", text)])
    if digest is not None and not (DIGEST.fullmatch(digest) and store.stat(f"data/sha256/{digest}") is not None):
        text = f"no file with digest {digest[:80]!r} was uploaded"
        raise InvalidSpec(f"{field}.code_digest: {text}", [FieldViolation(f"{field}.code_digest", text)])
    return FunctionSource(path=path, code_digest=digest or "", weight=function.weight, name=function.term)


async def try_reward(
    reward: RewardSection,
    field: str,
    prompts: PromptTable,
    policy: PinnedModel,
    services: ServiceClients,
    timeout: float,
) -> None:
    """Score four prompts with made-up completions. Raises InvalidSpec naming the field when the reward is wrong."""
    count = min(TRIAL_ROWS, len(prompts.prompt_ids))
    samples = []
    for index in range(count):
        samples.append(
            ScoreSample(
                prompt_ids=prompts.prompt_ids[index],
                completion_ids=prompts.prompt_ids[(index + 1) % count][:TRIAL_TOKENS],
                prompt_json=prompts.prompt_json[index],
                finish_reason="length",
                extra_json=prompts.extra_json[index],
            )
        )
    call = ScoreCall(
        job="trial",
        samples=samples,
        reward_json=reward.to_text(),
        tokenizer=policy.ref,
        trainer_state_json=json.dumps({"job": "trial", "step": 0, "total_steps": 0}),
    )
    try:
        scores = await services.score(call, timeout)
    except TRANSIENT_ERRORS:
        raise  # This says nothing about the spec.
    except QuatrainError as error:
        raise _refusal(error.message, field, error.code_reason) from error
    refused = [score.reason for score in scores.samples if score.outcome == "refused"]
    if refused:
        raise _refusal(f"the trial on {count} rows gave no usable score: {refused[0]}", field, "REWARD_FUNCTION_FAILED")


def value_init(chosen: ValueInit | None, local: bool) -> ValueInit:
    """Return where the value model starts; `local`: the reward is one model with the policy's tokenizer.

    Raises InvalidSpec when the spec wants to start from a reward model that reads other tokens.
    """
    if chosen == "reward" and not local:
        text = "'reward': the reward model has another tokenizer than the policy; use 'sft' or leave it out"
        raise InvalidSpec(f"ppo.value_init: {text}", [FieldViolation("ppo.value_init", text)])
    return chosen or ("reward" if local else "sft")


def _refusal(text: str, field: str, reason: str) -> InvalidSpec:
    return InvalidSpec(f"{field}: {text}", [FieldViolation(field, text)], reason=reason)
