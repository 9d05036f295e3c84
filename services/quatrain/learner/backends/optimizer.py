"""AdamW for one model: gradient accumulation, clipping, skipping of non-finite updates, and its state as tensors.

Parameters in bfloat16 get float32 masters: gradients are added up and applied in float32 and the parameters are the
rounded copy, so that small updates are not lost.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from quatrain.errors import Corrupt, RunFailed
from quatrain.learner.backends.ranks import ALONE, Ranks


@dataclass(frozen=True)
class AdamSettings:
    """AdamW's constants, the largest gradient norm, and how many updates in a row may be skipped."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    max_skipped: int = 5


class ModelOptimizer:
    """The optimizer of `model`. `skipped_in_a_row` is state and belongs in every checkpoint."""

    def __init__(self, name: str, model: torch.nn.Module, settings: AdamSettings, ranks: Ranks = ALONE) -> None:
        self.name = name
        self._ranks = ranks
        self.skipped_in_a_row = 0
        self._settings = settings
        self._parameters = {key: value for key, value in model.named_parameters() if value.requires_grad}
        # For float32 parameters the master is the parameter itself.
        self._masters = {
            key: value if value.dtype == torch.float32 else value.detach().float()
            for key, value in self._parameters.items()
        }
        self._adam = torch.optim.AdamW(
            list(self._masters.values()),
            lr=0.0,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def accumulate(self) -> None:
        """Add the gradients of the last backward pass to the float32 masters; call it after each microbatch."""
        for key, parameter in self._parameters.items():
            master = self._masters[key]
            if master is parameter or parameter.grad is None:
                continue
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def update(self, lr: float, *, finite: bool) -> float | None:
        """Apply the gradients that all ranks have accumulated at rate `lr`; return their norm before clipping.

        None means that the update was skipped: the loss was not `finite`, or the norm is not. Raises RunFailed when
        more than `max_skipped` updates in a row were.
        """
        gradients = self._gradients()
        norm = torch.nn.utils.get_total_norm(gradients)
        value = float(norm)
        if not finite or not math.isfinite(value):
            self._skip()
            return None
        torch.nn.utils.clip_grads_with_norm_(self._masters.values(), self._settings.grad_clip, norm)
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._copy_to_parameters()
        self.skipped_in_a_row = 0
        return value

    def state(self) -> dict[str, Tensor]:
        """Return moments, step counts and float32 masters by parameter name."""
        tensors: dict[str, Tensor] = {}
        for key, master in self._masters.items():
            for part, value in self._adam.state.get(master, {}).items():
                tensors[f"{key}:{part}"] = value
            if master is not self._parameters[key]:
                tensors[f"{key}:master"] = master
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned. Raises Corrupt if it belongs to another model."""
        unknown = {name.rpartition(":")[0] for name in tensors} - set(self._masters)
        if unknown:
            raise Corrupt(
                f"The checkpoint's {self.name} optimizer has state for {sorted(unknown)[0]}, which the model lacks."
            )
        for key, master in self._masters.items():
            moments = {
                part: tensors[f"{key}:{part}"]
                for part in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}:{part}" in tensors
            }
            if moments:
                self._adam.state[master] = {part: value.to(master.device).clone() for part, value in moments.items()}
            if f"{key}:master" in tensors:
                with torch.no_grad():
                    master.copy_(tensors[f"{key}:master"])
        self._copy_to_parameters()

    def _gradients(self) -> list[Tensor]:
        """Return the gradients, summed over the ranks; a rank without rows adds zeros to those that the others have."""
        if self._ranks.size > 1:
            theirs = self._ranks.all_gather([float(master.grad is not None) for master in self._masters.values()])
            for master, *has in zip(self._masters.values(), *theirs, strict=True):
                if any(has) and master.grad is None:
                    master.grad = torch.zeros_like(master)
        gradients = [master.grad for master in self._masters.values() if master.grad is not None]
        self._ranks.all_reduce_sum(gradients)
        return gradients

    def _skip(self) -> None:
        self._adam.zero_grad(set_to_none=True)
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row > self._settings.max_skipped:
            raise RunFailed(
                f"The {self.name} model had {self.skipped_in_a_row} updates in a row with a non-finite loss or "
                f"gradient, more than the {self._settings.max_skipped} that are allowed; lower its learning rate or "
                "look at the scores."
            )

    @torch.no_grad()
    def _copy_to_parameters(self) -> None:
        for key, parameter in self._parameters.items():
            if self._masters[key] is not parameter:
                parameter.copy_(self._masters[key])
