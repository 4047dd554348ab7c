"""FT-Transformer gives the answer of its layers written down plainly, and its options act."""

# B events, F columns, D features

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.models.feature_transformer import BLOCK, FeatureTransformer
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.feature_embedding import EmbeddingOptions
from models.event_transformer_cases import (
    COUNTS,
    SCHEMA,
    attend,
    check_attention_is_ours,
    check_export,
    gated,
    layer_norm,
    linear,
    part,
    random_events,
    settle,
    weights_of,
)

HEADS = AttentionOptions(num_heads=2, head_dim=5, bias=False)
CALM = replace(BLOCK, attention=HEADS, activation_dropout=0.0, expansion=2)
CASES = {
    "as published": {},
    "mean": {"use_cls_token": False},
    "no residual": {"remove_first_attn_residual": True},
    "no norm": {"remove_first_attn_layernorm": True},
}


def make(**options: object) -> FeatureTransformer:
    net = FeatureTransformer(SCHEMA, 3, dim=8, block=CALM, **{"depth": 2, **options})
    settle(net)
    return net


def plain_answer(net: FeatureTransformer, events: Tensor, options: dict) -> Tensor:
    weights, answers = weights_of(net), []
    for x in net.embedding(events).double():  # (F, D)
        if options.get("use_cls_token", True):
            x = torch.cat([weights["class_token"][None], x])
        for i in range(2):
            block = part(weights, f"blocks.{i}")
            no_norm = i == 0 and options.get("remove_first_attn_layernorm")
            y = x if no_norm else layer_norm(x, part(block, "attention_norm"))
            update = attend(y, y, part(block, "attention"), 2)
            no_residual = i == 0 and options.get("remove_first_attn_residual")
            x = update if no_residual else x + update
            x = x + gated(layer_norm(x, part(block, "dense_norm")), block)
        x = x[0] if options.get("use_cls_token", True) else x.mean(0)
        hidden = layer_norm(x, part(weights, "head.0")).clamp(min=0)
        answers.append(linear(hidden, part(weights, "head.2")))
    return torch.stack(answers)


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_that_of_plain_layers(name: str) -> None:
    net, inputs = make(**CASES[name]), random_events(*COUNTS)
    found, expected = net(*inputs), plain_answer(net, inputs[0], CASES[name])
    assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_the_default_size_is_the_published_one() -> None:
    net = FeatureTransformer(SCHEMA, 1)
    assert len(net.blocks) == 6
    assert net.blocks[0].attention.query.weight.shape == (8 * 16, 32)
    assert net.blocks[0].expand.weight.shape == (2 * 4 * 32, 32)
    assert net.blocks[0].attention.options.dropout == 0.1
    assert net.blocks[0].hidden_dropout.p == 0.1


def test_dropout_acts_in_training_alone() -> None:
    net, inputs = FeatureTransformer(SCHEMA, 1, depth=1), random_events(*COUNTS)
    assert not torch.equal(net.train()(*inputs), net(*inputs))
    assert torch.equal(net.eval()(*inputs), net(*inputs))


def test_objects_are_not_read() -> None:
    net, (events, vectors, valid, *objects) = make(), random_events(*COUNTS)
    broken = [torch.full_like(x, float("nan")) for x in objects]
    expected = net(events, vectors, valid, *objects)
    assert torch.equal(net(events, vectors, ~valid, *broken), expected)
    assert torch.equal(net(events, vectors, valid), expected)


def test_columns_of_the_event_are_needed() -> None:
    with pytest.raises(ValueError, match="FeatureTransformer"):
        FeatureTransformer(replace(SCHEMA, events=()), 1)


def test_an_embedding_that_merges_the_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="use 'none'"):
        FeatureTransformer(SCHEMA, 1, embedding=EmbeddingOptions(reduction="mean"))


def test_attention_can_be_looked_at_and_takes_a_backend() -> None:
    check_attention_is_ours(make(), 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_the_exported_network_gives_the_same_answer(tmp_path: Path) -> None:
    check_export(make(depth=1), tmp_path)
