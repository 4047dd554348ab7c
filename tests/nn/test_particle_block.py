"""Blocks of ParT against naive formulas, and packed attention against padded attention."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.class_attention import ClassAttention
from hepattn.nn.packing import Packing, make_packing
from hepattn.nn.pair_attention import PairAttention
from hepattn.nn.particle_block import BlockOptions, ClassBlock, ParticleBlock
from hepattn.ops.attention import Full, make_plan

VALID = torch.arange(5) < torch.tensor([5, 2, 3])[:, None]
HEADS = AttentionOptions(num_heads=2, bias=False)


def attend(layer: Attention, q: Tensor, context: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """Attention of one event, head by head."""
    keys, values = layer.key_value(context).chunk(2, -1)
    heads = [x.unflatten(-1, (2, -1)).transpose(0, 1) for x in (layer.query(q), keys, values)]
    score = heads[0] @ heads[1].mT / heads[0].shape[-1] ** 0.5 + bias
    return layer.out((score.softmax(-1) @ heads[2]).transpose(0, 1).flatten(1))


def dense(block: ParticleBlock | ClassBlock, x: Tensor) -> Tensor:
    """Events' pre-norm GeGLU net."""
    hidden, gate = block.expand(block.dense_norm(x)).chunk(2, -1)
    return x + block.contract(hidden * F.gelu(gate))


def make(kind: type) -> ParticleBlock | ClassBlock:
    options = BlockOptions("prenorm", HEADS, activation="geglu", expansion=2)
    block = kind(8, options).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return block


def test_particle_block_in_prenorm_style_is_its_formula() -> None:
    block, x, bias = make(ParticleBlock), torch.randn(3, 5, 8), torch.randn(3, 2, 5, 5)
    packing = make_packing(VALID)
    found = packing.unpack(block(packing.pack(x), make_plan(Full(), VALID), packing, bias))
    for event, length in enumerate(VALID.sum(1).tolist()):
        real = x[event, :length]
        normed = block.attention_norm(real)
        update = attend(block.attention, normed, normed, bias[event, :, :length, :length])
        assert_close(found[event, :length], dense(block, real + update), atol=1e-5, rtol=1e-5)


def test_class_block_in_prenorm_style_normalises_the_token_alone() -> None:
    block, x, token = make(ClassBlock), torch.randn(3, 5, 8), torch.randn(3, 8)
    packing, first = make_packing(VALID), torch.ones(3, 1, dtype=torch.bool)
    plan = make_plan(Full(), torch.cat([first, VALID], 1), first)
    found = block(token, packing.pack(x), plan, packing)
    for event, length in enumerate(VALID.sum(1).tolist()):
        query = block.attention_norm(token[event, None])
        context = torch.cat([query, x[event, :length]])
        update = attend(block.attention, query, context)
        expected = dense(block, token[event, None] + update)
        assert_close(found[event, None], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["geglu", "swiglu"])
def test_the_chunked_dense_net_is_that_of_its_layers(activation: str) -> None:
    options = BlockOptions(
        "prenorm", activation=activation, activation_dropout=0.0, dropout=0.0, layer_scale=0.5
    )
    block = ParticleBlock(8, options)
    x, packing = torch.randn(7, 8), make_packing(torch.ones(1, 7, dtype=torch.bool))
    results = []
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        block.zero_grad()
        out = block.add_dense(leaf, packing)
        out.square().sum().backward()
        parts = (block.expand, block.contract, block.dense_norm)
        results.append([out, leaf.grad, *(p.grad.clone() for m in parts for p in m.parameters())])
        block.expand.register_forward_hook(lambda *_: None)  # the second time layer by layer
    assert_close(*results)


@pytest.mark.parametrize("lengths", [(5, 2, 0), (5, 5, 5)])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"output_gate": True, "head_dim": 3}])
def test_class_attention_without_keys_is_attention(lengths: tuple[int, ...], options: dict) -> None:
    layer = ClassAttention(8, AttentionOptions(num_heads=2, **options))
    valid = torch.arange(5) < torch.tensor(lengths)[:, None]
    packing, first = make_packing(valid), torch.ones(3, 1, dtype=torch.bool)
    plan = make_plan(Full(), torch.cat([first, valid], 1), first)
    token, x, grad = torch.randn(3, 8), packing.pack(torch.randn(3, 5, 8)), torch.randn(3, 8)
    query, context = (y.requires_grad_() for y in (token, packing.join(token, x).detach()))
    places = {"packing": Packing(None, 3, 1), "context_packing": packing.with_first()}
    leaves = (query, context, *layer.parameters())
    found, values = layer(query, plan, context=context, **places)
    assert values is None
    layer.key_value.register_forward_hook(lambda *_: None)  # who watches keys and values has some
    expected, values = layer(query, plan, context=context, **places)
    assert values is not None
    assert_close(found, expected)
    assert_close(
        torch.autograd.grad(found, leaves, grad), torch.autograd.grad(expected, leaves, grad)
    )


@pytest.mark.parametrize("gate", [True, False])
def test_packed_attention_is_padded_attention(gate: bool) -> None:
    layer = Attention(8, AttentionOptions(num_heads=2, num_value_heads=1, output_gate=gate))
    x, plan, packing = torch.randn(3, 5, 8), make_plan(Full(), VALID), make_packing(VALID)
    expected, _ = layer(x, plan)
    found, _ = layer(packing.pack(x), plan, packing=packing)
    assert_close(found, expected[VALID])
    weights = layer.weights(packing.pack(x), plan, packing=packing)
    assert_close(weights, layer.weights(x, plan))


def test_packed_tokens_with_a_value_residual_are_refused() -> None:
    layer, packing = Attention(8, HEADS, value_residual="fixed"), make_packing(VALID)
    with pytest.raises(ValueError, match="packed tokens have no value residual"):
        layer(torch.randn(10, 8), make_plan(Full(), VALID), packing=packing)


def test_pair_attention_averages_with_the_softmax_of_the_bias() -> None:
    layer, packing = PairAttention(8, num_heads=2), make_packing(VALID)
    bias, x = torch.randn(3, 2, 5, 5), torch.randn(3, 5, 8)
    hidden = bias.masked_fill(~VALID[:, None, None], float("-inf"))
    update, _ = layer(packing.pack(x), make_plan(Full(), VALID), hidden, packing)
    for event, length in enumerate(VALID.sum(1).tolist()):
        values = layer.value(x[event, :length]).unflatten(-1, (2, 4)).transpose(0, 1)
        out = bias[event, :, :length, :length].softmax(-1) @ values
        expected = layer.out(out.transpose(0, 1).flatten(1))
        assert_close(packing.unpack(update)[event, :length], expected)
    with pytest.raises(ValueError, match="give every block one"):
        layer(packing.pack(x), make_plan(Full(), VALID), None, packing)
