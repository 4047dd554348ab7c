"""Layers on graphs give what loops over edges give, and masked nodes take no part."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.nn.graph import Edges, GraphAttention, HexDepthwise, HexNeXtBlock
from nn.image_cases import draw, randomise

NUM_NODES = 9


def random_edges(num_edges: int = 30, seed: int = 0) -> Edges:
    """Several edges of a direction may reach a node, and some nodes none."""
    generator = np.random.default_rng(seed)
    source = generator.integers(NUM_NODES, size=num_edges)
    target = (source + generator.integers(1, NUM_NODES - 1, size=num_edges)) % NUM_NODES
    source.flags.writeable = False  # as arrays that several share may be
    return Edges(source, target, generator.integers(1, 7, size=num_edges), NUM_NODES)


def numbered(edges: Edges) -> list[tuple[int, int, int]]:
    return list(
        zip(edges.source.tolist(), edges.target.tolist(), edges.direction.tolist(), strict=True)
    )


def depthwise(layer: HexDepthwise, edges: Edges, x: Tensor, visible: Tensor) -> dict[int, Tensor]:
    nodes = visible.nonzero().squeeze(1).tolist()
    out = {i: layer.bias + layer.weight[0] * x[i] for i in nodes}
    for source, target, direction in numbered(edges):
        if visible[source] and visible[target]:
            out[target] = out[target] + layer.weight[direction] * x[source]
    return out


def attention(layer: GraphAttention, edges: Edges, x: Tensor, visible: Tensor) -> dict[int, Tensor]:
    conv, out = layer.conv, {}
    nodes = visible.nonzero().squeeze(1).tolist()
    for i in nodes:
        sources = [s for s, t, _ in numbered(edges) if t == i and visible[s]] + [i]
        heads = []
        for h in range(conv.heads):
            part = slice(h * conv.out_channels, (h + 1) * conv.out_channels)
            values = [(conv.lin_l.weight @ x[j] + conv.lin_l.bias)[part] for j in sources]
            own = (conv.lin_r.weight @ x[i] + conv.lin_r.bias)[part]
            scores = [conv.att[0, h] @ F.leaky_relu(value + own, 0.2) for value in values]
            weight = torch.stack(scores).softmax(0)
            heads.append(sum(w * value for w, value in zip(weight, values, strict=True)))
        out[i] = torch.cat(heads) + conv.bias
    return out


LOOPS = {HexDepthwise: depthwise, GraphAttention: attention}


@pytest.mark.parametrize("kind", LOOPS)
def test_it_is_that_of_a_loop_over_edges(kind: Callable[..., nn.Module]) -> None:
    edges = random_edges()
    layer = randomise(kind(8, edges))
    x, visible = draw(3, NUM_NODES, 8, visible=0.6)
    visible[1], x[1] = True, torch.randn_like(x[1])
    found = layer(x, visible)
    assert (found[~visible] == 0).all()
    for event in range(3):
        expected = LOOPS[kind](layer, edges, x[event], visible[event])
        for node, out in expected.items():
            assert_close(found[event, node], out)
    assert_close(found[1], layer(x[1:2])[0])


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("fill", [math.inf, math.nan])
def test_masked_nodes_influence_no_output_and_no_gradient(
    kind: Callable[..., nn.Module], fill: float
) -> None:
    edges = random_edges()
    blocks = nn.ModuleList(HexNeXtBlock(8, kind(8, edges)) for _ in range(2))
    randomise(blocks)
    x, visible = draw(3, NUM_NODES, 8, fill=0.0)
    answers = []
    for value in (0.0, fill):
        nodes = torch.where(visible.unsqueeze(-1), x, value).requires_grad_()
        out = nodes
        for block in blocks:
            out = block(out, visible)
        leaves = [nodes, *blocks.parameters()]
        answers.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    assert all(torch.equal(one, other) for one, other in zip(*answers, strict=True))
    assert all(answer.isfinite().all() for answer in answers[0])
    assert (answers[0][0][~visible] == 0).all()


@pytest.mark.parametrize("kind", LOOPS)
@settings(derandomize=True, deadline=None, max_examples=10)
@given(st.permutations(range(NUM_NODES)), st.integers(0, 5))
def test_the_numbers_of_the_nodes_do_not_matter(
    kind: Callable[..., nn.Module], order: list[int], seed: int
) -> None:
    edges = random_edges(seed=seed)
    place = torch.tensor(order).argsort()  # node order[i] becomes node i
    moved = Edges(place[edges.source], place[edges.target], edges.direction, NUM_NODES)
    block = randomise(HexNeXtBlock(4, kind(4, edges)))
    other = HexNeXtBlock(4, kind(4, moved)).double()
    other.load_state_dict(block.state_dict())
    x, visible = draw(2, NUM_NODES, 4)
    assert_close(other(x[:, order], visible[:, order]), block(x, visible)[:, order])


def test_a_block_is_the_one_of_images_on_a_grid() -> None:
    """The literal formula, with what the mixer says taken from a loop."""
    edges = random_edges()
    block = randomise(HexNeXtBlock(4, HexDepthwise(4, edges)))
    x = torch.randn(1, NUM_NODES, 4, dtype=torch.float64)
    mixed = depthwise(block.mixer, edges, x[0], torch.ones(NUM_NODES, dtype=torch.bool))
    hidden = F.gelu(block.expand(block.norm(torch.stack([mixed[i] for i in range(NUM_NODES)]))))
    norms = hidden.norm(dim=0)
    ratio = norms / (norms.mean() + 1e-6)
    hidden = block.response.weight * (hidden * ratio) + block.response.bias + hidden
    assert_close(block(x)[0], x[0] + block.contract(hidden))


def test_weights_of_directions_start_small() -> None:
    layer = HexDepthwise(4096, random_edges())
    assert layer.weight.shape == (7, 4096)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert (layer.bias == 0).all()


def test_a_graph_without_edges_leaves_each_node_alone() -> None:
    layer = randomise(HexDepthwise(4, Edges([], [], [], 3)))
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    assert_close(layer(x), layer.bias + layer.weight[0] * x)


def test_checkpoints_hold_no_graph() -> None:
    edges = random_edges()
    assert set(HexDepthwise(4, edges).state_dict()) == {"weight", "bias"}
    assert all(name.startswith("conv.") for name in GraphAttention(4, edges).state_dict())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Edges([0], [1, 2], [1], 3), "target of shape (2,)"),
        (lambda: Edges([0], [3], [1], 3), "target is 3 to 3, must be 0 to 2"),
        (lambda: Edges([0], [1], [0], 3), "direction is 0 to 0, must be 1 to 6"),
        (lambda: Edges([1], [1], [1], 3), "from a node to itself"),
        (lambda: GraphAttention(6, random_edges(), 4), "num_heads=4 must divide dim=6"),
        (lambda: HexNeXtBlock(4, nn.Identity(), masking="none"), "masking='none'"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        make()
