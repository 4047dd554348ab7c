"""Columns of events and of objects become vectors as the options say."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.nn.feature_embedding import (
    EmbeddingOptions,
    FeatureEmbedding,
    PostEmbeddingOptions,
    fit_inputs,
    needs_fit,
)
from hepattn.nn.normalise import Feature
from hepattn.nn.piecewise_linear import PiecewiseLinearOptions
from nn.column_cases import summarise

FEATURES = (
    Feature("pt", transform="log", shift=3.0),
    Feature("charge", categories=(-1, 1)),
    Feature("eta"),
    Feature("hidden", embed=False),
    Feature("flavour", categories=(0, 4, 5, 15)),
)
DIM = 6
TOKENS = EmbeddingOptions(reduction="none")
BINS = PiecewiseLinearOptions(num_bins=4)


def draw(*shape: int) -> Tensor:
    choose = torch.randint
    columns = [
        50 * torch.rand(shape) + 20,
        2 * choose(2, shape) - 1,
        torch.randn(shape),
        torch.randn(shape),
        torch.tensor([0, 4, 5, 15])[choose(4, shape)],
    ]
    return torch.stack([column.float() for column in columns], -1)


def make(options: EmbeddingOptions, source: str = "events") -> FeatureEmbedding:
    torch.manual_seed(3)
    embedding = FeatureEmbedding(FEATURES, DIM, options, source).eval()
    x = draw(300)
    x[:, 0] = x[:, 0].log()
    embedding.fit(summarise(x))
    return embedding


def loop_over_columns(embedding: FeatureEmbedding, x: Tensor) -> Tensor:
    """Embed (B, F) column by column with torch's layers: pt, eta, charge, flavour."""
    tokens = embedding.tokens
    scaled = [x[:, 0].log() - 3, x[:, 2]]
    out = []
    for number, column in enumerate(scaled):
        layer = nn.Linear(tokens.weight.shape[1], DIM)
        layer.weight, layer.bias = (
            nn.Parameter(tokens.weight[number].T),
            nn.Parameter(tokens.bias[number]),
        )
        codes = column[:, None]
        if embedding.bins is not None:
            start, inverse = embedding.bins.start[number], embedding.bins.inverse_width[number]
            codes = torch.stack(
                [((column - s) * w).clamp(0, 1) for s, w in zip(start, inverse, strict=True)], 1
            )
        out.append(layer(codes))
    for number, column in ((0, 1), (1, 4)):
        known = FEATURES[column].categories
        places = [known.index(v) if v in known else -1 for v in x[:, column].int().tolist()]
        out.append(F.embedding(torch.tensor(places) % tokens.table.shape[1], tokens.table[number]))
    return torch.stack(out, 1)


@pytest.mark.parametrize("numeric", ["linear", "feature_wise", "piecewise_linear"])
def test_each_column_is_embedded_for_itself(numeric: str) -> None:
    embedding = make(replace(TOKENS, numeric=numeric))
    x = draw(20)
    assert embedding.names == ("pt", "eta", "charge", "flavour")
    assert_close(embedding(x), loop_over_columns(embedding, x))


def test_the_two_linear_embeddings_differ_in_how_they_start() -> None:
    torch.manual_seed(0)
    features = [Feature(f"x{i}") for i in range(50)]
    small = FeatureEmbedding(features, 64, TOKENS).tokens
    wide = FeatureEmbedding(features, 64, replace(TOKENS, numeric="feature_wise")).tokens
    assert small.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert (small.bias == 0).all()
    for part in (wide.weight, wide.bias):
        assert part.std().item() == pytest.approx(3**-0.5, rel=0.05)


def test_a_value_that_is_no_category_has_a_vector_of_its_own() -> None:
    embedding = make(TOKENS)
    x = draw(1).repeat(3, 1)
    x[1:, 4] = torch.tensor([7.0, -3.0])
    known, *others = embedding(x)[:, 3]
    assert_close(others[0], embedding.tokens.table[1, -1])
    assert_close(others[0], others[1])
    assert not torch.allclose(known, others[0])


@pytest.mark.parametrize("column", [0, 1, 2, 4])
@pytest.mark.parametrize("numeric", ["linear", "piecewise_linear"])
def test_what_is_not_a_number_shows(column: int, numeric: str) -> None:
    x = draw(3)
    x[1, column] = math.nan
    out = make(EmbeddingOptions(numeric=numeric))(x)
    assert out[1].isnan().all()
    assert out[[0, 2]].isfinite().all()


@pytest.mark.parametrize("numeric", ["linear", "piecewise_linear"])
@pytest.mark.parametrize("reduction", ["mean", "reshape", "conv2d"])
def test_a_reduction_folded_into_the_weights_gives_the_same(numeric: str, reduction: str) -> None:
    embedding = make(EmbeddingOptions(numeric=numeric, reduction=reduction), "jets")
    x = draw(4, 3)
    tokens = loop_over_columns(embedding, x.flatten(0, 1)).unflatten(0, (4, 3))
    assert_close(embedding(x, torch.ones(4, 3) > 0), embedding.reduction(tokens))


@pytest.mark.parametrize(
    ("reduction", "dim"), [("mean", 6), ("reshape", 24), ("conv1d", 6), ("attn", 6)]
)
def test_events_are_reduced_to_one_vector(reduction: str, dim: int) -> None:
    embedding = make(EmbeddingOptions(reduction=reduction))
    x = draw(7)
    assert embedding.dim_out == dim
    assert_close(embedding(x), embedding.reduction(loop_over_columns(embedding, x)))
    assert embedding(x).shape == (7, dim)


def test_without_embeddings_events_are_their_scaled_columns() -> None:
    embedding = make(EmbeddingOptions(disable_embeddings=True))
    x = draw(7)
    assert embedding.dim_out == 4
    assert_close(embedding(x), torch.stack([x[:, 0].log() - 3, x[:, 1], x[:, 2], x[:, 4]], 1))


def test_a_convolution_embeds_all_columns_of_an_object_at_once() -> None:
    embedding = make(EmbeddingOptions(conv1d_embedding=True), "jets").train()
    norm, convolution = nn.BatchNorm1d(4), nn.Conv1d(4, DIM, kernel_size=1)
    with torch.no_grad():
        convolution.weight.copy_(embedding.convolution.linear.weight[..., None])
        convolution.bias.copy_(embedding.convolution.linear.bias)
    x, valid = draw(3, 4), torch.arange(4) < torch.tensor([[4], [2], [0]])
    scaled = make(EmbeddingOptions(disable_embeddings=True))(x[valid])  # (objects, 4)
    expected = F.relu(convolution(norm(scaled).T[None]))[0].T
    x[~valid] = math.nan
    assert_close(embedding(x, valid)[valid], expected)


def test_what_follows_an_embedding_of_events_treats_each_column() -> None:
    post = PostEmbeddingOptions(activation="ReLU", layernorm=True)
    embedding = make(EmbeddingOptions(post=post))
    x = draw(7)
    expected = F.relu(F.layer_norm(loop_over_columns(embedding, x), (DIM,))).mean(1)
    assert_close(embedding(x), expected)


def test_what_follows_an_embedding_of_objects_treats_real_ones_once_reduced() -> None:
    post = PostEmbeddingOptions(activation="Tanh", batchnorm=True)
    embedding = make(EmbeddingOptions(post=post), "jets").train()
    x, valid = draw(3, 4), torch.arange(4) < torch.tensor([[4], [2], [0]])
    tokens = loop_over_columns(embedding, x[valid]).mean(1)
    x[~valid] = math.nan
    assert_close(embedding(x, valid)[valid], torch.tanh(nn.BatchNorm1d(DIM)(tokens)))


BASE = EmbeddingOptions(numeric="piecewise_linear", piecewise_linear=BINS)


@pytest.mark.parametrize(
    "options",
    [
        EmbeddingOptions(),
        EmbeddingOptions(numeric="feature_wise"),
        *(
            replace(BASE, piecewise_linear=replace(BINS, **changed))
            for changed in (
                {"num_bins": 5},
                {"bins": "uniform"},
                {"bins": "learned"},
                {"activation": "ReLU"},
                {"layernorm": True},
                {"dropout": 0.5},
            )
        ),
        *(
            replace(BASE, post=PostEmbeddingOptions(**changed))
            for changed in ({"activation": "ReLU"}, {"layernorm": True}, {"dropout": 0.5})
        ),
        *(replace(BASE, reduction=name) for name in ("reshape", "conv1d", "attn", "none")),
        EmbeddingOptions(disable_embeddings=True),
    ],
)
def test_every_option_changes_the_answer(options: EmbeddingOptions) -> None:
    x = draw(5)
    base, other = make(BASE).train(), make(options).train()
    torch.manual_seed(0)
    expected = base(x)
    torch.manual_seed(0)
    found = other(x)
    assert found.isfinite().all()
    assert found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3)


def test_every_parameter_of_every_embedding_is_trained() -> None:
    for numeric in ("linear", "piecewise_linear"):
        for reduction in ("mean", "conv2d", "reshape", "attn"):
            embedding = make(EmbeddingOptions(numeric=numeric, reduction=reduction), "jets")
            embedding(draw(50, 2), torch.ones(50, 2) > 0).square().sum().backward()
            for name, parameter in embedding.named_parameters():
                assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize(
    ("features", "has_bins"), [(FEATURES[:1], True), (FEATURES[1:2], False), (FEATURES[2:3], True)]
)
def test_columns_of_one_type_alone_are_embedded(features: tuple, has_bins: bool) -> None:
    embedding = FeatureEmbedding(features, DIM, BASE)
    assert embedding.needs_fit == has_bins
    fit_inputs(embedding, {"events": summarise(torch.rand(20, 1))})
    assert embedding(torch.ones(2, 1)).shape == (2, DIM)


def test_a_network_takes_what_it_needs_of_each_source() -> None:
    events, jets = (
        FeatureEmbedding(FEATURES, DIM, BASE),
        FeatureEmbedding(FEATURES, DIM, BASE, "jets"),
    )
    muons = FeatureEmbedding(FEATURES, DIM, source="muons")
    network = nn.ModuleList([events, jets, muons])
    summaries = {name: summarise(draw(300) + shift) for name, shift in (("events", 0), ("jets", 9))}
    fit_inputs(network, summaries)
    assert not torch.equal(events.bins.start, jets.bins.start)
    assert muons.normalise.is_fitted
    other = FeatureEmbedding(FEATURES, DIM, BASE, "jets")
    with pytest.raises(ValueError, match=r"columns of jets need .* some of \['events'\]"):
        fit_inputs(other, {"events": summaries["events"]})


@pytest.mark.parametrize("numeric", ["linear", "piecewise_linear"])
def test_a_loaded_network_keeps_its_statistics(numeric: str) -> None:
    options = replace(TOKENS, numeric=numeric)
    make_network = lambda: nn.ModuleList(  # noqa: E731
        [FeatureEmbedding([Feature("x", fitted="standard")], DIM, options)]
    )
    fitted, loaded = make_network(), make_network()
    assert needs_fit(loaded)
    fit_inputs(fitted, {"events": summarise(torch.randn(300, 1))})
    loaded.load_state_dict(fitted.state_dict())
    assert not needs_fit(fitted)
    assert not needs_fit(loaded)
    fit_inputs(loaded, {"events": summarise(9 + torch.randn(300, 1))})
    fit_inputs(loaded, {})
    x = torch.randn(5, 1)
    assert_close(loaded[0](x), fitted[0](x), rtol=0, atol=0)


def test_a_network_without_anything_to_fit_needs_nothing() -> None:
    assert not needs_fit(FeatureEmbedding(FEATURES, DIM, TOKENS))
    assert not needs_fit(nn.Linear(2, 2))


def test_bins_are_those_of_the_scaled_and_clipped_columns() -> None:
    feature = Feature("x", fitted="standard", clip=(-1, 1))
    embedding = FeatureEmbedding([feature], DIM, replace(TOKENS, numeric="piecewise_linear"))
    x = 5 + 3 * torch.randn(500, 1)
    embedding.fit(summarise(x))
    start = embedding.bins.start[0][embedding.bins.inverse_width[0] > 0]
    assert start[0] == -1
    assert 0.9 < start[-1] + 1 / embedding.bins.inverse_width[0, len(start) - 1] < 1.0001


def test_bins_that_are_still_to_be_placed_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="bins are those of the training split"):
        FeatureEmbedding(FEATURES, DIM, BASE)(draw(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"piecewise_linear": BINS}, "piecewise_linear has no effect"),
        ({"disable_embeddings": True, "reduction": "attn"}, "disable_embeddings takes the place"),
        ({"conv1d_embedding": True, "numeric": "feature_wise"}, "conv1d_embedding takes the place"),
        ({"conv1d_embedding": True, "disable_embeddings": True}, "takes the place"),
    ],
)
def test_options_without_effect_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingOptions(**options)


@pytest.mark.parametrize(
    ("options", "source", "message"),
    [
        ({"conv1d_embedding": True}, "events", "are for objects"),
        ({"post": PostEmbeddingOptions(batchnorm=True)}, "events", "are for objects"),
        ({"disable_embeddings": True}, "jets", "jets need embeddings"),
    ],
)
def test_options_of_the_other_source_are_refused(options: dict, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureEmbedding(FEATURES, DIM, EmbeddingOptions(**options), source)


def test_two_norms_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        PostEmbeddingOptions(layernorm=True, batchnorm=True)
    with pytest.raises(ValueError, match=r"dropout=-0\.1"):
        PostEmbeddingOptions(dropout=-0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_an_exported_embedding_gives_the_same_vectors(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra deploy")
    pytest.importorskip("onnxscript", reason="needs the extra deploy")
    features = (FEATURES[1], Feature("pt", fitted="power"), Feature("mass", fitted="quantile"))
    embedding = FeatureEmbedding(features, DIM, BASE, "jets").eval()
    embedding.fit(summarise(draw(300)[:, [1, 0, 2]]))
    path, batch = tmp_path / "embedding.onnx", {0: torch.export.Dim("events")}
    x, valid = draw(8, 3)[..., [1, 0, 2]], torch.arange(3) < torch.randint(4, (8, 1))
    x[0, 0, 0], x[0, 1, 2], x[1, 0, 1] = 7, math.inf, math.nan
    torch.onnx.export(
        embedding, (x, valid), dynamo=True, dynamic_shapes=(batch, batch), verbose=False
    ).save(path)
    session = onnxruntime.InferenceSession(path)
    for num_events in (8, 1):
        inputs = (x[:num_events], valid[:num_events])
        arrays = (part.numpy() for part in inputs)
        names = (entry.name for entry in session.get_inputs())
        (found,) = session.run(None, dict(zip(names, arrays, strict=True)))
        expected = embedding(*inputs).detach()
        assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-4, equal_nan=True)
