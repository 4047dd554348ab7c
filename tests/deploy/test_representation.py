"""What a head reads, and where it lies in two dimensions."""

import sys

import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.testing import assert_close

from hepattn.deploy.representation import neighbour_embedding, principal_components, read_by_head
from hepattn.models.deep_sets import DeepSets
from hepattn.models.fused import FusedNetwork
from hepattn.models.mlp import MLP
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature
from hepattn.nn.scaling import ScaledNetwork
from hepattn.training.configs import ConfigError

SCHEMA = EventSchema((Feature("met"), Feature("ht")), {"jets": (Feature("pt"),)}, {"jets": 3})
INPUTS = (
    torch.randn(4, 2),
    torch.zeros(4, 3, 4),
    torch.arange(3) < torch.tensor([[3], [1], [2], [3]]),
    torch.randn(4, 3, 1),
)


def test_it_is_what_stands_before_the_last_layer() -> None:
    network = MLP(SCHEMA, 1, hidden=(8, 5)).eval()
    found = read_by_head(ScaledNetwork(network, 1), INPUTS)
    assert_close(found, network.layers(network.embedding(INPUTS[0])))
    assert_close(network.head(found), network(*INPUTS))
    assert not network.head._forward_pre_hooks


def test_of_fused_networks_both_count() -> None:
    network = FusedNetwork(SCHEMA, 1, MLP, DeepSets).eval()
    parts = {read_by_head(part, INPUTS).shape[1] for part in (network.flat, network.jagged)}
    found = read_by_head(network, INPUTS)
    assert found.shape == (4, 256)
    assert parts == {128}
    halves = [read_by_head(part, INPUTS) for part in (network.jagged, network.flat)]
    assert_close(found, torch.cat(halves, 1))


def test_a_network_without_a_head_of_events_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear has no part called head"):
        read_by_head(nn.Linear(2, 1), INPUTS[:1])
    tokens = nn.Sequential()
    tokens.add_module("head", nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="reads one vector an event"):
        read_by_head(tokens, INPUTS[3:])


@pytest.mark.parametrize("shape", [(50, 7), (4, 7), (30, 2)])
def test_principal_components_are_those_of_scikit_learn(shape: tuple[int, int]) -> None:
    x = torch.randn(shape) @ torch.randn(shape[1], shape[1]) + 5
    peer = PCA(svd_solver="full").fit(x.double().numpy())
    expected = torch.from_numpy(peer.transform(x.double().numpy()))[:, :2]
    coordinates, explained = principal_components(x)
    sign = (expected * coordinates).sum(0).sign()
    assert_close(coordinates, sign * expected)
    assert_close(explained, torch.from_numpy(peer.explained_variance_ratio_), atol=1e-9, rtol=1e-6)
    assert_close(principal_components(-x).explained, explained)


def test_equal_events_have_no_direction() -> None:
    coordinates, explained = principal_components(torch.ones(5, 3))
    assert (coordinates == 0).all()
    assert (explained == 0).all()


def test_near_events_stay_near_and_the_seed_decides() -> None:
    x = torch.randn(60, 5)
    x[30:] += 20
    found = neighbour_embedding(x, perplexity=5)
    distance = torch.cdist(found, found).fill_diagonal_(torch.inf)
    assert ((distance.argmin(1) < 30) == (torch.arange(60) < 30)).all()
    assert torch.equal(neighbour_embedding(x, perplexity=5), found)


def test_what_lacks_for_neighbours_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ImportError, match=r"hepattn\[eval\].*--method pca"):
        neighbour_embedding(torch.randn(9, 2))
