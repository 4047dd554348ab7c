"""What every jet network promises: the real particles decide, whatever pads them."""

import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.nn.event_threads import call_in_threads
from hepattn.nn.normalise import Feature
from models.jet_network_cases import FEATURES, NETWORKS, ORDERED, check_export, make, random_jets

CANCELLED = {"encoder.pair_bias.network.1.bias"}  # by the batch normalisation after it
ALL = pytest.mark.parametrize("name", NETWORKS)


@ALL
def test_padding_even_of_nan_never_changes_the_logits(name: str) -> None:
    net = make(name)
    lengths = (9, 0, 3, 1)
    x, vectors, valid = random_jets(*lengths)
    x, vectors = (y.masked_fill(~valid.unsqueeze(-1), math.nan) for y in (x, vectors))
    out = net(x, vectors, valid)
    for jet, length in enumerate(lengths):
        alone = (y[jet, None, :length] for y in (x, vectors, valid))
        assert_close(out[jet, None], net(*alone), atol=1e-6, rtol=1e-5)


@ALL
def test_threads_never_change_the_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepattn.nn.event_threads.MIN_EVENTS", 2)
    net, inputs, num_threads = make(name), random_jets(9, 0, 3, 1, 12, 5, 0, 7), 3
    with torch.no_grad():
        expected = net(*inputs)
        before = torch.get_num_threads()
        torch.set_num_threads(num_threads)
        try:
            for _ in range(3):
                assert_close(
                    call_in_threads(net, inputs, inputs[2]), expected, atol=1e-6, rtol=1e-5
                )
        finally:
            torch.set_num_threads(before)


@ALL
def test_padding_even_of_nan_never_changes_training(name: str) -> None:
    net = make(name).train()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x, vectors, valid = random_jets(9, 0, 3)
    answers = []
    for extra in (0, 5):
        copy = deepcopy(net)
        padded = (F.pad(y, (0, 0, 0, extra), value=math.nan) for y in (x, vectors))
        out = copy(*padded, F.pad(valid, (0, extra)))
        out.square().sum().backward()
        gradients = [p.grad for p in copy.parameters() if p.requires_grad]
        answers.append([out, *gradients, *copy.buffers()])
    for before, after in zip(*answers, strict=True):
        assert_close(before, after, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ORDERED])
def test_the_order_of_the_particles_never_changes_the_logits(name: str) -> None:
    net = make(name)
    x, vectors, valid = random_jets(12, 12)
    order = torch.randperm(12)
    assert_close(net(x[:, order], vectors[:, order], valid), net(x, vectors, valid))


@pytest.mark.parametrize("name", ORDERED)
def test_the_order_of_the_particles_matters_to_some(name: str) -> None:
    net = make(name)
    x, vectors, valid = random_jets(12, 12)
    change = net(x.flip(1), vectors.flip(1), valid) - net(x, vectors, valid)
    assert change.abs().max() > 1e-3


@ALL
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_finite_with_and_without_particles(name: str, training: bool) -> None:
    net = make(name).train(training)
    for lengths in ((9, 0, 2), (0, 0), (0,)):
        x, vectors, valid = random_jets(*lengths)
        x.requires_grad_(), vectors.requires_grad_()
        net.zero_grad()
        out = net(x, vectors, valid)
        out.square().sum().backward()
        assert out.isfinite().all()
        leaves = (*net.parameters(), x, vectors)
        assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves)
        assert all(buffer.isnan().sum() == 0 for buffer in net.buffers())


@ALL
def test_every_parameter_gets_a_gradient(name: str) -> None:
    net = make(name).train()
    net(*random_jets(12, 7, 9)).square().sum().backward()
    for key, parameter in net.named_parameters():
        if parameter.requires_grad and key not in CANCELLED:
            assert parameter.grad.abs().max() > 0, key


@ALL
def test_features_that_are_not_embedded_do_not_matter(name: str) -> None:
    features = (*FEATURES, Feature("part_d0", embed=False))
    cases = NETWORKS[name]
    net = cases.func(features, *cases.args[1:], **cases.keywords).eval()
    x, vectors, valid = random_jets(6, 4)
    wide = torch.cat([x, torch.full_like(x[..., :1], math.inf)], -1)
    narrow = cases.func(FEATURES, *cases.args[1:], **cases.keywords).eval()
    weights = {key: y for key, y in net.state_dict().items() if not key.startswith("normalise")}
    narrow.load_state_dict(weights, strict=False)
    assert_close(net(wide, vectors, valid), narrow(x, vectors, valid))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
@ALL
def test_an_exported_network_gives_the_same_answer_for_every_batch(
    name: str, tmp_path: Path
) -> None:
    check_export(make(name), random_jets, tmp_path)
