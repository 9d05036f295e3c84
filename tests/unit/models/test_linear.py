import copy

import pytest
import torch
from tests.unit.models.tiny_models import tiny_model

from quatrain.models.linear import FastLinear, use_fast_linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 24), (24, 24), (64, 24), (5, 7, 24), (0, 24)])
def test_values_and_gradients_equal_those_of_float64(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(1)
    fast = torch.nn.Linear(24, 40, bias=bias)
    exact = copy.deepcopy(fast).double()
    use_fast_linear(fast)
    assert isinstance(fast, FastLinear)
    inputs = torch.randn(shape, requires_grad=True)
    inputs64 = inputs.detach().double().requires_grad_()
    weights = torch.randn(*shape[:-1], 40)

    torch.autograd.backward((fast(inputs) * weights).sum())
    torch.autograd.backward((exact(inputs64) * weights.double()).sum())

    torch.testing.assert_close(fast(inputs).double(), exact(inputs64), atol=1e-5, rtol=1e-5)
    for one, other in [(inputs, inputs64), *zip(fast.parameters(), exact.parameters(), strict=True)]:
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, atol=1e-5, rtol=1e-5)


def test_inputs_that_are_not_contiguous_or_need_no_gradient() -> None:
    fast = torch.nn.Linear(24, 40)
    plain = copy.deepcopy(fast)
    use_fast_linear(fast)
    inputs = torch.randn(24, 30).t()

    with torch.no_grad():
        torch.testing.assert_close(fast(inputs), plain(inputs), atol=1e-5, rtol=1e-5)
    fast.requires_grad_(False)
    torch.testing.assert_close(fast(inputs), plain(inputs), atol=1e-5, rtol=1e-5)
    view = torch.randn(30, 3, 24)[:, 1]
    torch.testing.assert_close(fast(view), plain(view), atol=1e-5, rtol=1e-5)


def test_the_same_product_gives_the_same_bits() -> None:
    fast = torch.nn.Linear(256, 704)
    use_fast_linear(fast)
    inputs = torch.randn(300, 256, requires_grad=True)

    def gradient() -> torch.Tensor:
        fast.zero_grad()
        torch.autograd.backward(fast(inputs).pow(2).sum())
        return fast.get_parameter("weight").grad.clone()  # type: ignore[union-attr]

    assert torch.equal(fast(inputs), fast(inputs))
    assert torch.equal(gradient(), gradient())


def test_a_model_keeps_its_state_and_its_numbers() -> None:
    model = tiny_model()
    plain = copy.deepcopy(model)

    use_fast_linear(model)

    ids = torch.arange(20)[None]
    torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-4, rtol=1e-4)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert isinstance(copy.deepcopy(model).get_submodule("lm_head"), FastLinear)


def test_other_dtypes_and_autocast_take_the_usual_way() -> None:
    fast = torch.nn.Linear(24, 40)
    use_fast_linear(fast)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fast(torch.randn(10, 24)).dtype == torch.bfloat16
    brain = torch.nn.Linear(24, 40, dtype=torch.bfloat16)
    use_fast_linear(brain)
    assert type(brain) is torch.nn.Linear
