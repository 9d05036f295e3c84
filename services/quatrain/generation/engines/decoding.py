"""Batched sampling with a key-value cache from any causal language model of transformers.

Prompts are padded on the right and read without a mask; the tokens sampled go into the columns after the longest
prompt, where a mask hides each row's padding and what lies beyond a layer's window. Position ids count real tokens
only, so a row's logprobs equal those of the row alone. A finished row leaves the batch at once. Nothing outlives the
call, so no key or value can be stale.

Shape suffixes: B rows in the batch now, T new tokens, V vocabulary, D hidden width, C columns of the cache.
"""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from quatrain.errors import RunFailed
from quatrain.generation.engines.attention_masks import RowMasks, sliding_window
from quatrain.generation.engines.base import Chunk, Completion
from quatrain.generation.engines.kv_cache import PreallocatedCache
from quatrain.generation.engines.uniforms import uniforms
from quatrain.models.output_head import output_head
from quatrain.models.sequences import PaddedBatch, pad_right
from quatrain.process.model_thread import made_progress


@torch.inference_mode()
def generate(model: PreTrainedModel, chunk: Chunk) -> list[Completion]:
    """Return the completions in the order of the prompts. Raises RunFailed when the logits are not finite."""
    run = _Run(model, chunk)
    hidden_BD = run.read_prompts()
    for step in range(chunk.sampling.max_new_tokens):
        tokens_B = run.sample(hidden_BD, step)
        tokens_B = run.drop_finished(tokens_B, step)
        if step + 1 == chunk.sampling.max_new_tokens or len(tokens_B) == 0:
            break
        hidden_BD = run.read_tokens(tokens_B)
        made_progress()
    return run.completions()


def sample_tokens(logits_BV: torch.Tensor, uniforms_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a token drawn from softmax(logits) for each row, and its logprob, both [B].

    The token is the first id whose cumulated probability is above u. The cumulated probabilities are float64: the
    share of all u that draws an id equals its probability to 1e-12, and an id of probability 0 is never drawn.
    """
    log_probabilities_BV = torch.log_softmax(logits_BV, dim=-1)
    cumulated_BV = log_probabilities_BV.exp().cumsum(dim=-1, dtype=torch.float64)
    total_B1 = cumulated_BV[:, -1:]
    # Rounding may carry u * total up to total itself, beyond the last id of positive probability.
    threshold_B1 = torch.minimum(uniforms_B[:, None] * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    tokens_B1 = torch.searchsorted(cumulated_BV, threshold_B1, right=True).clamp_(max=logits_BV.shape[1] - 1)
    return tokens_B1[:, 0], log_probabilities_BV.gather(1, tokens_B1)[:, 0]


@dataclass
class _Rows:
    """The rows still in the batch: which prompt each is, and the position of its next token."""

    prompt_B: torch.Tensor
    position_B1: torch.Tensor

    def take(self, index: torch.Tensor) -> "_Rows":
        return _Rows(self.prompt_B[index], self.position_B1[index])


class _Run:
    """The state of one chunk while it is sampled."""

    def __init__(self, model: PreTrainedModel, chunk: Chunk) -> None:
        self._model = model
        self._head = output_head(model)
        self._sampling = chunk.sampling
        device = model.device
        count, new_tokens = len(chunk.prompts), chunk.sampling.max_new_tokens
        self._batch: PaddedBatch = pad_right(chunk.prompts, device=device)
        self._longest = self._batch.input_ids_BT.shape[1]
        capacity = self._longest + new_tokens
        self._cache = PreallocatedCache(model.config.get_text_config().num_hidden_layers, capacity)
        lengths_B1 = self._batch.lengths_B[:, None]
        self._rows = _Rows(torch.arange(count, device=device), lengths_B1)
        self._masks = RowMasks(lengths_B1, self._longest, capacity, sliding_window(model), model.dtype)
        table = np.stack([uniforms(seed, new_tokens) for seed in chunk.seeds])
        self._uniforms = torch.from_numpy(table).to(device)
        self._ends_V = None if chunk.sampling.ignore_eos else self._end_table(chunk.sampling.eos_token_ids)
        self._tokens = torch.zeros((count, new_tokens), dtype=torch.long, device=device)
        self._logprobs = torch.zeros((count, new_tokens), dtype=torch.float32, device=device)
        self._stopped_after = np.zeros(count, dtype=np.int64)  # tokens at which a row sampled EOS, 0: it did not

    def _end_table(self, eos_token_ids: tuple[int, ...]) -> torch.Tensor:
        """Return whether each id ends a completion, [V]: one look-up a step instead of comparisons."""
        table_V = torch.zeros(self._head.size, dtype=torch.bool, device=self._model.device)
        table_V[list(eos_token_ids)] = True
        return table_V

    def read_prompts(self) -> torch.Tensor:
        """Fill the cache with the prompts and return the hidden states [B, D] that predict the first tokens."""
        output = self._model.base_model(input_ids=self._batch.input_ids_BT, past_key_values=self._cache, use_cache=True)
        hidden_BD: torch.Tensor = output.last_hidden_state[self._rows.prompt_B, self._batch.lengths_B - 1]
        return hidden_BD

    def read_tokens(self, tokens_B: torch.Tensor) -> torch.Tensor:
        """Append one token to every row and return the hidden states [B, D] that predict the next ones."""
        output = self._model.base_model(
            input_ids=tokens_B[:, None],
            past_key_values=self._cache,
            use_cache=True,
            position_ids=self._rows.position_B1,
            attention_mask=self._masks.at(self._rows.position_B1, self._cache.length + 1),
        )
        self._rows.position_B1 = self._rows.position_B1 + 1
        hidden_BD: torch.Tensor = output.last_hidden_state[:, 0]
        return hidden_BD

    def sample(self, hidden_BD: torch.Tensor, step: int) -> torch.Tensor:
        """Sample one token for every row, record the tokens, and return them, [B]."""
        logits_BV = self._head.logits(hidden_BD, self._sampling.temperature)
        rows = self._rows.prompt_B
        tokens_B, logprobs_B = sample_tokens(logits_BV, self._uniforms[rows, step])
        self._tokens[rows, step] = tokens_B
        self._logprobs[rows, step] = logprobs_B
        return tokens_B

    def drop_finished(self, tokens_B: torch.Tensor, step: int) -> torch.Tensor:
        """Take rows that sampled EOS out of the batch and return the tokens of the others, in their new order."""
        if self._ends_V is None:
            return tokens_B
        done_B = self._ends_V[tokens_B]
        finished = torch.nonzero(done_B)[:, 0]
        if len(finished) == 0:
            return tokens_B
        self._stopped_after[self._rows.prompt_B[finished].cpu().numpy()] = step + 1
        left = len(tokens_B) - len(finished)
        targets = finished[finished < left]
        sources = torch.nonzero(~done_B[left:])[:, 0] + left
        self._cache.move_rows(sources, targets, left)
        index = torch.arange(left, device=tokens_B.device)
        index[targets] = sources
        self._rows = self._rows.take(index)
        self._masks.take(index)
        return tokens_B[index]

    def completions(self) -> list[Completion]:
        """Return what was sampled. Raises RunFailed when a logprob is not finite."""
        tokens, logprobs = self._tokens.int().cpu().numpy(), self._logprobs.cpu().numpy()
        if not np.isfinite(logprobs).all():
            raise RunFailed("The policy gives logits that are not finite; its weights hold NaN or infinity.")
        return [
            Completion(
                token_ids=tokens[row, : stop or self._sampling.max_new_tokens].copy(),
                logprobs=logprobs[row, : stop or self._sampling.max_new_tokens].copy(),
                finish_reason="stop" if stop else "length",
            )
            for row, stop in enumerate(self._stopped_after.tolist())
        ]
