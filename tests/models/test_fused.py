"""Fused networks answer by the columns of an event and by its objects."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.models.deep_sets import DeepSets
from hepattn.models.fused import FusedNetwork
from hepattn.models.mlp import MLP
from hepattn.models.resnet import ResNet
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.feature_embedding import EmbeddingOptions
from hepattn.nn.fusion import OutputFusionOptions
from models.event_network_cases import (
    SCHEMA,
    check_export,
    check_gradients,
    check_order,
    check_padding,
    draw_events,
    settle,
)

FLAT = partial(MLP, hidden=(8,))
JAGGED = partial(DeepSets, encoder=(8,), decoder=())
MODES = ("add", "cat", "learn", "gate", "attn")
ALL = pytest.mark.parametrize("mode", MODES)


def make(mode: str, schema: EventSchema = SCHEMA) -> FusedNetwork:
    flat = None if mode == "attn" else FLAT
    return FusedNetwork(schema, 2, flat, JAGGED, OutputFusionOptions(mode=mode))


@ALL
def test_events_and_objects_both_matter(mode: str) -> None:
    net = settle(make(mode))
    events, vectors, valid, *objects = draw_events()
    leaves = [events, *objects]
    for leaf in leaves:
        leaf.requires_grad_()
    gradients = torch.autograd.grad(net(events, vectors, valid, *objects)[:, 0].sum(), leaves)
    real = (valid[:, :4], valid[:, 4:])
    assert (gradients[0] != 0).any(1).all()
    for gradient, mask in zip(gradients[1:], real, strict=True):
        assert (gradient[mask] != 0).any(-1).all()


def by_add(net: FusedNetwork, flat: Tensor, jagged: Tensor) -> Tensor:
    return flat + jagged


def by_cat(net: FusedNetwork, flat: Tensor, jagged: Tensor) -> Tensor:
    linear = net.fusion.fuse
    weight = torch.cat([linear.flat.weight, linear.jagged.weight], 1)  # (O, 2 O)
    return torch.cat([flat, jagged], 1) @ weight.T + linear.flat.bias


def by_learn(net: FusedNetwork, flat: Tensor, jagged: Tensor) -> Tensor:
    share = torch.tensor(0.5).sigmoid()
    return share * flat + (1 - share) * jagged


def by_gate(net: FusedNetwork, flat: Tensor, jagged: Tensor) -> Tensor:
    linear = net.fusion.fuse.gate
    weight = torch.cat([linear.flat.weight, linear.jagged.weight], 1)
    gate = (torch.cat([flat, jagged], 1) @ weight.T + linear.flat.bias).sigmoid()
    return gate * flat + (1 - gate) * jagged


@pytest.mark.parametrize(
    ("mode", "formula"), [("add", by_add), ("cat", by_cat), ("learn", by_learn), ("gate", by_gate)]
)
def test_outputs_are_fused_by_the_formula(mode: str, formula: partial) -> None:
    net = settle(make(mode))
    inputs = draw_events()
    assert_close(net(*inputs), formula(net, net.flat(*inputs), net.jagged(*inputs)))


def test_attention_looks_from_the_objects_at_each_column() -> None:
    net = settle(make("attn"))
    inputs = draw_events()
    query = net.fusion.query(net.jagged(*inputs))  # (B, D)
    tokens = net.flat(inputs[0])  # (B, F, D)
    assert tokens.shape == (4, 3, 64)
    attention = net.fusion.fuse.attention
    seen = torch.zeros_like(query)
    for event in range(4):
        q = attention.query(query[event]).view(4, 16)
        k, v = attention.key_value(tokens[event]).chunk(2, -1)
        for head in range(4):
            part = slice(16 * head, 16 * head + 16)
            weight = (k[:, part] @ q[head] / 4).softmax(0)
            seen[event] += attention.out.weight[:, part] @ (weight @ v[:, part])
    assert_close(net(*inputs), net.fusion.out(query + seen))


@ALL
def test_padding_changes_no_output(mode: str) -> None:
    check_padding(partial(make, mode))


@ALL
def test_the_order_of_the_objects_changes_no_output(mode: str) -> None:
    check_order(settle(make(mode)))


@ALL
def test_events_without_objects_have_finite_outputs_and_gradients(mode: str) -> None:
    check_gradients(make(mode))


def test_fused_networks_can_be_fused() -> None:
    inner = partial(FusedNetwork, flat=FLAT, jagged=JAGGED)
    net = FusedNetwork(SCHEMA, 2, FLAT, inner).eval()
    inputs = draw_events()
    expected = net.flat(*inputs) + net.jagged.flat(*inputs) + net.jagged.jagged(*inputs)
    assert_close(net(*inputs), expected)


def test_what_has_no_effect_is_refused() -> None:
    with pytest.raises(ValueError, match="name one as flat"):
        FusedNetwork(SCHEMA, 2, None, JAGGED)
    attention = OutputFusionOptions(mode="attn")
    with pytest.raises(ValueError, match="set flat to null"):
        FusedNetwork(SCHEMA, 2, FLAT, JAGGED, attention)
    with pytest.raises(ValueError, match="embedding has no effect"):
        FusedNetwork(SCHEMA, 2, FLAT, JAGGED, embedding=EmbeddingOptions())
    with pytest.raises(ValueError, match="no vector for each column"):
        FusedNetwork(SCHEMA, 2, None, JAGGED, attention, EmbeddingOptions())
    without = EventSchema(objects=SCHEMA.objects, max_objects=SCHEMA.max_objects)
    with pytest.raises(ValueError, match="FusedNetwork classifies columns of the event"):
        make("add", without)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_an_exported_network_gives_the_same_answers(tmp_path: Path) -> None:
    jagged = partial(
        FusedNetwork, flat=None, jagged=JAGGED, fusion=OutputFusionOptions(mode="attn")
    )
    flat = partial(ResNet, hidden=(8,))
    check_export(settle(FusedNetwork(SCHEMA, 2, flat, jagged)), tmp_path)
