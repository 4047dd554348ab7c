"""The encoder matches torch's own and keeps order, padding and symmetry."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.encoder import Encoder, EncoderLayer
from hepattn.ops.attention import Full, make_plan

LENGTHS = (9, 0, 14, 1)


def random_tokens(dim: int, lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    valid = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return torch.randn(*valid.shape, dim), valid


def copy_to_torch(layer: EncoderLayer, reference: nn.TransformerEncoderLayer) -> None:
    attention, dense = layer.attention, layer.dense
    pairs = {
        "self_attn.in_proj_weight": [attention.query.weight, attention.key_value.weight],
        "self_attn.in_proj_bias": [attention.query.bias, attention.key_value.bias],
        "self_attn.out_proj.weight": [attention.out.weight],
        "self_attn.out_proj.bias": [attention.out.bias],
        "linear1.weight": [dense.expand.weight],
        "linear1.bias": [dense.expand.bias],
        "linear2.weight": [dense.contract.weight],
        "linear2.bias": [dense.contract.bias],
        "norm1.weight": [layer.attention_norm.weight],
        "norm1.bias": [layer.attention_norm.bias],
        "norm2.weight": [layer.dense_norm.weight],
        "norm2.bias": [layer.dense_norm.bias],
    }
    state = {name: torch.cat(parts).detach() for name, parts in pairs.items()}
    reference.load_state_dict(state)


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_layer_equals_torchs_own_encoder_layer(placement: str) -> None:
    encoder = Encoder(16, 1, num_heads=4, hidden=24, activation="gelu", norm_placement=placement)
    encoder.norm = nn.Identity()
    reference = nn.TransformerEncoderLayer(
        16, 4, 24, 0.0, "gelu", batch_first=True, norm_first=placement == "pre"
    )
    for parameter in encoder.parameters():  # norms start at one and zero: make them matter
        nn.init.normal_(parameter, std=0.5)
    copy_to_torch(encoder.layers[0], reference)
    x, valid = random_tokens(16, (9, 3, 14, 1))
    expected = reference(x, src_key_padding_mask=~valid)
    assert_close(encoder(x, valid)[valid], expected[valid], atol=1e-5, rtol=1e-4)


def test_hybrid_layers_follow_their_formula() -> None:
    encoder = Encoder(8, 2, num_heads=2, norm="RMSNorm", norm_placement="hybrid")
    x, valid = random_tokens(8, (5,))
    first, second = encoder.layers
    plan = make_plan(Full(), valid)
    x1 = x + first.attention(first.attention_norm(x), plan)[0]
    x1 = x1 + first.dense(first.dense_norm(x1))
    x2 = x1 + second.attention(x1, plan)[0]
    x2 = second.dense_norm(x2)
    x2 = x2 + second.dense(x2)
    assert second.attention_norm is None
    assert len(second.attention.norms) == 3
    assert first.attention.norms is None
    assert_close(encoder(x, valid), x2)


VARIANTS = [
    {"norm_placement": "hybrid", "norm": "RMSNorm", "value_residual": "per_token"},
    {"layer_scale": 1e-1, "value_residual": "learned", "norm": "DyT"},
    {"value_residual": "fixed", "norm_placement": "post", "activation": "geglu"},
    {"window": 4, "wrap": True, "num_registers": 2},
    {"num_registers": 3},
    {"window": 4, "backend": "sdpa"},
]


@pytest.mark.parametrize("options", VARIANTS)
def test_padding_never_changes_a_real_output(options: dict) -> None:
    encoder = Encoder(16, 3, num_heads=4, **options)
    x, valid = random_tokens(16)
    together = encoder(x.masked_fill(~valid.unsqueeze(-1), 1e6), valid)
    assert (together[~valid] == 0).all()
    for event, length in enumerate(LENGTHS):
        if length:
            alone = encoder(x[event, None, :length], valid[event, None, :length])
            assert_close(together[event, :length], alone[0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("options", VARIANTS)
def test_every_parameter_learns_and_gradients_are_finite(options: dict) -> None:
    encoder = Encoder(16, 3, num_heads=4, **options)
    x, valid = random_tokens(16)
    encoder(x, valid).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if parameter.numel():
            assert parameter.grad.abs().max() > 0, name


def test_without_a_window_permuted_tokens_give_permuted_outputs() -> None:
    encoder = Encoder(16, 2, num_heads=4, num_registers=1)
    x, valid = random_tokens(16, (12,))
    order = torch.randperm(12)
    assert_close(encoder(x[:, order], valid), encoder(x, valid)[:, order], atol=1e-5, rtol=1e-4)


def test_a_key_makes_a_window_independent_of_the_order_of_the_tokens() -> None:
    encoder = Encoder(16, 2, num_heads=4, window=4, wrap=True)
    x, valid = random_tokens(16, (12, 7))
    key = torch.rand(2, 12)
    order = torch.randperm(7)
    shuffled, shuffled_key = x.clone(), key.clone()
    shuffled[1, :7], shuffled_key[1, :7] = x[1, order], key[1, order]
    expected = encoder(x, valid, key)
    out = encoder(shuffled, valid, shuffled_key)
    assert_close(out[0], expected[0], atol=1e-5, rtol=1e-4)
    assert_close(out[1, :7], expected[1, order], atol=1e-5, rtol=1e-4)


def test_wrapped_window_is_equivariant_to_a_rotation_in_phi() -> None:
    encoder = Encoder(16, 3, num_heads=4, window=4, wrap=True)
    x, valid = random_tokens(16, (15,))
    phi = (torch.rand(1, 15) * 2 - 1) * torch.pi
    rotated = torch.remainder(phi + 2.0 + torch.pi, 2 * torch.pi) - torch.pi
    assert_close(encoder(x, valid, rotated), encoder(x, valid, phi), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{"wrap": True}, {"num_registers": 2}])
def test_backends_agree_through_the_whole_encoder(options: dict) -> None:
    local = Encoder(16, 3, num_heads=4, window=6, backend="local", **options)
    dense = Encoder(16, 3, num_heads=4, window=6, backend="sdpa", **options)
    dense.load_state_dict(local.state_dict())
    x, valid = random_tokens(16, (40, 25, 0, 3))
    assert_close(local(x, valid), dense(x, valid), atol=1e-5, rtol=1e-4)


def test_a_bias_changes_who_listens_to_whom() -> None:
    encoder = Encoder(8, 1, num_heads=2)
    x, valid = random_tokens(8, (3,))
    bias = torch.zeros(1, 2, 3, 3)
    bias[..., 2] = -1e4  # nobody listens to token 2
    changed = x.clone()
    changed[0, 2] += 1
    out, other = encoder(x, valid, bias=bias), encoder(changed, valid, bias=bias)
    assert_close(out[0, :2], other[0, :2])


def test_a_bias_with_a_key_is_refused() -> None:
    x, valid = random_tokens(8, (3,))
    with pytest.raises(ValueError, match="can't be combined with sorting"):
        Encoder(8, 1)(x, valid, key=x[..., 0], bias=torch.zeros(1, 1, 3, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth=0"),
        ({"depth": 1, "wrap": True}, "wrap=True needs a window"),
        ({"depth": 1, "num_heads": 5}, "num_heads=5 must divide dim=16"),
        ({"depth": 1, "window": 3}, "must be even"),
        ({"depth": 1, "drop_path": 1.0}, "drop_path=1.0"),
    ],
)
def test_senseless_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder(16, **options)
