"""Autoencoder, inpainter and regressor: what they may see, and what comes out."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from experiments.xec.cases import (
    TINY,
    Seen,
    gradients,
    hide,
    seen,
    settle,
    spoil,
)
from hepattn.data.xec import XecBatch
from hepattn.deploy.export import Exported, _write_onnx
from hepattn.experiments.xec import backbone
from hepattn.experiments.xec.autoencoder import XecAutoencoder
from hepattn.experiments.xec.encoder import Encoded, EncoderOptions
from hepattn.experiments.xec.inpainter import XecInpainter
from hepattn.experiments.xec.reconstruction import ReconstructionLoss, ReconstructionOptions
from hepattn.experiments.xec.regressor import SIZES, XecRegressor
from hepattn.experiments.xec.sensor_head import SensorsHead
from hepattn.experiments.xec.targets import SCALES
from hepattn.nn.attention import Attention
from hepattn.physics import xec

S = xec.NUM_SENSORS
GAT = replace(TINY, hex_mixer="gat", outer="coarse")
FINE = replace(TINY, outer="finegrid", pool="adaptive")
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "autoencoder": lambda: XecAutoencoder(TINY, 8, 2),
    "autoencoder, coarse, gat": lambda: XecAutoencoder(GAT, 8, 1),
    "autoencoder, finegrid": lambda: XecAutoencoder(FINE, 8, 2),
    "inpainter, faces": lambda: XecInpainter(TINY, "faces", 2, 8),
    "inpainter, faces, coarse, gat": lambda: XecInpainter(GAT, "faces", 1, 8),
    "inpainter, faces, finegrid": lambda: XecInpainter(FINE, "faces", 2, 8),
    "inpainter, sensors": lambda: XecInpainter(TINY, "sensors", 2, 8),
    "inpainter, sensors, coarse, gat": lambda: XecInpainter(GAT, "sensors", 1, 8),
    "regressor": lambda: XecRegressor(TINY, {"energy": "shared", "direction": "none"}, 16),
    "regressor, finegrid": lambda: XecRegressor(FINE, {"position": "detached"}, 16),
}


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return settle(NETWORKS[name]())


def wanted_of(given: Seen, net: nn.Module) -> Tensor:
    """Some of the sensors that are hidden, and of the dead ones, which a prediction fills in."""
    return ~given.valid & net.covered & (torch.arange(S) % 4 == 0)


def call(net: nn.Module, given: Seen) -> Tensor:
    if isinstance(net, XecInpainter):
        return net(*given, wanted_of(given, net))
    return net(*given)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_hidden_does_not_leak(name: str, events: XecBatch) -> None:
    net, given = make(name), hide(seen(events))
    plain = call(net, spoil(given, 0.0))
    found = call(net, spoil(given))
    assert torch.equal(found, plain)
    assert found.isfinite().all()
    expected = gradients(net, plain)
    assert expected.keys() == {key for key, _ in net.named_parameters()}
    for key, gradient in gradients(net, found).items():
        assert gradient.isfinite().all(), key
        assert torch.equal(gradient, expected[key]), key


@pytest.mark.parametrize("name", NETWORKS)
def test_an_event_does_not_see_the_rest_of_its_batch(name: str, events: XecBatch) -> None:
    net, given = make(name), hide(seen(events))
    together = call(net, given)
    for event in range(3):
        one = slice(event, event + 1)
        alone = call(net, Seen(*(x[one] for x in given)))
        assert_close(alone[0], together[event], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_events_that_show_nothing_get_an_answer(name: str, events: XecBatch) -> None:
    net, given = make(name), seen(events)
    nothing = torch.zeros_like(given.valid)
    out = call(net, spoil(given._replace(valid=nothing, time_valid=nothing)))
    assert out.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(net, out).values())


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("options", [TINY, GAT, FINE], ids=lambda options: options.outer)
def test_an_autoencoder_tells_all_sensors_that_images_show(
    options: EncoderOptions, num_channels: int, events: XecBatch
) -> None:
    net = settle(XecAutoencoder(options, 8, num_channels))
    out = net(*seen(events))
    assert out.shape == (3, S, num_channels)
    assert (out[:, ~net.covered] == 0).all()
    assert (out[:, net.covered] != 0).all()


def test_a_decoder_tells_its_own_face_from_its_own_token(events: XecBatch) -> None:
    net = settle(XecAutoencoder(TINY, 8, 1))
    before = net(*seen(events))
    with torch.no_grad():
        net.images[1].last.bias += 1
        net.ends[0].last.bias += 1
    changed = (net(*seen(events)) != before).any(0).squeeze(-1)
    face = torch.from_numpy(xec.sensors().face.copy())
    expected = (face == xec.FACES.index("us")) | (face == xec.FACES.index("top"))
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("name", [name for name in NETWORKS if "inpainter" in name])
def test_an_inpainter_fills_in_what_is_wanted_alone(name: str, events: XecBatch) -> None:
    net, given = make(name), hide(seen(events))
    wanted = wanted_of(given, net)
    out = net(*given, wanted)
    assert out.shape[:2] == (3, S)
    assert (out[wanted] != 0).all()
    assert (out[~wanted] == 0).all()


@pytest.mark.parametrize("name", [name for name in NETWORKS if "inpainter" in name])
def test_what_is_filled_in_does_not_depend_on_what_else_is_wanted(
    name: str, events: XecBatch
) -> None:
    events = XecBatch(*(field[1:] for field in events))
    net, given = make(name), hide(seen(events))
    many = ~given.valid & net.covered
    few = many & (torch.arange(S) % 5 == 0)
    dense = net(*given, torch.ones_like(many) & net.covered)
    for wanted in (many, few):
        out = net(*given, wanted)
        assert_close(out, torch.where(wanted.unsqueeze(-1), dense, 0.0), rtol=1e-4, atol=1e-5)
    nothing = torch.zeros_like(many)
    assert (net(*given, nothing) == 0).all()


def test_only_images_without_the_centre_leave_sensors_unfilled() -> None:
    assert make("inpainter, sensors, coarse, gat").covered.all()
    assert make("inpainter, faces, coarse, gat").covered.sum() == 4742
    assert make("autoencoder, coarse, gat").covered.sum() == 4742


def attend(layer: Attention, query: Tensor, context: Tensor) -> Tensor:
    """Attention of one query (D) over a context (K, D), by its definition."""
    heads = (layer.options.num_heads, -1)
    q = layer.query(query).view(heads)
    keys, values = (x.unflatten(1, heads) for x in layer.key_value(context).chunk(2, 1))
    score = torch.einsum("he,khe->hk", q, keys) / q.shape[1] ** 0.5
    mixed = torch.einsum("hk,khe->he", score.softmax(1), values)
    return layer.out(mixed.flatten())


def loop_over_events(
    head: SensorsHead, encoded: Encoded, visible: Tensor, wanted: Tensor
) -> Tensor:
    """Fill in sensors event by event, one by one, from neighbours that are visible and tokens."""
    identity = torch.cat([head.place, head.kind(head.face)], -1)  # (S, size)
    filled = torch.zeros(*wanted.shape, head.mlp[-1].out_features)
    for event, tokens in enumerate(encoded.tokens):
        for sensor in wanted[event].nonzero()[:, 0].tolist():
            near = head.neighbour[sensor]
            near = near[visible[event, near]]
            around = head.seen(encoded.channels[event, near]) + head.there(identity[near])
            light = encoded.channels[event, head.neighbour[sensor], 0]
            there = visible[event, head.neighbour[sensor]]
            mean = light[there].mean() if there.any() else torch.tensor(0.0)
            off = torch.where(there, light - mean, 0.0)
            x = head.query(identity[sensor]) + head.around(torch.cat([off, there.float()]))
            x = x + attend(head.local, head.norms[0](x), around)
            x = x + attend(head.across, head.norms[1](x), head.tokens(tokens))
            filled[event, sensor] = head.mlp(head.norms[2](x))
            filled[event, sensor, 0] += mean
    return filled


@torch.no_grad()
def test_gathered_sensors_are_those_of_a_loop_over_events(events: XecBatch) -> None:
    net, given = make("inpainter, sensors"), hide(seen(events))
    wanted = ~given.valid & (torch.arange(S) % 50 == 0)
    wanted[1] = False  # an event of which nothing is wanted
    wanted[2, :40] = True  # more than of the others
    alone = int(wanted[0].nonzero()[0])
    given.valid[0, net.head.neighbour[alone]] = False  # nothing to ask around it
    given = given._replace(time_valid=given.time_valid & given.valid)
    encoded = net.encoder(*given)
    expected = loop_over_events(net.head, encoded, given.valid, wanted)
    assert_close(net(*given, wanted), expected, rtol=1e-4, atol=1e-5)


def test_the_loss_of_gathered_sensors_is_that_of_all_with_a_mask(events: XecBatch) -> None:
    events = XecBatch(*(field[:1] for field in events))
    net, given = make("inpainter, sensors"), hide(seen(events))
    hidden = events.valid & ~given.valid
    scaling = net.encoder.scaling
    reference = scaling.reference(*given[:2], given.time_valid)
    truth = [scaling.scale_photons(events.photons), scaling.scale_time(events.time, reference)]
    loss = ReconstructionLoss(ReconstructionOptions(average="face", light_power=0.3))
    losses, found = [], []
    for wanted in (hidden, torch.ones_like(hidden)):
        counted = (hidden, hidden & events.time_valid, events.weight)
        terms = loss(net(*given, wanted), torch.stack(truth, -1), events.photons, *counted)
        losses.append(torch.stack(list(terms.values())))
        found.append(gradients(net, losses[-1]))
    assert_close(*losses, rtol=1e-5, atol=1e-6)
    for key, gradient in found[0].items():
        assert_close(gradient, found[1][key], rtol=1e-3, atol=1e-5)


def test_a_sensor_of_the_fine_grid_asks_its_own_cells(events: XecBatch) -> None:
    net = make("inpainter, faces, finegrid")
    head, faces = net.head.images["fine"], net.encoder.faces
    token, channels = torch.randn(2, 16), torch.randn(2, S, 4)
    cells = faces.image(channels, "fine")
    filled = head(token, cells)
    image, sensor = head.image(token, cells), faces.index("fine")
    for number in (4092, 4742, 4759, 4185):
        own = sensor == number
        assert own.sum() in (6, 15)
        share = head.score.view(sensor.shape)[own].softmax(0)
        expected = head.mlp((share.unsqueeze(-1) * image[:, own]).sum(1))
        assert_close(filled[:, own], expected.unsqueeze(1).expand(-1, int(own.sum()), -1))


@pytest.mark.parametrize("variance", ["none", "shared", "detached"])
def test_a_regressor_tells_each_target_and_its_variances(
    variance: Literal["none", "shared", "detached"], events: XecBatch
) -> None:
    assert {name: len(scale) for name, scale in SCALES.items()} == SIZES
    factor = 1 if variance == "none" else 2
    for name, size in SIZES.items():
        net = settle(XecRegressor(TINY, {name: variance}, 16))
        assert net(*seen(events)).shape == (3, factor * size)
    net = XecRegressor(TINY, dict.fromkeys(SIZES, variance), 16)
    assert net(*seen(events)).shape == (3, sum(SIZES.values()) * factor)


def test_a_detached_variance_does_not_train_the_encoder(events: XecBatch) -> None:
    net = make("regressor, finegrid")
    found = gradients(net, net(*seen(events))[:, 3:])
    trained = {key for key, gradient in found.items() if gradient.any()}
    head = "heads.position.head.log_variance"
    assert trained == {f"{head}.weight", f"{head}.bias"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_an_exported_network_gives_the_same_answer(
    events: XecBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra deploy")
    pytest.importorskip("onnxscript", reason="needs the extra deploy")
    for number in ("FIRST_BLOCKS", "LAST_BLOCKS", "HEX_BLOCKS"):  # the exporter takes its time
        monkeypatch.setattr(backbone, number, 1)
    # one network for all options, as the exporter takes a minute for each
    encoder = replace(GAT, hex_mixer="depthwise", outer="coarse", pos_embed="rotary")
    net, given = settle(XecInpainter(encoder, "sensors", 1, 8)), hide(seen(events))
    inputs = (*given, wanted_of(given, net))
    names = list(inspect.signature(net.forward).parameters)
    session = _write_onnx(Exported(net), inputs, names, tmp_path / "net.onnx", num_dynamic=1)
    none = [torch.zeros_like(x[:1]) for x in inputs]
    for batch in (inputs, [x[:1] for x in inputs], none):
        arrays = {name: x.numpy() for name, x in zip(names, batch, strict=True)}
        (found,) = session.run(None, arrays)
        assert_close(torch.from_numpy(found), net(*batch).detach(), rtol=1e-4, atol=1e-4)
