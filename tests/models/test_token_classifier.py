"""The token classifier answers for each real token, whatever pads the batch."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.models.token_classifier import TokenClassifier
from hepattn.nn.encoder import Encoder
from hepattn.nn.normalise import Feature
from hepattn.nn.positional import Coordinate

FEATURES = (Feature("r", scale=0.01), Feature("phi"), Feature("z", scale=0.001))


def make(sort_by: str | None = "phi") -> TokenClassifier:
    positions = (Coordinate("phi", kind="harmonic"), Coordinate("r", scale=0.01))
    encoder = Encoder(16, 2, num_heads=4, window=4 if sort_by else None, wrap=sort_by is not None)
    return TokenClassifier(FEATURES, encoder, positions, alpha=10.0, sort_by=sort_by)


def random_hits(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    valid = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    r = 30 + 150 * torch.rand(valid.shape)
    phi = (2 * torch.rand(valid.shape) - 1) * math.pi
    return torch.stack([r, phi, 1000 * torch.randn(valid.shape)], -1), valid


def test_padding_even_of_nan_never_changes_a_real_logit() -> None:
    lengths = (11, 0, 6)
    net = make()
    x, valid = random_hits(lengths)
    out = net(x.masked_fill(~valid.unsqueeze(-1), math.nan), valid)
    assert (out[~valid] == 0).all()
    for event, length in enumerate(lengths):
        if length:
            alone = net(x[event, None, :length], valid[event, None, :length])
            assert_close(out[event, :length], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sort_by", [None, "phi"])
def test_shuffled_hits_give_shuffled_logits(sort_by: str | None) -> None:
    net = make(sort_by)
    x, valid = random_hits((12,))
    order = torch.randperm(12)
    assert_close(net(x[:, order], valid), net(x, valid)[:, order], atol=1e-5, rtol=1e-4)


def test_unknown_coordinate_is_named() -> None:
    with pytest.raises(ValueError, match="'eta' is not in the feature list"):
        TokenClassifier(FEATURES, Encoder(16, 1), (Coordinate("eta"),))
