"""Reductions over features are those of torch's own layers, also when folded into the weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.nn.feature_reduction import AttentionReduction, make_reduction

NUM_FEATURES, DIM = 5, 8


def test_flat_vectors_are_written_one_behind_the_other() -> None:
    reduction, dim = make_reduction("reshape", NUM_FEATURES, DIM, is_flat=True)
    x = torch.randn(3, NUM_FEATURES, DIM)
    assert dim == NUM_FEATURES * DIM
    assert_close(reduction(x), x.reshape(3, dim))


def test_object_vectors_are_mapped_back_to_their_dimension() -> None:
    reduction, dim = make_reduction("reshape", NUM_FEATURES, DIM, is_flat=False)
    x = torch.randn(3, 2, NUM_FEATURES, DIM)
    assert dim == DIM
    assert_close(reduction(x), reduction.linear(x.reshape(3, 2, -1)))


def test_the_sum_for_events_is_a_convolution_with_features_as_channels() -> None:
    reduction, _ = make_reduction("conv1d", NUM_FEATURES, DIM, is_flat=True)
    peer = nn.Conv1d(NUM_FEATURES, 1, kernel_size=1)
    with torch.no_grad():
        reduction.weight.copy_(peer.weight[0, :, 0])
        reduction.bias.copy_(peer.bias)
    x = torch.randn(3, NUM_FEATURES, DIM)
    assert_close(reduction(x), peer(x).squeeze(1))


def test_the_sum_for_objects_is_a_convolution_with_features_as_channels() -> None:
    reduction, _ = make_reduction("conv2d", NUM_FEATURES, DIM, is_flat=False)
    peer = nn.Conv2d(NUM_FEATURES, 1, kernel_size=1)
    with torch.no_grad():
        reduction.weight.copy_(peer.weight[0, :, 0, 0])
        reduction.bias.copy_(peer.bias)
    x = torch.randn(3, 2, NUM_FEATURES, DIM)
    assert_close(reduction(x), peer(x.transpose(1, 2)).squeeze(1))


def test_attention_weighs_features_by_a_softmax_of_their_scores() -> None:
    reduction = AttentionReduction(DIM).eval()
    x = torch.randn(3, NUM_FEATURES, DIM)
    for event, out in zip(x, reduction(x), strict=True):
        scores = torch.stack([reduction.score(token)[0] for token in event])
        weights = scores.exp() / scores.exp().sum()
        mean = sum(weight * token for weight, token in zip(weights, event, strict=True))
        assert_close(out, F.layer_norm(F.gelu(mean), (DIM,)))


@pytest.mark.parametrize("name", ["mean", "reshape", "conv2d"])
def test_folding_into_the_weights_changes_nothing(name: str) -> None:
    reduction, _ = make_reduction(name, NUM_FEATURES, DIM, is_flat=False)
    codes, rows = torch.randn(3, NUM_FEATURES, 2), torch.randn(NUM_FEATURES, 2, DIM)
    expected = reduction(torch.einsum("bft,fte->bfe", codes, rows))
    folded = torch.cat([reduction.fold(rows[:3], 0), reduction.fold(rows[3:], 3)])
    found = torch.einsum("bft,fte->be", codes, folded)
    assert_close(found + (0 if reduction.bias is None else reduction.bias), expected)


@pytest.mark.parametrize(("name", "is_flat"), [("conv2d", True), ("conv1d", False)])
def test_a_reduction_for_the_other_columns_is_refused(name: str, is_flat: bool) -> None:
    with pytest.raises(ValueError, match=f"{name}.* use 'conv"):
        make_reduction(name, NUM_FEATURES, DIM, is_flat)
