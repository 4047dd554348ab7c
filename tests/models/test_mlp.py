"""The multi-layer perceptron is its formula on the embedded columns of an event."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from hepattn.models.mlp import MLP
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.feature_embedding import EmbeddingOptions
from models.event_network_cases import SCHEMA, check_gradients, draw_events, settle

make = partial(MLP, SCHEMA, 2, hidden=(8, 6))


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_hidden_layers_are_linear_then_norm_then_activation(
    batchnorm: bool, training: bool
) -> None:
    net = settle(make(batchnorm=batchnorm, activation="GELU")).train(training)
    inputs = draw_events()
    linear = [layer for layer in net.layers if isinstance(layer, nn.Linear)]
    norms = [nn.BatchNorm1d(size).train(training) for size in (8, 6)]
    ours = [layer for layer in net.layers if type(layer).__name__ == "MaskedBatchNorm"]
    for peer, norm in zip(norms, ours, strict=False):
        peer.load_state_dict(norm.state_dict())
    x = net.embedding(inputs[0])
    for layer, norm in zip(linear, norms, strict=True):
        x = x @ layer.weight.T + layer.bias
        x = nn.functional.gelu(norm(x) if batchnorm else x)
    assert_close(net(*inputs), x @ net.head.weight.T + net.head.bias)


def test_dropout_comes_before_the_norm_in_training_alone() -> None:
    net = make(dropout=0.5, batchnorm=True)
    names = [type(layer).__name__ for layer in net.layers]
    assert names == ["Linear", "Dropout", "MaskedBatchNorm", "ReLU"] * 2
    inputs = draw_events()
    assert (net(*inputs) != net(*inputs)).any()
    net.eval()
    assert_close(net(*inputs), net(*inputs), atol=0, rtol=0)


def test_outputs_may_have_an_activation() -> None:
    plain, active = make(), make(output_activation="Sigmoid")
    active.load_state_dict(plain.state_dict())
    inputs = draw_events()
    assert_close(active(*inputs), plain(*inputs).sigmoid())


def test_the_embedding_is_as_wide_as_the_first_layer_unless_told() -> None:
    assert make().layers[0].in_features == 8
    assert make(embedding_dim=5).layers[0].in_features == 5


def test_without_an_embedding_it_sees_the_scaled_columns() -> None:
    net = make(embedding=EmbeddingOptions(disable_embeddings=True))
    events, *rest = draw_events()
    scaled = events * torch.tensor([0.5, 1.0, 1.0])
    assert_close(net(events, *rest), net.head(net.layers(scaled)))


def test_one_event_can_be_trained_on() -> None:
    check_gradients(make(batchnorm=True))


def test_objects_are_not_looked_at() -> None:
    net = make()
    events, vectors, valid, *objects = draw_events()
    assert_close(net(events, vectors, valid), net(events, vectors, valid, *objects))


def test_it_needs_columns_of_the_event_and_a_layer() -> None:
    with pytest.raises(ValueError, match="MLP classifies columns of the event"):
        MLP(EventSchema(objects=SCHEMA.objects, max_objects=SCHEMA.max_objects), 1)
    with pytest.raises(ValueError, match=r"hidden=\(\)"):
        make(hidden=())
    with pytest.raises(ValueError, match="leaves several vectors"):
        make(embedding=EmbeddingOptions(reduction="none"))
    with pytest.raises(ValueError, match="embedding_dim=8 has no effect"):
        make(embedding_dim=8, embedding=EmbeddingOptions(disable_embeddings=True))
