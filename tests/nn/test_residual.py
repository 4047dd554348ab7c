"""LayerScale, DropPath and the value residual do what their papers say."""

import pytest
import torch
from torch.testing import assert_close

from hepattn.nn.residual import DropPath, LayerScale, ValueResidual


def test_layer_scale_starts_small_and_scales_each_feature() -> None:
    layer = LayerScale(3, init=1e-3)
    x = torch.randn(2, 4, 3)
    assert_close(layer(x), x * 1e-3)
    with torch.no_grad():
        layer.gamma.copy_(torch.tensor([1.0, 2.0, 0.0]))
    assert_close(layer(x), torch.stack([x[..., 0], 2 * x[..., 1], 0 * x[..., 2]], -1))


def test_drop_path_drops_whole_events_and_keeps_the_expectation() -> None:
    out = DropPath(0.25)(torch.ones(4000, 3, 2)).flatten(1)
    dropped, kept = (out == 0).all(1), (out == 1 / 0.75).all(1)
    assert (dropped | kept).all()
    assert abs(dropped.float().mean() - 0.25) < 0.03


def test_drop_path_is_silent_in_evaluation() -> None:
    x = torch.randn(5, 2)
    assert_close(DropPath(0.9).eval()(x), x)


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_drop_path_refuses_senseless_probabilities(probability: float) -> None:
    with pytest.raises(ValueError, match=f"drop_path={probability}"):
        DropPath(probability)


def test_fixed_value_residual_is_the_mean() -> None:
    v, first = torch.randn(2, 1, 4, 5, 3)
    assert_close(ValueResidual("fixed", 6, 4)(torch.randn(1, 5, 6), v, first), (v + first) / 2)


def test_learned_value_residual_mixes_by_one_number() -> None:
    layer = ValueResidual("learned", 6, 4)
    with torch.no_grad():
        layer.logit.fill_(2.0)
    v, first = torch.randn(2, 1, 4, 5, 3)
    m = torch.tensor(2.0).sigmoid()
    assert_close(layer(torch.randn(1, 5, 6), v, first), m * v + (1 - m) * first)


def test_per_token_value_residual_mixes_by_token_and_head() -> None:
    layer = ValueResidual("per_token", 6, 4)
    x = torch.randn(2, 5, 6)
    v, first = torch.randn(2, 2, 4, 5, 3)
    out = layer(x, v, first)
    for event in range(2):
        for head in range(4):
            for token in range(5):
                score = layer.mix.weight[head] @ x[event, token] + layer.mix.bias[head]
                m = 1 / (1 + torch.exp(-score))
                place = (event, head, token)
                assert_close(out[place], m * v[place] + (1 - m) * first[place])
