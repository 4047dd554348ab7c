"""The encoder matches torch's own and keeps order, padding and symmetry."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from hepattn.nn.attention import AttentionOptions
from hepattn.nn.dense import Dense
from hepattn.nn.encoder import Encoder
from hepattn.nn.encoder_layer import EncoderLayer
from hepattn.nn.moe import MixtureOfExperts
from hepattn.nn.offset_bias import ALiBi
from hepattn.ops.attention import Full, Window, make_plan
from nn.encoder_cases import ROTARY, make_encoder, random_tokens


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
    dense = partial(Dense, hidden=24, activation="gelu")
    encoder = make_encoder(depth=1, dense=dense, norm_placement=placement)
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
    options = AttentionOptions(num_heads=2)
    encoder = Encoder(8, 2, options, norm="RMSNorm", norm_placement="hybrid")
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


def test_wrapped_window_is_equivariant_to_a_rotation_in_phi() -> None:
    encoder = make_encoder(window=4, wrap=True)
    x, valid = random_tokens(16, (15,))
    phi = (torch.rand(1, 15) * 2 - 1) * torch.pi
    rotated = torch.remainder(phi + 2.0 + torch.pi, 2 * torch.pi) - torch.pi
    assert_close(encoder(x, valid, rotated), encoder(x, valid, phi), atol=1e-5, rtol=1e-4)


def test_a_bias_changes_who_listens_to_whom() -> None:
    encoder = Encoder(8, 1, AttentionOptions(num_heads=2))
    x, valid = random_tokens(8, (3,))
    bias = torch.zeros(1, 2, 3, 3)
    bias[..., 2] = -1e4  # nobody listens to token 2
    changed = x.clone()
    changed[0, 2] += 1
    out, other = encoder(x, valid, bias=bias), encoder(changed, valid, bias=bias)
    assert_close(out[0, :2], other[0, :2])


def test_a_bias_follows_its_tokens_through_sorting_and_between_registers() -> None:
    encoder = make_encoder(depth=1, num_registers=2, register_stride=2, offset_bias=ALiBi)
    x, valid = random_tokens(16, (6, 4))
    bias = torch.zeros(1, 1, 6, 6)
    bias[..., 2] = -1e4  # nobody listens to token 2 but the registers, in one layer
    changed = x.clone()
    changed[:, 2] += 1
    key = torch.rand(2, 6)
    out, other = encoder(x, valid, key, bias), encoder(changed, valid, key, bias)
    others = torch.tensor([0, 1, 3])
    assert_close(out[:, others], other[:, others])
    assert (encoder(x, valid, key)[:, others] - out[:, others]).abs().max() > 1e-3


def test_a_bias_gets_gradients_in_the_order_of_the_tokens() -> None:
    encoder = make_encoder(window=2, num_registers=1)
    x, valid = random_tokens(16, (5, 3))
    bias = torch.zeros(2, 1, 5, 5, requires_grad=True)
    key = torch.tensor([[4.0, 2, 0, 1, 3], [2.0, 0, 1, 9, 9]])
    encoder(x, valid, key, bias).square().sum().backward()
    neighbours = (key[:, :, None] - key[:, None, :]).abs() <= 1
    neighbours &= valid[:, :, None] & valid[:, None, :]
    assert ((bias.grad[:, 0] != 0) == neighbours).all()


def test_the_first_register_is_the_class_token() -> None:
    encoder = make_encoder(depth=2, window=4, num_registers=2, register_stride=3, read_out="cls")
    x, valid = random_tokens(16, (9, 0, 5))
    out = encoder(x, valid)
    assert out.shape == (3, 16)
    tokens = torch.cat([encoder.registers[:1], x[2, :3], encoder.registers[1:], x[2, 3:5]])[None]
    plan = make_plan(Window(4), torch.ones(1, 7).bool(), registers=encoder.register_layout)
    for layer in encoder.layers:
        tokens, _ = layer(tokens, plan)
    assert_close(out[2], encoder.norm(tokens[0, 0]), atol=1e-5, rtol=1e-4)
    (out * torch.randn(out.shape)).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in encoder.parameters())


def test_the_class_token_ignores_padding() -> None:
    encoder = make_encoder(num_registers=1, read_out="cls")
    x, valid = random_tokens(16, (9, 5))
    out = encoder(x.masked_fill(~valid.unsqueeze(-1), 1e6), valid)
    assert_close(out[1:], encoder(x[1:, :5], valid[1:, :5]), atol=1e-5, rtol=1e-4)


def test_registers_are_seen_by_all_in_a_window() -> None:
    encoder = make_encoder(depth=1, window=2, num_registers=2, register_stride=4)
    x, valid = random_tokens(16, (9,))
    before = encoder(x, valid)
    with torch.no_grad():
        encoder.registers[1] = torch.randn(16)
    assert ((encoder(x, valid) - before).abs().amax(-1) > 1e-6).all()


def test_experts_see_registers_as_tokens_and_no_padding() -> None:
    encoder = make_encoder(depth=1, dense=MixtureOfExperts, num_registers=2)
    x, valid = random_tokens(16, (9, 4))
    seen = []
    encoder.layers[0].dense.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    encoder(x, valid)
    assert_close(seen[0].sum(1), torch.tensor([11, 6]))


def test_positions_are_asked_for_where_they_are_needed_only() -> None:
    x, valid = random_tokens(16, (3,))
    with pytest.raises(ValueError, match="takes positions for: phi, z"):
        make_encoder(rotary=ROTARY)(x, valid)
    with pytest.raises(ValueError, match="takes positions for: nothing"):
        make_encoder()(x, valid, positions=torch.randn(1, 3, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth=0"),
        ({"wrap": True}, "wrap=True needs a window"),
        ({"attention": {"num_heads": 5}}, "num_heads=5 must divide dim=16"),
        ({"window": 3}, "must be even"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"read_out": "cls"}, "read_out='cls' need at least one register"),
        ({"register_stride": 4}, "register_stride=4 .* need at least one register"),
        ({"num_registers": 1, "register_stride": 0}, "register_stride=0"),
        ({"num_registers": -1}, "num_registers=-1"),
    ],
)
def test_senseless_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_encoder(**options)
