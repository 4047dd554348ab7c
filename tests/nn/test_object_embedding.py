"""Objects of all kinds become one set of tokens, whatever stands in the padding."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.nn.event_schema import EventSchema
from hepattn.nn.feature_embedding import EmbeddingOptions, PostEmbeddingOptions, fit_inputs
from hepattn.nn.fusion import EmbeddingFusionOptions
from hepattn.nn.normalise import Feature
from hepattn.nn.object_embedding import ObjectEmbedding, ObjectEmbeddingOptions
from hepattn.training.optimizer import parameter_groups
from nn.column_cases import summarise

SCHEMA = EventSchema(
    events=(
        Feature("met", fitted="quantile"),
        Feature("ht"),
        Feature("trigger", categories=(0, 1)),
    ),
    objects={
        "jets": (Feature("pt", fitted="power"), Feature("eta")),
        "muons": (Feature("pt"), Feature("charge", categories=(-1, 1)), Feature("phi")),
    },
    max_objects={"jets": 4, "muons": 3},
)
DIM = 8
BINS = EmbeddingOptions(numeric="piecewise_linear")
FLAT = ObjectEmbeddingOptions(flat_embedding=EmbeddingOptions())
MODES = ("sum", "mean", "add", "cat", "cat_proj", "learn", "gate", "attn", "res_attn")


def fused(mode: str, **flat: object) -> ObjectEmbeddingOptions:
    return replace(
        FLAT,
        flat_embedding=EmbeddingOptions(**flat),
        flat_fusion=EmbeddingFusionOptions(mode),
    )


VARIANTS = {
    "plain": ObjectEmbeddingOptions(),
    "bins": ObjectEmbeddingOptions(embedding=replace(BINS, reduction="reshape")),
    "attention": ObjectEmbeddingOptions(embedding=replace(BINS, reduction="attn")),
    "sum": ObjectEmbeddingOptions(embedding=EmbeddingOptions(reduction="conv2d")),
    "convolution": ObjectEmbeddingOptions(embedding=EmbeddingOptions(conv1d_embedding=True)),
    "layernorm": ObjectEmbeddingOptions(
        embedding=EmbeddingOptions(post=PostEmbeddingOptions("ReLU", layernorm=True))
    ),
    "batchnorm": ObjectEmbeddingOptions(
        embedding=EmbeddingOptions(post=PostEmbeddingOptions(batchnorm=True))
    ),
    "types": ObjectEmbeddingOptions(add_particle_types=True),
    **{mode: fused(mode) for mode in MODES},
    "reshaped": fused("gate", reduction="reshape"),
}


def draw(B: int = 5) -> tuple[Tensor, ...]:
    """Columns of events, validity, jets and muons; one event is empty, one is full."""
    charge = 2 * torch.randint(2, (B, 3, 1)) - 1.0
    events = torch.cat([torch.rand(B, 2), torch.randint(2, (B, 1))], 1)
    muons = torch.cat([torch.rand(B, 3, 1), charge, torch.rand(B, 3, 1)], -1)
    num = torch.randint(1, 4, (B, 2))
    num[0], num[1] = torch.tensor([4, 3]), 0
    valid = torch.cat([torch.arange(4) < num[:, :1], torch.arange(3) < num[:, 1:]], 1)
    return events, valid, torch.rand(B, 4, 2), muons


def make(options: ObjectEmbeddingOptions, schema: EventSchema = SCHEMA) -> ObjectEmbedding:
    torch.manual_seed(1)
    embedding = ObjectEmbedding(schema, DIM, options).eval()
    fit_inputs(embedding, statistics())
    return embedding


def statistics() -> dict:
    events, _, jets, muons = draw(200)
    columns = {"events": events, "jets": jets.flatten(0, 1), "muons": muons.flatten(0, 1)}
    return {name: summarise(x) for name, x in columns.items()}


def fill_padding(valid: Tensor, jets: Tensor, muons: Tensor, value: float) -> tuple[Tensor, ...]:
    hidden = (~valid).unsqueeze(-1)
    return jets.masked_fill(hidden[:, :4], value), muons.masked_fill(hidden[:, 4:], value)


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_is_zero_and_reaches_nothing(name: str) -> None:
    events, valid, jets, muons = draw()
    embedding = make(VARIANTS[name])
    for training in (False, True):
        embedding.train(training)
        torch.manual_seed(0)
        expected = embedding(events, valid, jets, muons)
        torch.manual_seed(0)
        found = embedding(events, valid, *fill_padding(valid, jets, muons, math.nan))
        assert (found[~valid] == 0).all()
        assert (found[valid] != 0).any()
        assert_close(found, expected, atol=1e-6, rtol=0)
        found.square().sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in embedding.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_objects_in_another_order_are_tokens_in_another_order(name: str) -> None:
    events, _, jets, muons = draw()
    valid = torch.ones(5, 7, dtype=torch.bool)
    embedding = make(VARIANTS[name])
    found = embedding(events, valid, jets[:, [2, 0, 3, 1]], muons[:, [1, 2, 0]])
    expected = embedding(events, valid, jets, muons)[:, [2, 0, 3, 1, 5, 6, 4]]
    assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_more_padding_changes_nothing(name: str) -> None:
    events, valid, jets, muons = draw()
    wide = replace(SCHEMA, max_objects={"jets": 6, "muons": 4})
    pad = torch.zeros(5, 2, dtype=torch.bool)
    more_valid = torch.cat([valid[:, :4], pad, valid[:, 4:], pad[:, :1]], 1)
    more_jets = torch.nn.functional.pad(jets, (0, 0, 0, 2), value=9.0)
    more_muons = torch.nn.functional.pad(muons, (0, 0, 0, 1), value=9.0)
    expected = make(VARIANTS[name])(events, valid, jets, muons)
    found = make(VARIANTS[name], wide)(events, more_valid, more_jets, more_muons)
    assert_close(found[more_valid], expected[valid], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_autocast_changes_only_the_precision(name: str) -> None:
    events, valid, jets, muons = draw()
    embedding = make(VARIANTS[name])
    with torch.autocast("cpu", torch.bfloat16):
        found = embedding(events, valid, jets, muons)
    expected = embedding(events, valid, jets, muons)
    assert_close(found.float(), expected, atol=0.05, rtol=0.05)
    assert (found[~valid] == 0).all()


def test_kinds_stand_one_behind_the_other_each_embedded_for_itself() -> None:
    events, valid, jets, muons = draw()
    embedding = make(VARIANTS["bins"])
    parts = [embed(x) for embed, x in zip(embedding.kinds, (jets, muons), strict=True)]
    expected = torch.where(valid.unsqueeze(-1), torch.cat(parts, 1), 0)
    assert_close(embedding(events, valid, jets, muons), expected)


def test_the_type_of_an_object_adds_a_vector_of_its_kind() -> None:
    events, valid, jets, muons = draw()
    embedding, plain = make(VARIANTS["types"]), make(VARIANTS["plain"])
    plain.load_state_dict({k: v for k, v in embedding.state_dict().items() if k != "types"})
    added = embedding(events, valid, jets, muons) - plain(events, valid, jets, muons)
    kind = torch.tensor([0] * 4 + [1] * 3).expand_as(valid)
    assert_close(added[valid], embedding.types[kind[valid]])


def test_a_norm_comes_after_the_types_and_before_the_fusion() -> None:
    post = EmbeddingOptions(post=PostEmbeddingOptions(layernorm=True))
    options = replace(fused("add"), embedding=post, add_particle_types=True)
    events, valid, jets, muons = draw()
    embedding = make(options)
    flat = embedding.flat(events)[:, None].expand(-1, 7, -1)
    found = embedding(events, valid, jets, muons) - flat
    assert_close(found[valid].mean(-1), torch.zeros(int(valid.sum())), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_columns_of_the_event_change_the_tokens_of_its_objects_only(mode: str) -> None:
    events, valid, jets, muons = draw()
    embedding = make(VARIANTS[mode])
    other = events.clone()
    other[2] += 0.3
    before, after = (embedding(x, valid, jets, muons) for x in (events, other))
    differs = (before != after).any(-1)
    assert (differs == (valid & (torch.arange(5) == 2)[:, None])).all()


def test_every_mode_of_fusion_gives_other_tokens() -> None:
    events, valid, jets, muons = draw()
    modes = [mode for mode in MODES if mode != "sum"]  # which is add
    tokens = [make(VARIANTS[mode])(events, valid, jets, muons) for mode in modes]
    for number, one in enumerate(tokens):
        assert not any(torch.allclose(one, other, atol=1e-4) for other in tokens[:number])


def test_events_without_columns_are_read_only_where_they_are_fused() -> None:
    schema = replace(SCHEMA, events=())
    _, valid, jets, muons = draw()
    assert make(VARIANTS["plain"], schema)(torch.zeros(5, 0), valid, jets, muons).isfinite().all()
    with pytest.raises(ValueError, match="ObjectEmbedding with flat_embedding"):
        ObjectEmbedding(schema, DIM, FLAT)


@pytest.mark.parametrize("name", VARIANTS)
def test_edges_offsets_and_types_do_not_decay(name: str) -> None:
    embedding = make(VARIANTS[name])
    decayed = {id(p) for p in parameter_groups(embedding)[0]["params"]}
    for key, parameter in embedding.named_parameters():
        if key.endswith(("bias", "edges", "types")):
            assert id(parameter) not in decayed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding": EmbeddingOptions(reduction="none")}, "several vectors for an object"),
        ({"flat_fusion": EmbeddingFusionOptions("gate")}, "no effect without flat_embedding"),
        ({"flat_embedding": EmbeddingOptions(disable_embeddings=True)}, "leaves nothing"),
        ({"flat_embedding": EmbeddingOptions(reduction="none")}, "several vectors for an event"),
        (
            {
                "flat_embedding": EmbeddingOptions(reduction="attn"),
                "flat_fusion": EmbeddingFusionOptions("attn"),
            },
            "reduction='attn' has no effect",
        ),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectEmbeddingOptions(**options)
