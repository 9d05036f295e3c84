"""Device, threads, dtype and determinism of a process that holds a model."""

import torch

from quatrain.errors import InvalidInput

_DTYPES = {"": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:N`. Raises InvalidInput if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise InvalidInput(f"Unknown device {name!r}; use auto, cpu or cuda.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InvalidInput(
            f"Device {name!r} was asked for, but torch sees no CUDA device; use compute.device=cpu or auto."
        )
    return torch.device(name)


def dtype_of(name: str) -> torch.dtype:
    """Return the torch dtype for `float32`, `bfloat16` or empty (float32). Raises InvalidInput for any other name."""
    if name not in _DTYPES:
        raise InvalidInput(f"Unknown compute dtype {name!r}; use float32 or bfloat16.")
    return _DTYPES[name]


def set_threads(count: int) -> None:
    """Set the number of threads of one operation; 0 leaves torch's choice."""
    if count > 0:
        torch.set_num_threads(count)


def set_determinism(on: bool) -> None:
    """Make every operation deterministic, or stop doing so. One that cannot be raises RuntimeError when it is used.

    On CUDA, cuBLAS also needs CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment before the process starts.
    """
    torch.use_deterministic_algorithms(on)
    torch.backends.cudnn.benchmark = False
