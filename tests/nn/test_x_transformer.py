"""The x-transformers encoder keeps our promises; its layers are a reference for our own."""

from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.offset_bias import ALiBi
from hepattn.nn.rotary import Rotary
from hepattn.nn.x_transformer import XTransformerEncoder, _package
from hepattn.ops.attention import Full, Plan, make_plan
from nn.encoder_cases import LENGTHS, random_tokens

VARIANTS = {
    "plain": {"norm": "LayerNorm"},
    "options": {"value_residual": True, "output_gate": True, "laser": True, "num_value_heads": 4},
    "shared": {"num_value_heads": 2, "norm": "DyT"},
    "rotary": {"places": "rotary"},
    "alibi": {"places": "alibi"},
}
ALL = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


@pytest.fixture(scope="module")
def package() -> ModuleType:
    return _package().x_transformers


@ALL
@pytest.mark.parametrize("is_sorted", [False, True])
def test_padding_never_changes_a_real_output(options: dict, is_sorted: bool) -> None:
    encoder = XTransformerEncoder(16, 2, num_heads=4, **options)
    x, valid = random_tokens(16)
    key = torch.rand(valid.shape)
    together = encoder(x.masked_fill(~valid.unsqueeze(-1), 1e3), valid, key if is_sorted else None)
    assert (together[~valid] == 0).all()
    for event, length in enumerate(LENGTHS):
        if length:
            here = (slice(event, event + 1), slice(length))
            alone = encoder(x[here], valid[here], key[here] if is_sorted else None)
            assert_close(together[here], alone, atol=2e-5, rtol=1e-4)


@ALL
def test_every_parameter_learns_and_gradients_are_finite(options: dict) -> None:
    encoder = XTransformerEncoder(16, 2, num_heads=4, **options)
    x, valid = random_tokens(16)
    out = encoder(x, valid)
    (out * torch.randn(out.shape)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@ALL
def test_permuted_tokens_give_permuted_outputs_unless_places_count(options: dict) -> None:
    encoder = XTransformerEncoder(16, 2, num_heads=4, **options)
    x, valid = random_tokens(16, (12,))
    key, order = torch.rand(1, 12), torch.randperm(12)
    out, expected = encoder(x[:, order], valid), encoder(x, valid)[:, order]
    assert ("places" in options) == bool((out - expected).abs().max() > 1e-4)
    out, expected = encoder(x[:, order], valid, key[:, order]), encoder(x, valid, key)[:, order]
    assert_close(out, expected, atol=1e-5, rtol=1e-4)


def test_a_bias_changes_who_listens_to_whom() -> None:
    encoder = XTransformerEncoder(8, 1, num_heads=2)
    x, valid = random_tokens(8, (3, 3))
    bias = torch.zeros(1, 2, 3, 3)
    bias[..., 2] = -1e4  # nobody listens to token 2
    changed = x.clone()
    changed[:, 2] += torch.randn(8)
    out, other = encoder(x, valid, bias=bias), encoder(changed, valid, bias=bias)
    assert_close(out[:, :2], other[:, :2])


def test_what_the_package_lacks_is_refused() -> None:
    x, valid = random_tokens(8, (3,))
    with pytest.raises(TypeError, match="window"):
        XTransformerEncoder(8, 1, window=4)
    with pytest.raises(ValueError, match="takes no coordinates"):
        XTransformerEncoder(8, 1)(x, valid, positions=x)
    with pytest.raises(ValueError, match="a bias or places, not both"):
        XTransformerEncoder(8, 1, places="alibi")(x, valid, bias=torch.zeros(1, 1, 3, 3))
    with pytest.raises(ValueError, match="num_heads=5 must divide dim=8"):
        XTransformerEncoder(8, 1, num_heads=5)
    with pytest.raises(ValueError, match="num_value_heads=3 must divide num_heads=4"):
        XTransformerEncoder(8, 1, num_heads=4, num_value_heads=3)


def pair(
    package: ModuleType, theirs: dict, value_residual: str = "none", **ours: object
) -> tuple[Attention, torch.nn.Module, Tensor, Tensor, Plan]:
    """An attention layer of each kind with the same weights, and a padded batch."""
    options = AttentionOptions(num_heads=4, bias=False, **ours)
    layer = Attention(32, options, value_residual=value_residual)
    peer = package.Attention(32, dim_head=8, heads=4, **theirs)
    key, value = layer.key_value.weight.chunk(2)
    with torch.no_grad():
        for mine, its in ((layer.query.weight, peer.to_q), (key, peer.to_k), (value, peer.to_v)):
            its.weight.copy_(mine)
        peer.to_out.weight.copy_(layer.out.weight)
    x, valid = random_tokens(32, (9, 3, 14, 1))
    return layer, peer, x, valid, make_plan(Full(), valid)


def test_laser_equals_theirs(package: ModuleType) -> None:
    # Their soft clamp of the values is moved out of the way.
    theirs = {"laser": True, "laser_softclamp_value": 1e4}
    layer, peer, x, valid, plan = pair(package, theirs, laser=True)
    expected = peer(x, mask=valid)
    assert_close(layer(x, plan)[0], expected, atol=1e-5, rtol=1e-5)


def test_output_gate_equals_theirs(package: ModuleType) -> None:
    layer, peer, x, valid, plan = pair(package, {"gate_values": True}, output_gate=True)
    with torch.no_grad():
        layer.gate.bias.zero_()
        (weight,) = peer.to_v_gate.parameters()
        layer.gate.weight.copy_(weight)
    assert_close(layer(x, plan)[0], peer(x, mask=valid), atol=1e-5, rtol=1e-5)


def test_value_residual_by_token_equals_theirs(package: ModuleType) -> None:
    theirs = {"learned_value_residual_mix": True}
    layer, peer, x, valid, plan = pair(package, theirs, value_residual="per_token")
    peer.to_value_residual_mix[0].load_state_dict(layer.value_residual.mix.state_dict())
    first = torch.randn(4, 4, 14, 8)
    out, _ = layer(x, plan, first_values=first)
    assert_close(out, peer(x, mask=valid, value_residual=first), atol=1e-5, rtol=1e-5)


def test_rotation_by_place_equals_theirs(package: ModuleType) -> None:
    layer, peer, x, valid, plan = pair(package, {})
    rotation = Rotary(8, 4)(torch.arange(14.0)[None, :, None])
    frequencies = package.RotaryEmbedding(8).forward_from_seq_len(14)
    out, _ = layer(x, plan, rotary=rotation)
    assert_close(out, peer(x, mask=valid, rotary_pos_emb=frequencies), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_heads", [4, 6, 12])
def test_alibi_equals_theirs(package: ModuleType, num_heads: int) -> None:
    bias = package.AlibiPositionalBias(num_heads)(14, 14)  # (H, M, N)
    column = 13 + torch.arange(14)[None, :] - torch.arange(14)[:, None]
    assert_close(ALiBi(num_heads)(13)[:, column], bias, atol=1e-6, rtol=1e-5)


def test_attention_with_alibi_equals_theirs(package: ModuleType) -> None:
    layer, peer, x, valid, plan = pair(package, {})
    out, _ = layer(x, plan, offset_bias=ALiBi(4)(plan.max_offset))
    expected = peer(x, mask=valid, rel_pos=package.AlibiPositionalBias(4))
    assert_close(out, expected, atol=1e-5, rtol=1e-5)
