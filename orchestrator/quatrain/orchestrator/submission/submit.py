"""CreateJob: from a document to an accepted job, or to an error that names each wrong field."""

import asyncio
import datetime
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quatrain.data.tables import PromptTable, read_prompts
from quatrain.digests import canonical_json, sha256_hex
from quatrain.errors import AlreadyExists, FieldViolation, InvalidSpec, Unavailable
from quatrain.faults import fault_point
from quatrain.joblog import jobs
from quatrain.jobspec import JobSpec, parse_spec, resolved_document
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.services import Services
from quatrain.orchestrator.submission.contract import (
    check_lengths,
    check_policy,
    check_prompts,
    check_reference,
    check_reward_model,
    check_rows,
)
from quatrain.orchestrator.submission.models import ModelPinner, PinnedModel
from quatrain.orchestrator.submission.rewards import pin_reward, try_reward, value_init
from quatrain.orchestrator.submission.sources import Sources
from quatrain.orchestrator.submission.tables import DataPinner
from quatrain.refs import ModelRef, TableRef
from quatrain.storage import ObjectStore
from quatrain.storage.folders import FolderCache, read_object

JOB_ID = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
TRIAL_SLACK_SECONDS = 30.0


@dataclass(frozen=True)
class Submission:
    """What a client asked for."""

    document: dict[str, Any]
    owner: str
    job_id: str = ""
    request_id: str = ""
    validate_only: bool = False


@dataclass(frozen=True)
class Trial:
    """What rewards are pinned and tried with."""

    policy: PinnedModel
    table: PromptTable
    pinner: ModelPinner
    readers: dict[str, PinnedModel]
    """By field, the models that read the policy's tokens; a reward model may join them."""
    warnings: list[str]


@dataclass(frozen=True)
class Submitter:
    """Checks and accepts jobs for one deployment."""

    store: ObjectStore
    folders: FolderCache
    services: Services
    sources: Sources
    local_files: bool
    pool: str = "default"

    async def submit(self, submission: Submission) -> tuple[str, dict[str, Any]]:
        """Job id (empty with validate_only) and the document of spec.json.

        Raises InvalidSpec, InvalidData, AlreadyExists (the id is another request's), Unavailable.
        """
        spec = parse_spec(submission.document)
        job_id = new_job_id(submission.job_id, submission.owner, submission.request_id)
        job = "" if submission.validate_only else job_id
        fingerprint = sha256_hex(canonical_json([submission.owner, submission.request_id, resolved_document(spec)]))
        if job:
            existing = await self.existing(job, fingerprint)
            if existing is not None:
                return job, existing
        document = await self.resolve(spec)
        document |= {"request": submission.document, "fingerprint": fingerprint, "owner": submission.owner}
        if not job:
            return "", stamped(document)
        return job, await self.create(job, document)

    async def create(self, job: str, document: dict[str, Any]) -> dict[str, Any]:
        """Makes the job. The document that counts, which is the one of an earlier try where there was one.

        Raises AlreadyExists, Unavailable.
        """
        stamp = stamped(document)
        fault_point("submit.before_active")
        if not await asyncio.to_thread(jobs.create_job, self.store, job, stamp):
            existing = await self.existing(job, document["fingerprint"])
            if existing is None:
                raise Unavailable(f"job {job!r} was being created by somebody else; send the request again")
            return existing
        fault_point("submit.after_spec")
        return stamp

    async def existing(self, job: str, fingerprint: str) -> dict[str, Any] | None:
        """The document of the same request's earlier try, None when the id is free."""
        if await asyncio.to_thread(self.store.stat, f"jobs/{job}/spec.json") is None:
            return None
        document = await asyncio.to_thread(jobs.read_spec, self.store, job)
        if document["fingerprint"] != fingerprint:
            raise AlreadyExists(
                f"job {job!r} exists and was made by another request: choose another job_id, or leave it out"
            )
        return document

    async def resolve(self, spec: JobSpec) -> dict[str, Any]:
        """The spec with every default, what it names by content, and warnings. Raises InvalidSpec, InvalidData."""
        _check_pool(spec.pool, self.pool)
        resolved = resolved_document(spec)
        pinner = ModelPinner(self.store, self.folders, self.sources, local_files=self.local_files)
        policy = await pinner.pin(resolved["model"]["uri"], "model.uri")
        resolved["model"] = {"uri": policy.ref.uri, "dtype": resolved["model"]["dtype"] or await self._dtype()}
        data = self.data_pinner(policy)
        data.warnings.extend(check_policy(policy))
        ppo = resolved["ppo"]
        prompts = await data.prompts("ppo.prompts", ppo["prompts"], ppo)
        eval_prompts = None
        if ppo["eval_prompts"] is not None:
            eval_prompts = await data.prompts("ppo.eval_prompts", ppo["eval_prompts"], ppo)
        tables = [await self._table(table) for table in (prompts, eval_prompts) if table is not None]
        check_prompts(tables, policy)
        readers = {"model.uri": policy}
        check_lengths(ppo, tables, readers)
        sft = await data.sft(resolved["sft"]) if resolved["sft"] is not None else None
        await self._check_rows("sft", resolved["sft"], [sft], policy)
        trial = Trial(policy, tables[0], pinner, readers, data.warnings)
        rewards = await self.pin_reward(resolved, data, trial)
        gold = None if ppo["eval_gold"] is None else await self.pin_gold(ppo["eval_gold"], trial)
        reference = None
        if resolved["reference"] is not None and resolved["reference"]["model"] is not None:
            pinned = await pinner.pin(resolved["reference"]["model"], "reference.model")
            data.warnings.extend(check_reference(policy, pinned))
            reference, readers["reference.model"] = pinned.ref, pinned
        check_lengths(ppo, tables, readers)
        local = resolved["reward"]["data"] is not None or rewards["reward_is_local_model"]
        ppo["value_init"] = value_init(ppo["value_init"], local)
        return {
            "spec": resolved,
            "warnings": data.warnings,
            "pinned": {
                "model": policy.ref.to_json(),
                "tokenizer_digest": policy.tokenizer.digest,
                "vocab_size": policy.facts.vocab_size,
                "eos_token_ids": list(policy.tokenizer.eos_token_ids),
                "sft_data": _table(sft),
                "prompts": _table(prompts),
                "eval_prompts": _table(eval_prompts),
                "reference": _folder(reference),
                **rewards,
                "eval_gold": gold,
            },
        }

    def data_pinner(self, policy: PinnedModel) -> DataPinner:
        """What reads the data sets."""
        return DataPinner(self.store, policy.tokenizer, self.sources, self.local_files)

    async def pin_reward(self, resolved: dict[str, Any], data: DataPinner, trial: "Trial") -> dict[str, Any]:
        """The pinned reward entries: trained here, or named and tried."""
        section = resolved["reward"]
        pinned: dict[str, Any] = {
            "reward": None,
            "reward_data": None,
            "reward_held_out": None,
            "reward_is_local_model": False,
        }
        if section["data"] is not None:
            train, held_out = await data.pairs(section, int(resolved["seed"]))
            await self._check_rows("reward", section, [train, held_out], trial.policy)
            return pinned | {"reward_data": _table(train), "reward_held_out": _table(held_out)}
        reward, model = await self._named_reward(section, "reward", trial)
        same = model is not None and model.tokenizer.digest == trial.policy.tokenizer.digest
        return pinned | {"reward": reward.to_json(), "reward_is_local_model": same}

    async def pin_gold(self, section: dict[str, Any], trial: "Trial") -> dict[str, Any]:
        """The gold reward of evaluations."""
        return (await self._named_reward(section, "ppo.eval_gold", trial))[0].to_json()

    async def _named_reward(
        self, section: dict[str, Any], field: str, trial: "Trial"
    ) -> tuple[RewardSection, PinnedModel | None]:
        reward, model = await pin_reward(section, field, trial.pinner, self.folders, self.store)
        if model is not None:
            trial.warnings.extend(check_reward_model(trial.policy, model, f"{field}.model"))
            if model.tokenizer.digest == trial.policy.tokenizer.digest:
                trial.readers[f"{field}.model"] = model
        await try_reward(reward, field, trial.table, trial.policy, self.services, _trial_seconds(reward))
        return reward, model

    async def _check_rows(
        self, stage: str, section: dict[str, Any], tables: Sequence[TableRef | None], policy: PinnedModel
    ) -> None:
        """Looks at prepared rows where max_length alone does not see to it that they fit into the model."""
        positions = policy.facts.max_positions
        for table in tables:
            if table is not None and positions is not None and int(section["max_length"]) > positions:
                content = await asyncio.to_thread(read_object, self.store, table.key, table.sha256)
                await asyncio.to_thread(check_rows, stage, content, policy)

    async def _table(self, ref: TableRef) -> PromptTable:
        return read_prompts(await asyncio.to_thread(read_object, self.store, ref.key, ref.sha256))

    async def _dtype(self) -> str:
        """float32 on CPU, bfloat16 where generation has a GPU."""
        capabilities = await self.services.capabilities(TRIAL_SLACK_SECONDS)
        return "bfloat16" if capabilities.device.startswith("cuda") else "float32"


def _trial_seconds(reward: RewardSection) -> float:
    """Each function may take its whole time limit, one after the other."""
    return reward.timeout * max(1, len(reward.functions)) + TRIAL_SLACK_SECONDS


def new_job_id(wished: str, owner: str, request_id: str) -> str:
    """The wished id, else one that is the same for each try of a request. Raises InvalidSpec."""
    if wished:
        if not JOB_ID.fullmatch(wished):
            text = f"{wished!r}: use 1 to 63 of a-z, 0-9 and '-', not at the ends"
            raise InvalidSpec(f"job_id: {text}", [FieldViolation("job_id", text)])
        return wished
    if request_id:
        return sha256_hex(canonical_json([owner, request_id]))[:20]
    return uuid.uuid4().hex[:20]


def stamped(document: dict[str, Any]) -> dict[str, Any]:
    """The document of spec.json with the time of the job's creation."""
    return {**document, "create_time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")}


def _check_pool(wanted: str, served: str) -> None:
    if wanted != served:
        text = f"no pool {wanted!r} is served here; there is {served!r}"
        raise InvalidSpec(f"pool: {text}", [FieldViolation("pool", text)])


def _table(table: TableRef | None) -> dict[str, Any] | None:
    return None if table is None else table.to_json()


def _folder(folder: ModelRef | None) -> dict[str, Any] | None:
    return None if folder is None else folder.to_json()
