"""Reward models: Hugging Face folders with a one-label head, kept loaded within a memory budget."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quatrain.errors import InvalidData, InvalidInput
from quatrain.jobspec.reward_section import ModelSource
from quatrain.process.model_thread import ModelThread
from quatrain.reward.backends.base import SourceScores
from quatrain.reward.samples import Batch, Malformed, Sample, check_ids
from quatrain.storage.folders import FolderCache
from quatrain.telemetry.logging import get_logger
from quatrain.text import Tokenizer, check_model_folder
from quatrain.text.model_folder import read_offset

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = get_logger("reward.models")

TOKEN_BUDGET = 8192
"""Padded tokens of one forward pass."""
BYTES_PER_PARAMETER = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class RewardModel:
    """A loaded reward model with its tokenizer and limits."""

    model: "PreTrainedModel"
    tokenizer: Tokenizer
    vocab_size: int
    max_positions: int | None
    offset: float
    memory_bytes: int


@dataclass(frozen=True)
class ModelSettings:
    """The device, and the budget in bytes for parameters of loaded models; threads 0 keeps the library's default."""

    device: str = "auto"
    threads: int = 0
    memory_bytes: int = 8 * 2**30
    queue_size: int = 8


class ModelBackend:
    """A backend that loads reward models on first use and evicts the least recently used ones. One thread owns them.

    torch is imported with the first model, not with this module: a replica that only runs reward functions stays small.
    """

    def __init__(self, folders: FolderCache, settings: ModelSettings, thread: ModelThread | None = None) -> None:
        self._folders = folders
        self._settings = settings
        self._thread = thread or ModelThread(settings.queue_size, name="reward-model")
        self._loaded: OrderedDict[tuple[str, str, str], RewardModel] = OrderedDict()

    async def score(self, source: ModelSource, batch: Batch) -> SourceScores:
        """Return the raw scores of the model's head at the last real token.

        Raises NotFound, Corrupt, InvalidData (the model cannot be loaded), InvalidInput (over the budget), Overloaded.
        """
        if _key(source) not in self._loaded:
            # Outside of the thread: a download must not delay calls for models that are loaded.
            await asyncio.to_thread(self._folders.fetch, source.ref.uri, source.ref.digest)
        return await self._thread.run(self._score, source, batch)

    async def close(self) -> None:
        """Refuse further calls."""
        self._thread.close()

    @property
    def loaded(self) -> list[str]:
        """Return the URIs of the loaded models, the least recently used first."""
        return [uri for uri, _, _ in self._loaded]

    def _score(self, source: ModelSource, batch: Batch) -> SourceScores:
        from quatrain.models.scores import last_token_scores

        reward_model = self._get(source)
        rows: dict[int, np.ndarray] = {}
        refused: dict[int, str] = {}
        for index, sample in enumerate(batch.samples):
            try:
                rows[index] = _row(sample, batch.tokenizer, reward_model)
            except Malformed as error:
                refused[index] = f"{source.name}: {error}"
        values: list[float | None] = [None] * len(batch.samples)
        if rows:
            scores = last_token_scores(reward_model.model, list(rows.values()), TOKEN_BUDGET)
            for index, score in zip(rows, scores, strict=True):
                values[index] = float(score)
        return SourceScores(
            values=tuple(values),
            terms={source.name: tuple(values)},
            version=source.ref.digest or source.ref.uri,
            offset=reward_model.offset if source.offset is None else source.offset,
            refused=refused,
        )

    def _get(self, source: ModelSource) -> RewardModel:
        key = _key(source)
        if key not in self._loaded:
            self._loaded[key] = self._load(source, self._folders.fetch(source.ref.uri, source.ref.digest))
        self._loaded.move_to_end(key)
        return self._loaded[key]

    def _load(self, source: ModelSource, folder: Path) -> RewardModel:
        from quatrain.models.device import pick_device, set_threads
        from quatrain.models.loading import load_sequence_classifier

        facts = check_model_folder(folder)
        device = pick_device(self._settings.device)
        set_threads(self._settings.threads)
        dtype = source.dtype or ("bfloat16" if device.type == "cuda" else "float32")
        if dtype not in BYTES_PER_PARAMETER:
            raise InvalidInput(f"reward model {source.ref.uri}: dtype {dtype!r} is neither float32 nor bfloat16")
        needed = facts.parameters * BYTES_PER_PARAMETER[dtype]
        self._evict_until_fits(source, needed)
        log.info("reward model is loaded", uri=source.ref.uri, digest=source.ref.digest, dtype=dtype, bytes=needed)
        return RewardModel(
            model=load_sequence_classifier(folder, dtype=dtype, device=device),
            tokenizer=Tokenizer.load(folder),
            vocab_size=facts.vocab_size,
            max_positions=facts.max_positions,
            offset=read_offset(folder),
            memory_bytes=needed,
        )

    def _evict_until_fits(self, source: ModelSource, needed: int) -> None:
        """Evict models before a new one is loaded, so that the budget is never exceeded."""
        budget = self._settings.memory_bytes
        if needed > budget:
            raise InvalidInput(
                f"reward model {source.ref.uri} needs {needed:,} bytes, more than this replica's budget of {budget:,}; "
                "raise reward.memory_bytes or use a smaller model"
            )
        while self._loaded and sum(model.memory_bytes for model in self._loaded.values()) + needed > budget:
            (uri, _, _), _ = self._loaded.popitem(last=False)
            log.info("reward model is evicted", uri=uri)


def _key(source: ModelSource) -> tuple[str, str, str]:
    return source.ref.uri, source.ref.digest, source.dtype


def _row(sample: Sample, policy_tokenizer: Tokenizer, reward_model: RewardModel) -> np.ndarray:
    """Return the ids for the reward model. Raises Malformed."""
    if reward_model.tokenizer.digest == policy_tokenizer.digest:
        ids: Sequence[int] = (*sample.prompt_ids, *sample.completion_ids)
        check_ids("reward model's", ids, reward_model.vocab_size)
    else:
        ids = _encode(sample, reward_model.tokenizer)
    if not ids:
        raise Malformed("the reward model's tokenizer gives no token for prompt and completion")
    if reward_model.max_positions is not None and len(ids) > reward_model.max_positions:
        raise Malformed(f"{len(ids)} tokens, and the reward model reads at most {reward_model.max_positions}")
    return np.asarray(ids, dtype=np.int32)


def _encode(sample: Sample, tokenizer: Tokenizer) -> list[int]:
    """Encode prompt and completion with another tokenizer, and its EOS, as in training, if the sample has one."""
    try:
        prompt = sample.prompt
        text = prompt if isinstance(prompt, str) else tokenizer.render(prompt, add_generation_prompt=True)
        ids = tokenizer.encode(text + sample.completion)
    except InvalidData as error:
        raise Malformed(str(error)) from error
    return [*ids, tokenizer.eos_token_id] if sample.finish_reason == "stop" else ids
