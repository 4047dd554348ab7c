"""A Set Transformer gives the answer of its layers written down plainly, and its options act."""

# B events, N slots, n real objects of one event, D features, S seeds

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.models.set_transformer import SetPredictor, SetTransformer
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.object_embedding import ObjectEmbeddingOptions
from hepattn.nn.set_block import SetBlockOptions
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
    set_norm,
    settle,
    weights_of,
)

HEADS = AttentionOptions(num_heads=2, head_dim=5, bias=False)
BLOCK = SetBlockOptions(HEADS, expansion=2)
CASES: dict[str, dict] = {
    "as published": {},
    "layer norm": {"block": replace(BLOCK, use_setnorm=False)},
    "a seed for each object": {"seed_strategy": "particles"},
    "a seed for each kind": {
        "seed_strategy": "objects",
        "set_predictor": SetPredictor(depth=2, activation="ReLU", mean_pooling=True),
    },
    "no residual": {"first_attn_no_residual": True, "set_predictor": SetPredictor(depth=0)},
}
ALL = pytest.mark.parametrize("name", CASES)


def make(
    name: str = "as published", schema: EventSchema = SCHEMA, encoder_depth: int = 2
) -> SetTransformer:
    options = {"block": BLOCK, "encoder_depth": encoder_depth, "decoder_depth": 1} | CASES[name]
    return SetTransformer(schema, 3, dim=8, **options)


def plain_block(
    x: Tensor, weights: Weights, options: dict, context: Tensor | None = None, *, residual: bool
) -> Tensor:
    norm = set_norm if options.get("block", BLOCK).use_setnorm else layer_norm
    query = norm(x, part(weights, "attention_norm"))
    context = query if context is None else context
    update = attend(query, context, part(weights, "attention"), 2)
    x = x + update if residual else update
    return x + gated(norm(x, part(weights, "dense_norm")), part(weights, "dense"))


def plain_answer(net: SetTransformer, inputs: Events, options: dict) -> Tensor:
    weights, answers = weights_of(net), []
    norm = set_norm if options.get("block", BLOCK).use_setnorm else layer_norm
    predictor = options.get("set_predictor", SetPredictor())
    for x in real_tokens(net, inputs):  # (n, D)
        for i in range(2):
            residual = i > 0 or not options.get("first_attn_no_residual")
            x = plain_block(x, part(weights, f"encoder.{i}"), options, residual=residual)
        x = norm(x, part(weights, "norm"))
        pooling = part(weights, "pooling")
        seeds = plain_block(pooling["seeds"], part(pooling, "block"), options, x, residual=True)
        if len(seeds) > 1:
            seeds = plain_block(seeds, part(weights, "decoder.0"), options, residual=True)
        y = seeds.mean(0) if predictor.mean_pooling else seeds.flatten()
        for i in range(predictor.depth):
            y = linear(y, part(weights, f"head.{3 * i}"))
            y = y.clamp(min=0) if predictor.activation == "ReLU" else gelu(y)
        answers.append(linear(y, part(weights, f"head.{3 * predictor.depth}")))
    return torch.stack(answers)


@ALL
def test_the_answer_is_that_of_plain_layers(name: str) -> None:
    net, inputs = make(name), random_events(*COUNTS, (0, 0))
    settle(net)
    found, expected = net(*inputs), plain_answer(net, inputs, CASES[name])
    assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@ALL
def test_neither_padding_nor_order_matters(name: str) -> None:
    # There would be more seeds with more slots.
    sizes = (4, 3) if name == "a seed for each object" else (6, 5)
    check_padding_and_order(lambda schema: make(name, schema), sizes)


@ALL
def test_events_without_objects_are_finite(name: str) -> None:
    check_empty_events(make(name))


@pytest.mark.parametrize(
    ("strategy", "num_seeds", "num_decoders"),
    [("pooling", 1, 0), ("particles", 4 + 3, 2), ("objects", 2, 2)],
)
def test_the_strategy_decides_the_number_of_seeds(
    strategy: str, num_seeds: int, num_decoders: int
) -> None:
    net = SetTransformer(SCHEMA, 1, seed_strategy=strategy)
    assert net.pooling.seeds.shape == (num_seeds, 64)
    assert len(net.decoder) == num_decoders
    assert net.head[0].in_features == num_seeds * 64


def test_the_default_size_is_the_published_one() -> None:
    net = SetTransformer(SCHEMA, 1)
    assert len(net.encoder) == 2
    assert net.encoder[0].attention.query.weight.shape == (8 * 16, 64)
    assert net.encoder[0].dense.contract.weight.shape == (64, 4 * 64)


def test_dropout_acts_in_training_alone() -> None:
    block = SetBlockOptions(replace(HEADS, dropout=0.3), dropout=0.3)
    net, inputs = SetTransformer(SCHEMA, 1, block=block), random_events(*COUNTS)
    assert not torch.equal(net.train()(*inputs), net(*inputs))
    assert torch.equal(net.eval()(*inputs), net(*inputs))


def test_the_kind_of_an_object_can_be_told_apart() -> None:
    options = ObjectEmbeddingOptions(add_particle_types=True)
    net = SetTransformer(SCHEMA, 1, dim=8, block=BLOCK, embedding=options)
    net(*random_events(*COUNTS)).sum().backward()
    assert net.embedding.types.grad.abs().amin() > 0


def test_objects_and_blocks_are_needed() -> None:
    with pytest.raises(ValueError, match="SetTransformer"):
        SetTransformer(EventSchema(events=SCHEMA.events), 1)
    with pytest.raises(ValueError, match="encoder_depth=0"):
        SetTransformer(SCHEMA, 1, encoder_depth=0)


def test_attention_can_be_looked_at_and_takes_a_backend() -> None:
    check_attention_is_ours(make("a seed for each kind"), 4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_the_exported_network_gives_the_same_answer(tmp_path: Path) -> None:
    check_export(make("a seed for each kind", encoder_depth=1), tmp_path)
