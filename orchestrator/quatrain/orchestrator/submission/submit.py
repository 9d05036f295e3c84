"""CreateJob: turns a document into an accepted job, or an error that names each wrong field."""

import asyncio
import datetime
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from quatrain.data.tables import PromptTable, read_prompts
from quatrain.digests import canonical_json, sha256_hex
from quatrain.errors import AlreadyExists, FieldViolation, InvalidSpec, Unavailable
from quatrain.faults import fault_point
from quatrain.joblog import jobs
from quatrain.joblog.payloads import Forked
from quatrain.jobspec import JobSpec, RewardSpec, parse_spec, resolved_document
from quatrain.jobspec.reward_section import RewardSection
from quatrain.jobspec.usual_ranges import range_warnings
from quatrain.json_values import JsonObject
from quatrain.orchestrator.peers.service_clients import ServiceClients
from quatrain.orchestrator.plan import JobDocument, Pinned, Plan, StageRows, read_plan
from quatrain.orchestrator.submission.contract import (
    check_lengths,
    check_policy,
    check_prompts,
    check_reference,
    check_reward_model,
    check_rows,
    check_trainable_reward,
)
from quatrain.orchestrator.submission.hub.spec import name_commits
from quatrain.orchestrator.submission.models import ModelPinner, PinnedModel
from quatrain.orchestrator.submission.reward_rehearsal import Rehearsal, Rehearser, RewardReport, rows_of
from quatrain.orchestrator.submission.reward_trial import PromptSet, RewardTrial
from quatrain.orchestrator.submission.rewards import pin_reward, value_init
from quatrain.orchestrator.submission.sources import Sources
from quatrain.orchestrator.submission.step_bounds import StepBounds
from quatrain.orchestrator.submission.tables import DataPinner
from quatrain.refs import TableRef
from quatrain.stages import REWARD, SFT, Stage
from quatrain.storage import ObjectStore
from quatrain.storage.folders import FolderCache, read_object

TRIAL_SLACK_SECONDS = 30.0


@dataclass(frozen=True)
class Submission:
    """A client's request to create a job."""

    document: JsonObject
    owner: str
    job_id: str = ""
    request_id: str = ""
    validate_only: bool = False


@dataclass(frozen=True)
class Request:
    """A request as it is stored with its job: the spec as it was asked for, and what tells it from others."""

    document: JsonObject
    fingerprint: str
    owner: str


@dataclass(frozen=True)
class Trial:
    """All that a reward is pinned and tried with."""

    policy: PinnedModel
    sets: tuple[PromptSet, ...]
    """The training prompts, then the evaluation prompts where there are some."""
    pinner: ModelPinner
    readers: dict[str, PinnedModel]
    """By field, the models that read the policy's tokens; a reward model may join them."""
    warnings: list[str]

    @property
    def held_out(self) -> tuple[PromptSet, ...]:
        """Return the evaluation prompts, the only ones that a gold reward sees."""
        return tuple(each for each in self.sets if not each.is_training)


@dataclass(frozen=True)
class PinnedReward:
    """The reward of a job by content: trained here from rows, or named and tried."""

    section: RewardSection | None = None
    rows: StageRows | None = None
    is_local_model: bool = False


@dataclass(frozen=True)
class Resolved:
    """A checked spec: every default written out, what it names by content, and what people should know."""

    spec: JobSpec
    pinned: Pinned
    warnings: tuple[str, ...]

    def document(self, request: Request, forked_from: Forked | None = None) -> JobDocument:
        """Return the document of spec.json, with the time of the job's creation."""
        return JobDocument(
            spec=resolved_document(self.spec),
            request=dict(request.document),
            pinned=self.pinned,
            warnings=self.warnings,
            fingerprint=request.fingerprint,
            owner=request.owner,
            create_time=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            forked_from=forked_from,
        )


@dataclass(frozen=True)
class Submitter:
    """What checks and accepts jobs for one deployment."""

    store: ObjectStore
    folders: FolderCache
    services: ServiceClients
    sources: Sources
    local_files: bool
    bounds: StepBounds
    pool: str = "default"

    async def submit(self, submission: Submission) -> Plan:
        """Return the plan of the job, which has no id with validate_only.

        Raises InvalidSpec, InvalidData, AlreadyExists (the id is another request's), Unavailable.
        """
        spec = parse_spec(submission.document)
        job_id = new_job_id(submission.job_id, submission.owner, submission.request_id)
        fingerprint = sha256_hex(canonical_json([submission.owner, submission.request_id, resolved_document(spec)]))
        request = Request(submission.document, fingerprint, submission.owner)
        if not submission.validate_only:
            try:
                existing = await self.existing(job_id, fingerprint)
            except AlreadyExists as error:
                raise _repeated(submission) or error from None
            if existing is not None:
                return existing
        document = (await self.resolve(spec)).document(request)
        return Plan.of("", document) if submission.validate_only else await self.create(job_id, document)

    async def rehearse(self, rehearsal: Rehearsal) -> RewardReport:
        """Return what a reward says about rows of its prompts. Raises InvalidSpec, InvalidData, Unavailable."""
        ppo = rehearsal.spec.ppo
        pinner = ModelPinner(self.store, self.folders, self.sources, local_files=self.local_files)
        policy = await pinner.pin(rehearsal.spec.model.uri, "model.uri")
        data = self.data_pinner(policy)
        section = ppo.eval_gold if rehearsal.gold else rehearsal.spec.reward
        prompts = ppo.eval_prompts if rehearsal.gold else ppo.prompts
        assert section is not None, "checked by the rehearsal"
        assert prompts is not None, "the rules of a spec want eval_prompts beside eval_gold"
        table = await self._table(await data.prompts(rehearsal.prompts, prompts, ppo))
        reward, _ = await pin_reward(section, rehearsal.field, pinner, self.folders, self.store)
        rows = await asyncio.to_thread(rows_of, rehearsal, table, policy.tokenizer)
        rehearser = Rehearser(reward, rehearsal.field, policy, self.services, _trial_seconds(reward))
        report = await rehearser.run(rows)
        return replace(report, warnings=(*data.warnings, *report.warnings))

    async def create(self, job: str, document: JobDocument) -> Plan:
        """Make the job. Return the plan that counts, which is that of an earlier try where there was one.

        Raises AlreadyExists, Unavailable.
        """
        fault_point("submit.before_active")
        if not await asyncio.to_thread(jobs.create_job, self.store, job, document.to_json()):
            existing = await self.existing(job, document.fingerprint)
            if existing is None:
                raise Unavailable(f"job {job!r} was being created by somebody else; send the request again")
            return existing
        fault_point("submit.after_spec")
        return Plan.of(job, document)

    async def existing(self, job: str, fingerprint: str) -> Plan | None:
        """Return the job that the same request's earlier try has made, None when the id is free."""
        if await asyncio.to_thread(self.store.stat, jobs.spec_key(job)) is None:
            return None
        plan = read_plan(job, await asyncio.to_thread(jobs.read_spec, self.store, job))
        if plan.document.fingerprint != fingerprint:
            raise AlreadyExists(
                f"job {job!r} exists and was made by another request: choose another job_id, or leave it out"
            )
        return plan

    async def resolve(self, spec: JobSpec) -> Resolved:
        """Check a spec and pin what it names. Raises InvalidSpec, InvalidData."""
        _check_pool(spec.pool, self.pool)
        self.bounds.check_samples(spec)
        pinner = ModelPinner(self.store, self.folders, self.sources, self.local_files)
        policy = await pinner.pin(spec.model.uri, "model.uri", spec.model.base)
        data, ppo = self.data_pinner(policy), spec.ppo
        data.warnings.extend([*range_warnings(spec), *check_policy(policy)])
        prompts = await data.prompts("ppo.prompts", ppo.prompts, ppo)
        eval_prompts = None
        if ppo.eval_prompts is not None:
            eval_prompts = await data.prompts("ppo.eval_prompts", ppo.eval_prompts, ppo)
        tables = [await self._table(table) for table in (prompts, eval_prompts) if table is not None]
        longest = await asyncio.to_thread(check_prompts, tables, policy)
        readers = {"model.uri": policy}
        check_lengths(ppo, longest, readers)
        self.bounds.check(spec, longest, 0 if eval_prompts is None else eval_prompts.rows)
        sft = None
        if spec.sft is not None:
            sft = await data.completions(SFT, spec.sft)
            await self._check_rows(SFT, spec.sft.max_length, sft, policy)
        sets = tuple(map(PromptSet, ("ppo.prompts", "ppo.eval_prompts"), tables))
        trial = Trial(policy, sets, pinner, readers, data.warnings)
        reward = await self.pin_reward(spec, data, trial)
        gold = None if ppo.eval_gold is None else await self.pin_gold(ppo.eval_gold, trial)
        reference = None
        if spec.reference.model is not None:
            reference = readers["reference.model"] = await pinner.pin(spec.reference.model, "reference.model")
            data.warnings.extend(check_reference(policy, reference))
        check_lengths(ppo, longest, readers)
        model = spec.model.model_copy(
            update={"uri": policy.ref.uri, "base": None, "dtype": spec.model.dtype or await self._dtype()}
        )
        origins = pinner.origins | data.origins
        start = value_init(ppo.value_init, spec.reward.data is not None or reward.is_local_model)
        return Resolved(
            name_commits(
                spec.model_copy(update={"model": model, "ppo": ppo.model_copy(update={"value_init": start})}), origins
            ),
            Pinned(
                model=policy.ref,
                tokenizer_digest=policy.tokenizer.digest,
                vocab_size=policy.facts.vocab_size,
                eos_token_ids=tuple(policy.tokenizer.eos_token_ids),
                sft_data=None if sft is None else sft.train,
                prompts=prompts,
                eval_prompts=eval_prompts,
                reference=None if reference is None else reference.ref,
                reward=reward.section,
                reward_data=None if reward.rows is None else reward.rows.train,
                reward_held_out=None if reward.rows is None else reward.rows.held_out,
                reward_is_local_model=reward.is_local_model,
                eval_gold=gold,
                origins=origins,
            ),
            tuple(data.warnings),
        )

    def data_pinner(self, policy: PinnedModel) -> DataPinner:
        """Return what reads the data sets."""
        return DataPinner(self.store, policy.tokenizer, self.sources, self.local_files)

    async def pin_reward(self, spec: JobSpec, data: DataPinner, trial: Trial) -> PinnedReward:
        """Return the reward by content: trained here, or named and tried."""
        section = spec.reward
        if section.data is not None:
            check_trainable_reward(trial.policy)
            rows = await data.pairs(REWARD, section, spec.seed)
            await self._check_rows(REWARD, section.max_length, rows, trial.policy)
            return PinnedReward(rows=rows)
        reward, model = await self._named_reward(section, "reward", trial, trial.sets)
        same = model is not None and model.tokenizer.digest == trial.policy.tokenizer.digest
        return PinnedReward(section=reward, is_local_model=same)

    async def pin_gold(self, section: RewardSpec, trial: Trial) -> RewardSection:
        """Return the gold reward of evaluations by content."""
        return (await self._named_reward(section, "ppo.eval_gold", trial, trial.held_out))[0]

    async def _named_reward(
        self, section: RewardSpec, field: str, trial: Trial, sets: Sequence[PromptSet]
    ) -> tuple[RewardSection, PinnedModel | None]:
        reward, model = await pin_reward(section, field, trial.pinner, self.folders, self.store)
        if model is not None:
            trial.warnings.extend(check_reward_model(trial.policy, model, f"{field}.model"))
            if model.tokenizer.digest == trial.policy.tokenizer.digest:
                trial.readers[f"{field}.model"] = model
        trying = RewardTrial(field, reward, trial.policy, self.services, _trial_seconds(reward))
        trial.warnings.extend(await trying.run(sets))
        return reward, model

    async def _check_rows(self, stage: Stage, max_length: int, rows: StageRows, policy: PinnedModel) -> None:
        """Raise InvalidSpec for prepared rows that do not fit into the model, where such rows can be."""
        positions, tokens = policy.facts.max_positions, policy.tokenizer.ids()
        may_not_fit = (positions is not None and max_length > positions) or max(tokens) >= policy.facts.vocab_size
        for table in (rows.train, rows.held_out):
            if table is not None and may_not_fit:
                content = await asyncio.to_thread(read_object, self.store, table.key, table.sha256)
                await asyncio.to_thread(check_rows, stage, content, policy)

    async def _table(self, ref: TableRef) -> PromptTable:
        data = await asyncio.to_thread(read_object, self.store, ref.key, ref.sha256)
        return await asyncio.to_thread(read_prompts, data)

    async def _dtype(self) -> Literal["float32", "bfloat16"]:
        """Return float32 on CPU, bfloat16 where generation has a GPU."""
        capabilities = await self.services.capabilities(TRIAL_SLACK_SECONDS)
        return "bfloat16" if capabilities.device.startswith("cuda") else "float32"


def _trial_seconds(reward: RewardSection) -> float:
    """Return the trial's time-out: each function may take its whole time limit, one after the other."""
    return reward.timeout * max(1, len(reward.functions)) + TRIAL_SLACK_SECONDS


def new_job_id(asked_id: str, owner: str, request_id: str) -> str:
    """Return the id that was asked for, else one that each try of a request shares. Raises InvalidSpec."""
    if asked_id:
        if not jobs.JOB_ID.fullmatch(asked_id):
            text = f"{asked_id!r}: use 1 to 63 of a-z, 0-9 and '-', not at the ends"
            raise InvalidSpec(f"job_id: {text}", [FieldViolation("job_id", text)])
        return asked_id
    if request_id:
        return sha256_hex(canonical_json([owner, request_id]))[:20]
    return uuid.uuid4().hex[:20]


def _repeated(submission: Submission) -> AlreadyExists | None:
    """Return the error for a request id that was sent with another spec; None where the job's id is the matter."""
    if submission.job_id or not submission.request_id:
        return None
    return AlreadyExists(
        f"request id {submission.request_id!r} was used before with another spec, or other overrides: the same request "
        "id is for sending the same spec again; use another one, or leave it out"
    )


def _check_pool(wanted: str, served: str) -> None:
    if wanted != served:
        text = f"no pool {wanted!r} is served here; there is {served!r}"
        raise InvalidSpec(f"pool: {text}", [FieldViolation("pool", text)])
