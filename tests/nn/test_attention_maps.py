"""Recorded weights are those with which the layers attend."""

# B events, H heads, M queries, N keys, E head features

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.models.mask_decoder import MaskDecoder
from hepattn.models.mask_former import MaskFormer
from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.attention_maps import record_attention
from hepattn.nn.encoder import Encoder
from hepattn.nn.normalise import Feature
from hepattn.nn.offset_bias import ALiBi
from hepattn.nn.positional import Coordinate, SinusoidalEncoding
from hepattn.nn.queries import DynamicQueries
from hepattn.nn.rotary import Rotary

FEATURES = (Feature("r", scale=0.01), Feature("phi"))
COORDINATES = (Coordinate("phi", kind="harmonic"),)
HEADS = AttentionOptions(num_heads=4, num_value_heads=2)
NEAR = {"window": 4, "wrap": True}
TURNED = {"rotary": partial(Rotary, coordinates=COORDINATES)}
OPTIONS: dict[str, tuple[dict, dict]] = {  # of the encoder and of the decoder
    "plain": ({}, {"encode_position": False, "cross_attention": "full"}),
    "local": (NEAR, {**NEAR, "cross_attention": "full"}),
    "rotary": (NEAR | TURNED, TURNED),
    "biases": ({"offset_bias": ALiBi}, {"offset_bias": ALiBi, "wrap": True}),
    "registers": ({"num_registers": 2}, {"update_tokens": True}),
    "kmeans": ({"norm_placement": "hybrid"}, {"cross_attention": "kmeans"}),
}
ALL = pytest.mark.parametrize("name", OPTIONS)
LAYERS = [f"encoder.layers.{i}.attention" for i in range(2)]
LAYERS += [f"decoder.layers.{i}.{part}_attention" for i in range(2) for part in ("cross", "self")]


def make(name: str) -> MaskFormer:
    encoder, decoder = OPTIONS[name]
    net = MaskFormer(
        FEATURES,
        Encoder(16, 2, HEADS, **encoder),
        partial(DynamicQueries, num_queries=5),
        partial(MaskDecoder, depth=2, attention=HEADS, **decoder),
        position=partial(SinusoidalEncoding, coordinates=COORDINATES, alpha=10.0),
        sort_by="phi",
    ).eval()
    for module in net.modules():
        if isinstance(module, Attention):  # or all scores are alike, and nothing is tested
            nn.init.normal_(module.query.weight)
    nn.init.normal_(net.decoder.head.mask.contract.weight, std=2.0)  # masks that claim some hits
    return net


def random_hits() -> tuple[Tensor, Tensor]:
    valid = torch.arange(11) < torch.tensor([[11], [6]])
    phi = (2 * torch.rand(valid.shape) - 1) * math.pi
    return torch.stack([30 + 150 * torch.rand(valid.shape), phi], -1), valid


@contextmanager
def watch(net: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor, Tensor]]]:
    """What each layer gets, its values (B, H, N, E) and what it projects (B, H, M, E)."""
    seen: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    handles = []
    for name, layer in net.named_modules():
        if not isinstance(layer, Attention):
            continue
        outputs = []

        def before_projection(_: nn.Module, args: tuple, outputs: list = outputs) -> None:
            outputs.append(args[0].unflatten(-1, (4, 4)).transpose(1, 2))

        def record(
            layer: Attention,
            args: tuple,
            kwargs: dict,
            output: tuple,
            name: str = name,
            outputs: list = outputs,
        ) -> None:
            context = kwargs.get("context")
            context = args[0] if context is None else context
            weight, bias = layer.key_value.weight[8:], layer.key_value.bias[8:]
            values = (context @ weight.T + bias).unflatten(-1, (2, 4)).transpose(1, 2)
            if layer.norms is not None:
                values = layer.norms[2](values)
            seen[name] = (args[0], values.repeat_interleave(2, 1), outputs.pop())

        handles += [
            layer.out.register_forward_pre_hook(before_projection),
            layer.register_forward_hook(record, with_kwargs=True),
        ]
    yield seen
    for handle in handles:
        handle.remove()


@ALL
def test_recorded_weights_times_the_values_are_what_each_layer_projects(name: str) -> None:
    net = make(name)
    x, valid = random_hits()
    with watch(net) as seen, record_attention(net) as recorded:
        found = net(x, valid)
    assert set(recorded) == set(seen)
    for layer, weights in recorded.items():
        _, values, output = seen[layer]
        real = valid if layer.endswith("token_attention") else found.query_valid
        if layer.startswith("encoder"):  # registers lead
            real = torch.cat([valid.new_ones(2, weights.shape[2] - 11), valid], 1)
        real = real.unsqueeze(1).expand(-1, 4, -1)  # (B, H, M)
        assert not weights.requires_grad
        assert_close((weights @ values)[real], output[real], atol=1e-5, rtol=1e-4)
        assert_close(weights.sum(-1)[real], torch.ones(int(real.sum())))


@torch.no_grad()
def test_weights_of_self_attention_equal_a_naive_softmax() -> None:
    net = make("local")
    x, valid = random_hits()
    with watch(net) as seen, record_attention(net) as recorded:
        net(x, valid)
    layer, (tokens, _, _) = net.encoder.layers[1].attention, seen["encoder.layers.1.attention"]
    weights = recorded["encoder.layers.1.attention"]
    for event, n in enumerate((11, 6)):
        for head in range(4):
            q = layer.query(tokens[event])[:, 4 * head : 4 * head + 4]
            shared = head // 2  # two heads share their keys
            k = layer.key_value(tokens[event])[:, 4 * shared : 4 * shared + 4]
            for i in range(n):
                near = [j for j in range(n) if min(abs(i - j), n - abs(i - j)) <= 2]
                score = [math.exp(float(q[i] @ k[j]) / math.sqrt(4)) for j in near]
                expected = torch.zeros(11)
                expected[near] = torch.tensor(score) / sum(score)
                assert_close(weights[event, head, i], expected, atol=1e-5, rtol=1e-4)


def test_every_attention_layer_is_recorded_by_its_name() -> None:
    net = make("plain")
    with record_attention(net) as recorded:
        net(*random_hits())
    assert list(recorded) == LAYERS
    net = make("kmeans")
    with record_attention(net) as recorded:
        net(*random_hits())
    assert set(recorded) == {name for name in LAYERS if "cross" not in name}  # means have none


def test_only_the_layers_that_are_asked_for_are_watched() -> None:
    net = make("plain")
    with record_attention(net, "cross_attention") as recorded:
        net(*random_hits())
    assert set(recorded) == {name for name in LAYERS if name.endswith("cross_attention")}


@ALL
def test_looking_changes_no_answer(name: str) -> None:
    net = make(name)
    event = random_hits()
    expected = net(*event).layers[-1]
    with record_attention(net):
        found = net(*event).layers[-1]
    assert torch.equal(found.mask_logit, expected.mask_logit)
    assert torch.equal(found.object_logit, expected.object_logit)


def test_each_forward_replaces_the_weights_of_the_one_before() -> None:
    net = make("plain")
    first, second = random_hits(), random_hits()
    with record_attention(net) as recorded:
        net(*first)
        old = dict(recorded)
        net(*second)
    with record_attention(net) as expected:
        net(*second)
    assert all(torch.equal(recorded[name], expected[name]) for name in LAYERS)
    assert not torch.equal(recorded[LAYERS[0]], old[LAYERS[0]])


def test_nothing_is_recorded_afterwards_even_after_an_error() -> None:
    net = make("plain")
    event = random_hits()
    with record_attention(net) as recorded:
        net(*event)
    recorded.clear()
    with pytest.raises(RuntimeError, match="stop"), record_attention(net) as other:
        raise RuntimeError("stop")
    net(*event)
    assert not recorded
    assert not other
    assert not any(module._forward_pre_hooks for module in net.modules())
