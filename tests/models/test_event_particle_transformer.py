"""The Particle Transformer of events gives the answer of its layers written down plainly."""

# B events, N slots, n real objects of one event, D features, H heads

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.models.event_particle_transformer import (
    BLOCK,
    EventParticleTransformer,
    ParticleAttention,
)
from hepattn.nn import particle_encoder
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.event_schema import EventSchema
from models.event_transformer_cases import (
    COUNTS,
    SCHEMA,
    Events,
    Weights,
    attend,
    check_attention_is_ours,
    check_empty_events,
    check_export,
    check_padding_and_order,
    gated,
    gelu,
    layer_norm,
    linear,
    part,
    random_events,
    real_tokens,
    settle,
    weights_of,
)

HEADS = AttentionOptions(num_heads=2, head_dim=5, bias=False)
SMALL = replace(BLOCK, attention=HEADS, expansion=2)
PAIRS = ParticleAttention(hidden=(6, 5))
CASES: dict[str, dict] = {
    "as published": {},
    "log1p": {"particle_attention": replace(PAIRS, transform="log1p")},
    "some quantities": {"particle_attention": replace(PAIRS, quantities=("m2", "kt"))},
    "one kind": {"particle_attention": replace(PAIRS, objects=("jets",))},
    "no pairs": {"particle_attention": None},
    "no residual": {"first_attn_no_residual": True},
}
ALL = pytest.mark.parametrize("name", CASES)


def make(
    name: str = "as published", schema: EventSchema = SCHEMA, **options: object
) -> EventParticleTransformer:
    options = {"particle_attention": PAIRS, "depth": 2} | CASES[name] | options
    return EventParticleTransformer(schema, 3, dim=8, block=SMALL, **options)


def pair_quantities(a: list[float], b: list[float]) -> dict[str, float]:
    """What the documentation gives for two objects (E, px, py, pz)."""
    (pt_a, y_a, phi_a), (pt_b, y_b, phi_b) = (
        (math.hypot(px, py), math.log((e + pz) / (e - pz)) / 2, math.atan2(py, px))
        for e, px, py, pz in (a, b)
    )
    phi = (phi_a - phi_b + math.pi) % (2 * math.pi) - math.pi
    delta_r = math.hypot(y_a - y_b, phi)
    energy, px, py, pz = (x + y for x, y in zip(a, b, strict=True))
    return {
        "delta_r": delta_r,
        "kt": min(pt_a, pt_b) * delta_r,
        "z": min(pt_a, pt_b) / (pt_a + pt_b),
        "m2": energy**2 - px**2 - py**2 - pz**2,
    }


def plain_bias(vectors: Tensor, is_jet: Tensor, weights: Weights, options: dict) -> Tensor | None:
    """The bias of an event's objects (H, n, n), pair by pair."""
    chosen = options.get("particle_attention", PAIRS)
    if chosen is None:
        return None
    n = len(vectors)
    bias = torch.zeros(2, n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            if i == j or (chosen.objects and not (is_jet[i] and is_jet[j])):
                continue
            found = pair_quantities(vectors[i].tolist(), vectors[j].tolist())
            values = [max(found[name], 1e-8) for name in chosen.quantities]
            logarithm = math.log if chosen.transform == "log" else math.log1p
            x = torch.tensor([logarithm(value) for value in values], dtype=torch.float64)
            x = batch_norm(x, part(weights, "0"))
            for layer in (1, 4, 7):
                x = linear(x, part(weights, f"{layer}"))
                x = gelu(batch_norm(x, part(weights, f"{layer + 1}")))
            bias[:, i, j] = x
    return bias


def batch_norm(x: Tensor, weights: Weights) -> Tensor:
    x = (x - weights["running_mean"]) / (weights["running_var"] + 1e-5).sqrt()
    return x * weights["weight"] + weights["bias"]


def plain_answer(net: EventParticleTransformer, inputs: Events, options: dict) -> Tensor:
    weights, answers = weights_of(net), []
    trunk = part(weights, "encoder")
    _, vectors, valid, jets, _ = inputs
    is_jet = torch.arange(valid.shape[1]) < jets.shape[1]
    for x, vector, real in zip(real_tokens(net, inputs), vectors.double(), valid, strict=True):
        network = part(trunk, "pair_bias.network")
        bias = plain_bias(vector[real], is_jet[real], network, options)
        for i in range(2):
            block = part(trunk, f"blocks.{i}")
            y = layer_norm(x, part(block, "attention_norm"))
            update = attend(y, y, part(block, "attention"), 2, bias)
            x = update if i == 0 and options.get("first_attn_no_residual") else x + update
            x = x + gated(layer_norm(x, part(block, "dense_norm")), block)
        x = layer_norm(x, part(trunk, "particle_norm"))
        token = trunk["class_token"][None]
        for i in range(2):
            block = part(trunk, f"class_blocks.{i}")
            query = layer_norm(token, part(block, "attention_norm"))
            token = token + attend(query, torch.cat([query, x]), part(block, "attention"), 2)
            token = token + gated(layer_norm(token, part(block, "dense_norm")), block)
        y = gelu(linear(layer_norm(token[0], part(trunk, "norm")), part(weights, "head.0")))
        answers.append(linear(y, part(weights, "head.3")))
    return torch.stack(answers)


@ALL
def test_the_answer_is_that_of_plain_layers(name: str) -> None:
    net, inputs = make(name).eval(), random_events(*COUNTS, (0, 0))
    settle(net)
    found, expected = net(*inputs), plain_answer(net, inputs, CASES[name])
    assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@ALL
def test_neither_padding_nor_order_matters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(particle_encoder, "GROUP_PARTICLES", 4)
    check_padding_and_order(lambda schema: make(name, schema))


@ALL
def test_events_without_objects_are_finite(name: str) -> None:
    check_empty_events(make(name))


@pytest.mark.parametrize("name", ["as published", "one kind"])
def test_training_with_padding_keeps_weights_finite(name: str) -> None:
    net, inputs = make(name).train(), random_events(*COUNTS, (0, 0))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        net(*inputs).square().sum().backward()
        optimizer.step()
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert net(*inputs).isfinite().all()


def test_columns_scaled_in_another_way_give_the_same_bias() -> None:
    net = make().eval()
    settle(net)
    _, vectors, valid, *_ = random_events(*COUNTS)
    plain = net.encoder.pair_bias(vectors, valid)
    wide = [tuple(replace(f, scale=10.0) for f in SCHEMA.objects[kind]) for kind in SCHEMA.kinds]
    other = make(schema=replace(SCHEMA, objects=dict(zip(SCHEMA.kinds, wide, strict=True)))).eval()
    other.encoder.load_state_dict(net.encoder.state_dict())
    assert torch.equal(other.encoder.pair_bias(vectors, valid), plain)


def test_the_default_size_is_the_published_one() -> None:
    net = EventParticleTransformer(SCHEMA, 1)
    assert len(net.encoder.blocks) == 3
    assert len(net.encoder.class_blocks) == 2
    assert net.encoder.blocks[0].attention.query.weight.shape == (8 * 16, 64)
    options = net.encoder.pair_bias.options
    assert options.features == ("delta_r", "kt", "z", "m2")
    assert options.hidden == (48, 48)
    assert net.head[0].weight.shape == (4 * 64, 64)


def test_kinds_without_four_vectors_are_refused() -> None:
    schema = replace(SCHEMA, with_vectors=("jets",))
    with pytest.raises(ValueError, match=r"needs the four-vectors of \['muons'\]"):
        EventParticleTransformer(schema, 1)
    EventParticleTransformer(schema, 1, particle_attention=ParticleAttention(objects=("jets",)))
    EventParticleTransformer(schema, 1, particle_attention=None)


@pytest.mark.parametrize("objects", [("photons",), ()])
def test_pairs_of_no_known_kind_are_refused(objects: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must be some of"):
        EventParticleTransformer(SCHEMA, 1, particle_attention=ParticleAttention(objects=objects))


def test_objects_are_needed() -> None:
    with pytest.raises(ValueError, match="EventParticleTransformer"):
        EventParticleTransformer(EventSchema(events=SCHEMA.events), 1)


def test_attention_can_be_looked_at_and_takes_a_backend() -> None:
    check_attention_is_ours(make(), 4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_the_exported_network_gives_the_same_answer(tmp_path: Path) -> None:
    check_export(make("one kind", depth=1, num_class_blocks=1), tmp_path)
