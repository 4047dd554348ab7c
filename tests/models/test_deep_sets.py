"""Deep Sets average what they say of each element, and nothing but real elements counts."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.models.deep_sets import DeepSets, FeatureDeepSets
from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.feature_embedding import EmbeddingOptions
from models.event_network_cases import (
    COUNTS,
    SCHEMA,
    WIDER,
    check_gradients,
    check_order,
    check_padding,
    draw_events,
    settle,
)

OPTIONS = {"num_outputs": 2, "encoder": (8, 6), "decoder": (5,)}
make = partial(DeepSets, SCHEMA, **OPTIONS)
make_flat = partial(FeatureDeepSets, SCHEMA, **OPTIONS)
POOLINGS = pytest.mark.parametrize("mean_pooling", [True, False])


def follow(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Linear map, batch norm in evaluation mode, ReLU; for one element or event (D)."""
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    norms = [layer for layer in layers if isinstance(layer, MaskedBatchNorm)]
    for linear, norm in zip(linears, norms, strict=True):
        x = linear.weight @ x + linear.bias
        x = (x - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
        x = x.clamp(min=0)
    return x


@POOLINGS
def test_it_is_a_loop_over_the_real_objects_of_each_kind(mean_pooling: bool) -> None:
    net = settle(make(mean_pooling=mean_pooling))
    events, vectors, valid, *objects = draw_events()
    found = net(events, vectors, valid, *objects)
    tokens = net.embedding(events, valid, *objects)
    for event, numbers in enumerate(COUNTS):
        kinds = []
        for kind, part in enumerate(tokens[event].split([4, 2])):
            answers = [follow(net.encoder, x) for x in part[: numbers[kind]]]
            kinds.append(sum(answers, torch.zeros(6)) / max(len(answers), 1))
        pooled = torch.cat(kinds)
        if mean_pooling:
            present = [x for x, number in zip(kinds, numbers, strict=True) if number]
            pooled = sum(present, torch.zeros(6)) / max(len(present), 1)
        expected = net.head.weight @ follow(net.decoder, pooled) + net.head.bias
        assert_close(found[event], expected, atol=1e-6, rtol=1e-5)


@POOLINGS
def test_padding_changes_no_output(mean_pooling: bool) -> None:
    check_padding(partial(DeepSets, mean_pooling=mean_pooling, **OPTIONS))


@POOLINGS
def test_the_order_of_the_objects_changes_no_output(mean_pooling: bool) -> None:
    check_order(settle(make(mean_pooling=mean_pooling)))


@POOLINGS
def test_events_without_objects_have_finite_outputs_and_gradients(mean_pooling: bool) -> None:
    check_gradients(make(mean_pooling=mean_pooling))


def test_training_knows_real_objects_only() -> None:
    answers = []
    for extra, schema in ((0, SCHEMA), (3, WIDER)):
        torch.manual_seed(2)
        net = DeepSets(schema, **OPTIONS)
        out = net(*draw_events(extra=extra, padding=float("nan")))
        out.square().sum().backward()
        answers.append([out, *(p.grad for p in net.parameters()), *net.buffers()])
    for before, after in zip(*answers, strict=True):
        assert_close(before, after, atol=1e-6, rtol=1e-5)


def test_layers_are_linear_then_norm_then_activation_then_dropout() -> None:
    names = [type(layer).__name__ for layer in make(activation="ELU", dropout=0.1).encoder]
    assert names == ["Linear", "MaskedBatchNorm", "ELU", "Dropout"] * 2
    names = [type(layer).__name__ for layer in make(batchnorm=False).decoder]
    assert names == ["Linear", "ReLU", "Dropout"]


@pytest.mark.parametrize("maker", [make, make_flat])
def test_outputs_may_have_an_activation(maker: partial) -> None:
    plain, active = maker().eval(), maker(output_activation="Sigmoid").eval()
    active.load_state_dict(plain.state_dict())
    assert_close(active(*draw_events()), plain(*draw_events()).sigmoid())


@pytest.mark.parametrize("maker", [make, make_flat])
def test_the_embedding_is_as_wide_as_the_first_layer_unless_told(maker: partial) -> None:
    assert maker().encoder[0].in_features == 8
    assert maker(embedding_dim=4).encoder[0].in_features == 4


@POOLINGS
def test_columns_of_the_event_are_a_set_too(mean_pooling: bool) -> None:
    net = settle(make_flat(mean_pooling=mean_pooling))
    events, *rest = draw_events()
    found = net(events, *rest)
    for event, tokens in enumerate(net.embedding(events)):
        answers = torch.stack([follow(net.encoder, x) for x in tokens])  # (F, D)
        pooled = answers.mean(0) if mean_pooling else answers.flatten()
        expected = net.head.weight @ follow(net.decoder, pooled) + net.head.bias
        assert_close(found[event], expected, atol=1e-6, rtol=1e-5)


def test_a_network_without_hidden_decoder_layers_is_linear_after_the_mean() -> None:
    net = make(decoder=())
    assert len(net.decoder) == 0
    assert net(*draw_events()).shape == (4, 2)


def test_what_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="DeepSets classifies sets of objects"):
        DeepSets(EventSchema(events=SCHEMA.events), 1)
    with pytest.raises(ValueError, match=r"encoder=\(\)"):
        make(encoder=())
    with pytest.raises(ValueError, match="FeatureDeepSets classifies columns"):
        FeatureDeepSets(EventSchema(objects=SCHEMA.objects, max_objects=SCHEMA.max_objects), 1)
    with pytest.raises(ValueError, match="leaves no vector for each column"):
        make_flat(embedding=EmbeddingOptions(reduction="mean"))
