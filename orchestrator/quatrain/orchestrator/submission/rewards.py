"""Pinning rewards: the section that ScoreRequest carries, with digests in place of names."""

import asyncio
import re
from typing import Literal

from quatrain.code_folder import is_folder
from quatrain.errors import FieldViolation, InvalidSpec
from quatrain.jobspec import RewardFunctionSpec, RewardSpec
from quatrain.jobspec.reward_section import FunctionSource, ModelSource, RewardSection
from quatrain.orchestrator.submission.models import ModelPinner, PinnedModel, offset_of
from quatrain.storage import ObjectStore
from quatrain.storage.folders import FolderCache
from quatrain.text.tensors import score_problem

DIGEST = re.compile(r"[0-9a-f]{64}")
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
    if (path.rpartition(":")[0].endswith(".py") or is_folder(path)) and digest is None:
        text = (
            f"{path!r} is a file or folder: the client uploads it and sends its digest; give code_digest, or a module"
        )
        raise InvalidSpec(f"{field}.path: {text}", [FieldViolation(f"{field}.path", text)])
    if digest is not None and not (DIGEST.fullmatch(digest) and store.stat(f"data/sha256/{digest}") is not None):
        text = f"no file with digest {digest[:80]!r} was uploaded"
        raise InvalidSpec(f"{field}.code_digest: {text}", [FieldViolation(f"{field}.code_digest", text)])
    return FunctionSource(
        path=path,
        code_digest=digest or "",
        weight=function.weight,
        name=function.term,
        args=function.args,
        clip=function.clip,
    )


def value_init(chosen: ValueInit | None, local: bool) -> ValueInit:
    """Return where the value model starts; `local`: the reward is one model with the policy's tokenizer.

    Raises InvalidSpec when the spec wants to start from a reward model that reads other tokens.
    """
    if chosen == "reward" and not local:
        text = "'reward': the reward model has another tokenizer than the policy; use 'sft' or leave it out"
        raise InvalidSpec(f"ppo.value_init: {text}", [FieldViolation("ppo.value_init", text)])
    return chosen or ("reward" if local else "sft")
