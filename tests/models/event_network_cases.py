"""Random events for the tests of networks, and what every network of events promises."""

# B events, F columns, N slots of all kinds, P slots of a kind

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature

SCHEMA = EventSchema(
    events=(Feature("met", scale=0.5), Feature("ht"), Feature("sphericity")),
    objects={
        "jets": (Feature("jet_pt", scale=0.5), Feature("jet_eta")),
        "muons": (Feature("mu_pt"), Feature("mu_eta"), Feature("mu_phi")),
    },
    max_objects={"jets": 4, "muons": 2},
)
COUNTS = ((4, 2), (0, 0), (3, 0), (0, 1))
Inputs = tuple[Tensor, ...]  # events, vectors, valid and the objects of each kind


WIDER = replace(SCHEMA, max_objects={"jets": 7, "muons": 5})


def draw_events(
    counts: Sequence[tuple[int, int]] = COUNTS, extra: int = 0, padding: float = 0.0
) -> Inputs:
    """Events of so many jets and muons, the same for the same counts.

    Args:
        counts: Jets and muons of each event.
        extra: Further slots of each kind, all padded; `WIDER` has three.
        padding: What stands in padded slots.
    """
    generator = torch.Generator().manual_seed(1)
    valid, objects = [], []
    for kind, features in enumerate(SCHEMA.objects.values()):
        size = tuple(SCHEMA.max_objects.values())[kind]
        columns = torch.randn(len(counts), size, len(features), generator=generator)
        numbers = torch.tensor([count[kind] for count in counts]).unsqueeze(1)
        real = torch.arange(size + extra) < numbers
        objects.append(F.pad(columns, (0, 0, 0, extra)).masked_fill(~real.unsqueeze(-1), padding))
        valid.append(real)
    events = torch.randn(len(counts), len(SCHEMA.events), generator=generator)
    valid = torch.cat(valid, 1)
    vectors = torch.randn(*valid.shape, 4, generator=generator)
    return events, vectors.masked_fill(~valid.unsqueeze(-1), padding), valid, *objects


def settle(net: nn.Module) -> nn.Module:
    """Put a network into evaluation mode, its batch norms as after a training."""
    for module in net.modules():
        if isinstance(module, MaskedBatchNorm):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return net.eval()


def check_padding(make: Callable[[EventSchema], nn.Module]) -> None:
    """Padding, more of it or of NaN, changes no output."""
    net, wider = settle(make(SCHEMA)), make(WIDER).eval()
    wider.load_state_dict(net.state_dict())
    expected = net(*draw_events())
    assert_close(net(*draw_events(padding=math.nan)), expected, atol=1e-6, rtol=0)
    assert_close(wider(*draw_events(extra=3, padding=math.nan)), expected, atol=1e-6, rtol=0)


def check_order(net: nn.Module) -> None:
    """The order of the objects of a kind changes no output."""
    events, vectors, valid, jets, muons = draw_events()
    turned = jets.clone()
    turned[0], turned[2, :3] = jets[0].flip(0), jets[2, :3].flip(0)
    found = net(events, vectors, valid, turned, muons)
    assert_close(found, net(events, vectors, valid, jets, muons), atol=1e-6, rtol=0)


def check_gradients(net: nn.Module) -> None:
    """Outputs and gradients are finite, also without any object, in training and evaluation."""
    for training in (True, False):
        for counts in (COUNTS, ((0, 0), (0, 0)), ((0, 0),)):
            inputs = draw_events(counts, padding=math.nan)
            net.train(training).zero_grad()
            out = net(*inputs)
            out.square().sum().backward()
            assert out.isfinite().all()
            assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
            assert not any(buffer.isnan().any() for buffer in net.buffers())


def check_export(net: nn.Module, folder: Path) -> None:
    """Compare a network and its ONNX file on several numbers of events."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra deploy")
    pytest.importorskip("onnxscript", reason="needs the extra deploy")
    names = ["events", "vectors", "valid", *SCHEMA.kinds]
    path = folder / "net.onnx"
    dims = {0: torch.export.Dim("events")}
    torch.onnx.export(
        net,
        draw_events(),
        input_names=names,
        dynamo=True,
        dynamic_shapes=(dims, dims, dims, (dims,) * len(SCHEMA.kinds)),
        verbose=False,
    ).save(path)
    session = onnxruntime.InferenceSession(path)
    used = {entry.name for entry in session.get_inputs()}
    for counts in (COUNTS, ((0, 0),), ((1, 2), (2, 0))):
        inputs = draw_events(counts)
        arrays = {key: x.numpy() for key, x in zip(names, inputs, strict=True) if key in used}
        (found,) = session.run(None, arrays)
        expected = net(*inputs).detach()
        assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-4)
