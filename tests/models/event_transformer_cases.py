"""Small events for the tests of event transformers, and their layers written down plainly."""

# B events, N slots, n real objects of one event, F columns, D features, H heads, E head features

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.attention import set_backend
from hepattn.nn.attention_maps import record_attention
from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature
from hepattn.physics.four_vector import from_pt_eta_phi_energy

SCHEMA = EventSchema(
    events=(Feature("met", transform="log"), Feature("mass"), Feature("angle")),
    objects={
        "jets": (Feature("jet_pt", transform="log"), Feature("jet_eta"), Feature("jet_score")),
        "muons": (Feature("mu_pt", transform="log"), Feature("mu_charge")),
    },
    max_objects={"jets": 4, "muons": 3},
    with_vectors=("jets", "muons"),
)
COUNTS = ((4, 3), (2, 1), (0, 2), (1, 0))  # jets and muons of some events
Events = tuple[Tensor, ...]  # as the networks take them


def random_events(*counts: tuple[int, int], sizes: tuple[int, int] = (4, 3)) -> Events:
    """Columns of the events, four-vectors, which objects are real, columns of each kind."""
    B = len(counts)
    events = torch.rand(B, 3).add(0.5)
    vectors, valid, columns = [], [], []
    for kind, size in enumerate(sizes):
        number = torch.tensor([each[kind] for each in counts]).unsqueeze(1)
        real = torch.arange(size) < number  # (B, P)
        pt, eta, phi = 20 + 80 * torch.rand(B, size), torch.randn(B, size), 6 * torch.rand(B, size)
        vectors.append(from_pt_eta_phi_energy(pt, eta, phi, 1.05 * pt * eta.cosh()))
        columns.append(torch.stack([pt, eta, torch.randn(B, size)][: 3 - kind], -1))
        valid.append(real)
    return events, torch.cat(vectors, 1), torch.cat(valid, 1), *columns


def enlarge(inputs: Events, sizes: tuple[int, int], fill: float) -> Events:
    """Give each kind that many slots, and let ``fill`` stand at all padded ones."""
    events, vectors, valid, *columns = inputs
    old = [each.shape[1] for each in columns]
    more = [size - each for size, each in zip(sizes, old, strict=True)]

    def widen(parts: list[Tensor], value: float) -> list[Tensor]:
        return [
            torch.cat([x, x.new_full((len(x), extra, *x.shape[2:]), value)], 1)
            for x, extra in zip(parts, more, strict=True)
        ]

    real = widen(list(valid.split(old, 1)), False)
    columns = widen(columns, fill)
    columns = [
        x.masked_fill(~each.unsqueeze(-1), fill) for x, each in zip(columns, real, strict=True)
    ]
    valid = torch.cat(real, 1)
    vectors = torch.cat(widen(list(vectors.split(old, 1)), fill), 1)
    return events, vectors.masked_fill(~valid.unsqueeze(-1), fill), valid, *columns


def larger(sizes: tuple[int, int]) -> EventSchema:
    return replace(SCHEMA, max_objects=dict(zip(SCHEMA.kinds, sizes, strict=True)))


def reverse_kinds(inputs: Events, counts: tuple[tuple[int, int], ...]) -> Events:
    """Reverse the real objects of each kind in each event."""
    events, vectors, valid, *columns = (x.clone() for x in inputs)
    start = 0
    for kind, x in enumerate(columns):
        for b, numbers in enumerate(counts):
            n = numbers[kind]
            x[b, :n] = x[b, :n].flip(0)
            vectors[b, start : start + n] = vectors[b, start : start + n].flip(0)
        start += x.shape[1]
    return events, vectors, valid, *columns


def check_padding_and_order(
    make: Callable[[EventSchema], nn.Module], sizes: tuple[int, int] = (6, 5)
) -> None:
    """Neither more slots, nor what stands in padded ones, nor the order in a kind matters."""
    net, inputs = make(SCHEMA).eval(), random_events(*COUNTS)
    settle(net)
    expected = net(*inputs)
    wide = make(larger(sizes)).eval()
    wide.load_state_dict(net.state_dict())
    for fill in (1e9, float("nan")):
        assert_close(wide(*enlarge(inputs, sizes, fill)), expected, atol=1e-6, rtol=1e-6)
    assert_close(net(*reverse_kinds(inputs, COUNTS)), expected, atol=1e-6, rtol=1e-6)


def check_empty_events(net: nn.Module) -> None:
    """Events without objects get finite answers, and weights finite gradients."""
    for counts in (((0, 0), (2, 1), (0, 0)), ((0, 0), (0, 0))):
        net.zero_grad()
        inputs = enlarge(random_events(*counts), (4, 3), float("nan"))
        out = net.train()(*inputs)
        out.square().sum().backward()
        assert out.isfinite().all()
        grads = [p.grad for p in net.parameters() if p.grad is not None]
        assert grads
        assert all(grad.isfinite().all() for grad in grads)


def check_attention_is_ours(net: nn.Module, num_layers: int) -> None:
    """Every attention layer has weights to look at and takes the backend that is asked for."""
    inputs = random_events(*COUNTS)
    with torch.no_grad(), record_attention(net.eval()) as weights:
        expected = net(*inputs)
    assert len(weights) == num_layers
    for each in weights.values():
        total = each.sum(-1)
        assert_close(total, total.round(), atol=1e-6, rtol=0)  # nothing visible: zero
    set_backend(net, "sdpa")
    assert_close(net(*inputs), expected, atol=1e-6, rtol=1e-6)


def check_export(net: nn.Module, folder: Path) -> None:
    """Compare a network and its ONNX file on events with any number of objects."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra deploy")
    pytest.importorskip("onnxscript", reason="needs the extra deploy")
    net.eval()
    settle(net)
    inputs = random_events(*COUNTS)
    events = torch.export.Dim("events")
    path = folder / "net.onnx"
    shapes = ({0: events}, {0: events}, {0: events}, tuple({0: events} for _ in inputs[3:]))
    torch.onnx.export(net, inputs, dynamo=True, dynamic_shapes=shapes, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path)
    used = [entry.name for entry in session.get_inputs()]
    for counts in (COUNTS, ((0, 0), (3, 3), (4, 0)), ((1, 2),)):
        inputs = random_events(*counts)
        names = ("events", "vectors", "valid", "objects_0", "objects_1")
        given = {key: x.numpy() for key, x in zip(names, inputs, strict=True) if key in used}
        (found,) = session.run(None, given)
        assert_close(torch.from_numpy(found), net(*inputs).detach(), atol=1e-5, rtol=1e-4)


def settle(net: nn.Module) -> None:
    """Let norms be as after a training: with weights and statistics of their own."""
    for name, parameter in net.named_parameters():
        if "norm" in name or "head" in name:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    for module in net.modules():
        if isinstance(module, MaskedBatchNorm):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)


# Layers on the real objects of one event, in float64, without masks


Weights = Mapping[str, Tensor]


def weights_of(module: nn.Module) -> Weights:
    tensors = (*module.named_parameters(), *module.named_buffers())
    return {name: x.detach().double() for name, x in tensors}


def part(weights: Weights, prefix: str) -> Weights:
    prefix = f"{prefix}."
    return {k.removeprefix(prefix): x for k, x in weights.items() if k.startswith(prefix)}


def linear(x: Tensor, weights: Weights) -> Tensor:
    return x @ weights["weight"].T + weights.get("bias", torch.zeros(()))


def layer_norm(x: Tensor, weights: Weights) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / scale * weights["weight"] + weights["bias"]


def set_norm(x: Tensor, weights: Weights) -> Tensor:
    if x.numel() == 0:
        return x
    centred = x - x.mean()
    scale = (centred.square().mean() + 1e-5).sqrt()
    return centred / scale * weights["weight"] + weights["bias"]


def attend(
    query: Tensor, context: Tensor, weights: Weights, num_heads: int, bias: Tensor | None = None
) -> Tensor:
    """Attention of query tokens (m, D) to a context (n, D), head by head; bias (H, m, n)."""
    q = linear(query, part(weights, "query"))  # (m, H E)
    k, v = linear(context, part(weights, "key_value")).chunk(2, -1)  # (n, H E)
    heads = []
    for head, (a, b, c) in enumerate(
        zip(*(x.chunk(num_heads, -1) for x in (q, k, v)), strict=True)
    ):
        score = a @ b.T / a.shape[-1] ** 0.5
        if bias is not None:
            score = score + bias[head]
        heads.append(score.softmax(-1) @ c if len(c) else torch.zeros_like(a))
    return linear(torch.cat(heads, -1), part(weights, "out"))


def gated(x: Tensor, weights: Weights) -> Tensor:
    """The dense net: half of the hidden units times the GELU of the others."""
    value, gate = linear(x, part(weights, "expand")).chunk(2, -1)
    return linear(value * gelu(gate), part(weights, "contract"))


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def real_tokens(net: nn.Module, inputs: Events) -> Iterator[Tensor]:
    """The embedded real objects of each event (n, D)."""
    events, _, valid, *columns = inputs
    for tokens, real in zip(net.embedding(events, valid, *columns), valid, strict=True):
        yield tokens[real].double()
