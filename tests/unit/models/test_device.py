import pytest
import torch

from quatrain.errors import InvalidInput
from quatrain.models.device import dtype_of, pick_device


def test_names_become_devices_and_dtypes() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert dtype_of("") == torch.float32
    assert dtype_of("bfloat16") == torch.bfloat16


def test_unknown_names_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(InvalidInput, match="auto, cpu or cuda"):
        pick_device("tpu")
    with pytest.raises(InvalidInput, match="float32 or bfloat16"):
        dtype_of("float16")
