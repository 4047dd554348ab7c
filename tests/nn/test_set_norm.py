"""Set normalisation takes its statistics from all real objects of an event."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.packing import make_packing
from hepattn.nn.set_norm import SetNorm


def make(dtype: torch.dtype = torch.float32) -> SetNorm:
    norm = SetNorm(4).to(dtype)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def draw(lengths: list[int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Objects, NaN at padded slots, which are anywhere, and which slots are real."""
    valid = torch.arange(max(lengths) + 1) < torch.tensor(lengths).unsqueeze(1)
    valid = valid[:, torch.randperm(valid.shape[1])]
    x = 5 + 3 * torch.randn(*valid.shape, 4, dtype=dtype)
    return x.masked_fill(~valid.unsqueeze(-1), math.nan), valid


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_it_is_the_formula_on_the_real_objects_of_each_event(lengths: list[int]) -> None:
    norm = make(torch.float64)
    x, valid = draw(lengths, torch.float64)
    found = norm(x, valid)
    assert (found[~valid] == 0).all()
    for event, mask in enumerate(valid):
        if mask.any():
            real = x[event][mask]
            spread = (real.var(correction=0) + 1e-5).sqrt()
            expected = (real - real.mean()) / spread * norm.weight + norm.bias
            assert_close(found[event][mask], expected)


def test_of_full_events_it_is_the_group_norm_of_torch() -> None:
    norm, x = make(), torch.randn(3, 5, 4)
    peer = nn.GroupNorm(1, 4)
    peer.load_state_dict(norm.state_dict())
    expected = peer(x.transpose(1, 2)).transpose(1, 2)
    assert_close(norm(x, torch.ones(3, 5, dtype=torch.bool)), expected)


@pytest.mark.parametrize("lengths", [[5, 0, 3], [0, 0]])
def test_packed_objects_get_the_same_values(lengths: list[int]) -> None:
    norm = make()
    x, valid = draw(lengths)
    packing = make_packing(valid)
    assert_close(norm(packing.pack(x), valid, packing), norm(x, valid)[valid])


@pytest.mark.parametrize("lengths", [[5, 0, 3], [4], [0, 0]])
def test_its_gradient_is_that_of_the_formula(lengths: list[int]) -> None:
    norm = make(torch.float64)
    x, valid = draw(lengths, torch.float64)
    x.requires_grad_()
    grad = torch.randn_like(x)
    found = torch.autograd.grad(norm(x, valid), [x, *norm.parameters()], grad)
    expected = torch.autograd.grad(norm._normalise_padded(x, valid), [x, *norm.parameters()], grad)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)


def test_its_operators_keep_the_rules_of_torch() -> None:
    x = torch.randn(6, 4, requires_grad=True)
    norm = make()
    inputs = (x, torch.tensor([2, 0, 4]), norm.weight, norm.bias, 1e-5)
    rules = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(torch.ops.hepattn.set_norm, inputs, test_utils=rules)


def test_an_exported_norm_knows_the_padding() -> None:
    norm = make()
    (x, valid), dims = draw([4, 2]), {0: torch.export.Dim("events")}
    exported = torch.export.export(norm, (x, valid), dynamic_shapes=(dims, dims)).module()
    x, valid = draw([3, 4, 0])
    assert_close(exported(x, valid), norm(x, valid))


def test_statistics_are_exact_in_half_precision() -> None:
    norm = make()
    x, valid = draw([4, 2])
    found = norm(x.bfloat16(), valid)
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), norm(x.bfloat16().float(), valid), atol=0.02, rtol=0.01)


def test_objects_of_different_size_stay_different() -> None:
    small = torch.randn(1, 1, 4)
    x = torch.cat([small, 10 * small], 1)
    spread = SetNorm(4)(x, torch.ones(1, 2, dtype=torch.bool)).std(-1)
    assert_close(spread[0, 1] / spread[0, 0], torch.tensor(10.0))
