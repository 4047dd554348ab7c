"""The token classifier answers for each real token, whatever pads the batch."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.models.token_classifier import TokenClassifier
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.encoder import Encoder
from hepattn.nn.normalise import Feature
from hepattn.nn.positional import (
    Coordinate,
    FourierEncoding,
    LearnedEncoding,
    SinusoidalEncoding,
)
from hepattn.nn.rotary import Rotary
from hepattn.nn.x_transformer import XTransformerEncoder

FEATURES = (Feature("r", scale=0.01), Feature("phi"), Feature("z", scale=0.001))
COORDINATES = (Coordinate("phi", kind="harmonic"), Coordinate("r", scale=0.01))
HEADS = AttentionOptions(num_heads=4)
ENCODERS = {
    "window": partial(Encoder, 16, 2, HEADS, window=4, wrap=True),
    "full": partial(Encoder, 16, 2, HEADS),
    "rotary": partial(
        Encoder,
        16,
        2,
        HEADS,
        rotary=partial(Rotary, coordinates=[Coordinate("z", scale=1e-3), COORDINATES[0]]),
    ),
    "x_transformer": partial(XTransformerEncoder, 16, 2, num_heads=4),
}
ALL = pytest.mark.parametrize("name", ENCODERS)


def make(name: str = "window", **options: object) -> TokenClassifier:
    position = partial(SinusoidalEncoding, coordinates=COORDINATES, alpha=10.0)
    options = {"position": position, "sort_by": None if name == "full" else "phi"} | options
    return TokenClassifier(FEATURES, ENCODERS[name](), **options)


def random_hits(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    valid = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    r = 30 + 150 * torch.rand(valid.shape)
    phi = (2 * torch.rand(valid.shape) - 1) * math.pi
    return torch.stack([r, phi, 1000 * torch.randn(valid.shape)], -1), valid


@ALL
def test_padding_even_of_nan_never_changes_a_real_logit(name: str) -> None:
    lengths = (11, 0, 6)
    net = make(name)
    x, valid = random_hits(lengths)
    out = net(x.masked_fill(~valid.unsqueeze(-1), math.nan), valid)
    assert (out[~valid] == 0).all()
    for event, length in enumerate(lengths):
        if length:
            alone = net(x[event, None, :length], valid[event, None, :length])
            assert_close(out[event, :length], alone[0], atol=1e-5, rtol=1e-4)


@ALL
def test_shuffled_hits_give_shuffled_logits(name: str) -> None:
    net = make(name)
    x, valid = random_hits((12,))
    order = torch.randperm(12)
    assert_close(net(x[:, order], valid), net(x, valid)[:, order], atol=1e-5, rtol=1e-4)


def test_the_rotary_encoding_gets_its_own_columns() -> None:
    net = make("rotary", position=None)
    x, valid = random_hits((12,))
    seen = []
    net.encoder.rotary.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(x, valid)
    order = x[0, :, 1].argsort()  # sorted by phi
    assert_close(seen[0], x[:, order][..., [2, 1]])


@pytest.mark.parametrize(
    "position",
    [
        partial(FourierEncoding, coordinates=COORDINATES),
        partial(LearnedEncoding, num_tokens=12),
        None,
    ],
    ids=["fourier", "learned", "none"],
)
def test_any_encoding_can_be_added_to_the_tokens(position: object) -> None:
    net = make("full", position=position)
    x, valid = random_hits((12, 5))
    tokens = []
    net.encoder.register_forward_pre_hook(lambda _, args: tokens.append(args[0]))
    net(x, valid)
    added = tokens[0] - net.embedding.embed(net.embedding.normalise(x, valid))
    expected = torch.zeros(2, 12, 16)
    if position is not None:
        columns = x.masked_fill(~valid.unsqueeze(-1), 0.0)
        encoding = net.embedding.position
        expected = encoding(columns[..., [1, 0] if encoding.coordinates else []])
    assert_close(added, expected, atol=1e-5, rtol=1e-4)


def test_unknown_coordinate_is_named() -> None:
    eta = [Coordinate("eta")]
    with pytest.raises(ValueError, match="'eta' is not in the feature list"):
        make(position=partial(SinusoidalEncoding, coordinates=eta))
    encoder = Encoder(16, 1, HEADS, rotary=partial(Rotary, coordinates=eta))
    with pytest.raises(ValueError, match="'eta' is not in the feature list"):
        TokenClassifier(FEATURES, encoder)


def test_an_encoder_that_reads_out_no_tokens_is_refused() -> None:
    encoder = Encoder(16, 1, HEADS, num_registers=1, read_out="cls")
    with pytest.raises(ValueError, match="read_out='cls' leaves no tokens"):
        TokenClassifier(FEATURES, encoder)


def test_every_parameter_gets_a_gradient() -> None:
    net: nn.Module = make("rotary")
    x, valid = random_hits((11, 6))
    net(x, valid).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in net.parameters())
