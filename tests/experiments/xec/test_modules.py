"""What the three tasks do with batches: mirrors, masks, units, encoders of other runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from experiments.xec.cases import TINY
from hepattn.data.error import DataError
from hepattn.data.xec import TRUTH, XecBatch, take
from hepattn.experiments.xec import baselines
from hepattn.experiments.xec.estimates import numbers
from hepattn.experiments.xec.inpaint import Inpainting
from hepattn.experiments.xec.mae import MaskedAutoencoder
from hepattn.experiments.xec.module import XecModule, mirrored
from hepattn.experiments.xec.pretrained import load_encoder
from hepattn.experiments.xec.regress import TargetOptions, Told, XecRegression
from hepattn.experiments.xec.regressor import SIZES, Target
from hepattn.experiments.xec.scaling import ScalingOptions
from hepattn.experiments.xec.targets import Reference, physical, scaled_target, true_target
from hepattn.experiments.xec.weighting import Weighting
from hepattn.losses.heteroscedastic import GaussianNLL
from hepattn.losses.regression import RegressionLoss
from hepattn.physics import xec
from hepattn.training.configs import ConfigError

S = xec.NUM_SENSORS
MIRRORS = {"z": (xec.mirror_z, 2), "y": (xec.mirror_y, 1)}
ALL: dict[Target, Callable[[], nn.Module]] = {
    "energy": GaussianNLL,
    "start": GaussianNLL,
    "position": GaussianNLL,
    "direction": lambda: RegressionLoss("cosine"),
    "angles": GaussianNLL,
}
COLUMNS: dict[Target, list[str]] = {
    "energy": ["energy"],
    "start": ["start"],
    "position": ["u", "v", "w"],
    "direction": ["direction_x", "direction_y", "direction_z"],
    "angles": ["theta", "phi"],
}


def sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.1)


def regression(*targets: Target, **options: Any) -> XecRegression:
    torch.manual_seed(0)
    learned = {name: TargetOptions(ALL[name]()) for name in targets or ALL}
    return XecRegression(TINY, learned, sgd, hidden=8, dropout=0.0, **options)


def filling(**options: Any) -> dict[str, XecModule]:
    torch.manual_seed(0)
    return {
        "mae": MaskedAutoencoder(TINY, sgd, decoder_width=8, **options),
        "inpaint": Inpainting(TINY, sgd, **options),
    }


def mirror(batch: XecBatch, name: str, flip: Tensor | None = None) -> XecBatch:
    permutation, axis = MIRRORS[name]
    flip = torch.ones(len(batch.index), dtype=torch.bool) if flip is None else flip
    return mirrored(batch, flip, torch.from_numpy(permutation().copy()), axis)


@pytest.mark.parametrize("name", MIRRORS)
def test_an_event_mirrored_twice_is_itself(name: str, events: XecBatch) -> None:
    once = mirror(events, name)
    assert not torch.equal(once.photons, events.photons)
    for field, ours, theirs in zip(XecBatch._fields, mirror(once, name), events, strict=True):
        assert torch.equal(ours, theirs), field


@pytest.mark.parametrize("name", MIRRORS)
def test_a_mirrored_event_is_where_geometry_says(name: str, events: XecBatch) -> None:
    other, axis = mirror(events, name), MIRRORS[name][1]
    sign = np.where(np.arange(3) == axis, -1.0, 1.0)
    position = xec.sensors().position
    for event in range(3):
        light = [
            np.where(x.valid[event], x.photons[event], 0.0).astype(np.float64)
            for x in (events, other)
        ]
        centre = [shown @ position / shown.sum() for shown in light]
        np.testing.assert_allclose(centre[1], centre[0] * sign, atol=1e-3)
    xyz = [xec.uvw_to_xyz(x.position.double().numpy()) for x in (events, other)]
    np.testing.assert_allclose(xyz[1], xyz[0] * sign, atol=1e-5)
    np.testing.assert_allclose(other.direction, events.direction * torch.tensor(sign))
    centroid = [baselines.centroid(x.photons, x.valid) for x in (events, other)]
    flipped = centroid[0] * torch.tensor([-1.0, 1.0] if axis == 2 else [1.0, -1.0])
    assert_close(centroid[1], flipped, rtol=1e-4, atol=1e-3)
    for field in ("energy", "start", "first_time", "weight", "run", "event"):
        assert torch.equal(getattr(other, field), getattr(events, field))


def test_only_flipped_events_change(events: XecBatch) -> None:
    flip = torch.tensor([True, False, True])
    some, every = mirror(events, "y", flip), mirror(events, "y")
    for ours, whole, plain in zip(some, every, events, strict=True):
        assert torch.equal(ours[flip], whole[flip])
        assert torch.equal(ours[~flip], plain[~flip])


def test_training_mirrors_events_unless_told_otherwise(
    events: XecBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[XecBatch] = []
    monkeypatch.setattr(
        "hepattn.training.module.BaseModule.training_step",
        lambda self, batch, _: seen.append(batch),
    )
    many = take(events, torch.zeros(200, dtype=torch.int64))
    for flag in (True, False):
        regression("energy", mirror=flag).training_step(many, 0)
    signs = torch.stack([seen[0].position[:, 0], seen[0].position[:, 1]], 1).sign()
    for axis in range(2):
        share = (signs[:, axis] != events.position[0, axis].sign()).float().mean()
        assert 0.35 < share < 0.65
    assert torch.equal(seen[1].position, many.position)


@pytest.mark.parametrize("task", ["mae", "inpaint"])
def test_masks_of_an_evaluation_depend_on_the_event_alone(task: str, events: XecBatch) -> None:
    module = filling()[task].eval()
    with torch.no_grad():
        together = module(events)
        backwards = module(take(events, torch.tensor([2, 1, 0])))
        alone = module(take(events, torch.tensor([1])))
    assert torch.equal(together.hidden[1], alone.hidden[0])
    assert torch.equal(together.hidden.flip(0), backwards.hidden)
    assert not torch.equal(together.hidden[0], together.hidden[1])
    assert not (together.hidden & ~events.valid).any()


def test_masks_differ_in_training(events: XecBatch) -> None:
    module = filling()["inpaint"].train()
    hidden = [module(events).hidden for _ in range(2)]
    assert not torch.equal(*hidden)


@pytest.mark.parametrize("task", ["mae", "inpaint"])
def test_the_network_does_not_see_what_is_hidden(
    task: str, events: XecBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = filling()[task].eval()
    expected = module(events)
    monkeypatch.setattr(module, "sampler", lambda *_: expected.hidden)
    photons, time = (torch.where(expected.hidden, 1e6, x) for x in events[:2])
    found = module(events._replace(photons=photons, time=time))
    assert torch.equal(found.scaled, expected.scaled)
    assert torch.equal(found.reference, expected.reference)


def reference_of(events: XecBatch) -> Reference:
    return Reference.of(events.photons, events.valid, torch.tensor([2.0, -1.0, 0.5]))


def test_every_target_is_tried() -> None:
    assert ALL.keys() == SIZES.keys()


@pytest.mark.parametrize("name", ALL)
def test_targets_and_their_scaled_numbers_are_inverse(name: Target, events: XecBatch) -> None:
    reference = reference_of(events)
    scaled = scaled_target(name, events, reference)
    assert scaled.shape == (3, SIZES[name])
    assert_close(physical(name, scaled, reference), true_target(name, events))
    there = getattr(events, "direction" if name == "angles" else name).view(3, -1)
    if name == "angles":
        there = torch.from_numpy(np.stack(xec.vector_to_angles(there.double().numpy()), -1))
    assert_close(true_target(name, events), there.float())


def test_references_read_visible_sensors_alone(events: XecBatch) -> None:
    time = torch.zeros(3)
    plain = Reference.of(events.photons, events.valid, time)
    for junk in (torch.nan, torch.inf, 1e30):
        photons = torch.where(events.valid, events.photons, junk)
        for ours, theirs in zip(Reference.of(photons, events.valid, time), plain, strict=True):
            assert torch.equal(ours, theirs)
    nothing = Reference.of(events.photons, torch.zeros_like(events.valid), time)
    assert all(field.isfinite().all() for field in nothing)
    assert (nothing.energy > 0).all()


def test_a_regression_that_tells_the_truth_has_no_residuals(events: XecBatch) -> None:
    module, reference = regression(), reference_of(events)
    parts = []
    for name in ALL:
        scaled = scaled_target(name, events, reference)
        parts += [scaled] if name == "direction" else [scaled, torch.zeros_like(scaled)]
    told = Told(torch.cat(parts, 1), reference)
    losses = module.losses(events, told)
    assert list(losses) == list(ALL)
    for loss in losses.values():
        assert loss.item() == pytest.approx(0, abs=1e-6)
    columns = module.predictions(events, told)
    for label in [label for labels in COLUMNS.values() for label in labels]:
        assert_close(columns[label], columns[f"true_{label}"], rtol=1e-5, atol=1e-5)
    assert_close(columns["energy"], events.energy)
    assert_close(columns["v"], events.position[:, 1], rtol=1e-5, atol=1e-5)
    clock = events.start.double() + events.first_time
    assert_close(columns["start"].double(), clock, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ALL if name != "direction"])
def test_told_errors_are_those_of_the_scaled_numbers(name: Target, events: XecBatch) -> None:
    module, reference = regression(name), reference_of(events)
    scaled = scaled_target(name, events, reference)
    spread = torch.full_like(scaled, 0.3)
    told = Told(torch.cat([scaled, 2 * spread.log()], 1), reference)
    columns = module.predictions(events, told)
    off = physical(name, scaled + spread, reference) - physical(name, scaled, reference)
    for place, label in enumerate(COLUMNS[name]):
        assert_close(columns[f"{label}_error"], off[:, place], rtol=1e-3, atol=1e-4)


def test_the_error_that_chooses_the_best_weights_sees_no_length_of_directions(
    events: XecBatch,
) -> None:
    module, reference = regression("direction"), reference_of(events)
    truth = scaled_target("direction", events, reference)
    for length in (0.2, 1.0, 50.0):
        told = Told(length * truth, reference)
        assert_close(module._errors(events, told), torch.zeros(len(truth)), atol=1e-6, rtol=0)


def test_figures_quote_per_cent_picoseconds_millimetres_and_milliradians() -> None:
    def found(name: Target, value: list[float], truth: list[float]) -> dict[str, float]:
        made = numbers(name, torch.tensor([value]), torch.tensor([truth]))
        return {n: float(estimate.value - estimate.truth) for n, estimate in made.items()}

    assert found("energy", [51.0], [50.0])["energy"] == pytest.approx(2.0, abs=1e-4)
    assert found("start", [1.5], [1.0])["start"] == pytest.approx(500)
    off = found("position", [0.0, 0.0, 5.3], [0.0, 0.0, 5.0])
    assert off["w"] == pytest.approx(3.0, abs=1e-4)
    assert off["distance"] == pytest.approx(3.0, abs=1e-3)
    turned = found("direction", [-1.0, 0.0, 0.01], [-1.0, 0.0, 0.0])
    assert turned["opening angle"] == pytest.approx(10.0, rel=1e-3)
    assert turned["theta"] == pytest.approx(-10.0, rel=1e-3)
    assert turned["phi"] == pytest.approx(0.0, abs=1e-4)
    assert found("angles", [1.51, 0.2], [1.5, 0.2])["opening angle"] == pytest.approx(10, rel=1e-3)


def test_weights_and_learned_variances_balance_targets(events: XecBatch) -> None:
    learned = {n: TargetOptions(ALL[n](), weight=w) for n, w in (("energy", 3.0), ("start", 0.5))}
    plain = regression("energy", "start")
    torch.manual_seed(0)
    module = XecRegression(TINY, learned, sgd, hidden=8, dropout=0.0, learned_weights=True)
    told = plain.eval()(events)
    with torch.no_grad():
        module.log_variance += torch.tensor([0.4, -0.6])
    expected, found = plain.losses(events, told), module.losses(events, told)
    for name, weight, spread in (("energy", 3.0, 0.4), ("start", 0.5, -0.6)):
        balanced = 0.5 * np.exp(-spread) * expected[name].item() + 0.5 * spread
        assert found[name].item() == pytest.approx(weight * balanced, rel=1e-5)


def test_dropped_channels_are_hidden_in_training_alone(events: XecBatch) -> None:
    module = regression("energy", channel_dropout=0.5)
    calls: list[tuple[Tensor, ...]] = []
    module.net.register_forward_pre_hook(lambda _, args: calls.append(args))
    module.train()(events)
    module.eval()(events)
    _, _, valid, time_valid = calls[0]
    assert not (valid & ~events.valid).any()
    assert not (time_valid & ~valid).any()
    assert 0.45 < (valid.sum() / events.valid.sum()).item() < 0.55
    assert torch.equal(calls[1][2], events.valid)


@pytest.mark.parametrize("name", ALL)
def test_training_without_the_truth_is_refused(name: Target, events: XecBatch) -> None:
    nothing = {field: torch.full_like(getattr(events, field), torch.nan) for field in TRUTH}
    unknown = events._replace(**nothing)
    module = regression(name).eval()
    told = module(unknown)
    with pytest.raises(DataError, match=f"need the truth, and events lack their {name}"):
        module.losses(unknown, told)
    assert not [label for label in module.predictions(unknown, told) if "true" in label]


def write(path: Path, module: XecModule) -> str:
    torch.save({"state_dict": module.state_dict()}, path)
    return str(path)


def test_an_encoder_is_taken_from_another_run(tmp_path: Path) -> None:
    trained = filling()["mae"]
    path = write(tmp_path / "mae.ckpt", trained)
    torch.manual_seed(1)
    module = regression("energy")
    torch.nn.init.normal_(module.net.encoder.hexagon.embed.weight)
    head = module.net.heads["energy"].head.mean.weight.clone()
    load_encoder(module.net.encoder, path)
    for key, value in trained.net.encoder.state_dict().items():
        ours = module.net.encoder.state_dict()[key]
        assert torch.equal(ours, value) if isinstance(value, Tensor) else ours == value, key
    assert torch.equal(module.net.heads["energy"].head.mean.weight, head)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 32}, "size mismatch"),
        ({"outer": "coarse"}, "size mismatch"),
        ({"attention": "se"}, "Missing key"),
        ({"scaling": ScalingOptions(photon_scale=10.0)}, "photon_scale=20000.0, here 10.0"),
        ({"scaling": ScalingOptions(sentinels=(-1.0, -1.0))}, "another scaling of the sensors"),
    ],
)
def test_an_encoder_of_another_kind_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "mae.ckpt", filling()["mae"])
    module = Inpainting(replace(TINY, **options), sgd)
    with pytest.raises(ConfigError, match=rf"(?s)mae.ckpt does not fit model.encoder: .*{message}"):
        load_encoder(module.net.encoder, path)


@pytest.mark.parametrize(
    "content", [{}, [1.0], {"state_dict": {"net.head.weight": torch.ones(1)}}, {"state_dict": {}}]
)
def test_a_checkpoint_of_something_else_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match=r"other.ckpt holds no encoder of this detector"):
        load_encoder(regression("energy").net.encoder, str(tmp_path / "other.ckpt"))
    with pytest.raises(DataError, match="there is no such file"):
        load_encoder(regression("energy").net.encoder, str(tmp_path / "nothing.ckpt"))


def test_a_frozen_encoder_stays_in_evaluation_and_out_of_the_optimiser() -> None:
    options = replace(TINY, dropout=0.3)
    module = Inpainting(options, sgd, encoder_ckpt="mae.ckpt", freeze_encoder=True)
    encoder = {id(p) for p in module.net.encoder.parameters()}
    assert not module.train().net.encoder.training
    assert not any(m.training for m in module.net.encoder.modules())
    assert module.net.head.training
    grouped = {id(p) for group in module.parameter_groups() for p in group["params"]}
    assert grouped
    assert not grouped & encoder
    with pytest.raises(ValueError, match="freeze_encoder=True needs the encoder_ckpt"):
        Inpainting(TINY, sgd, freeze_encoder=True)


def many_events(number: int = 4000) -> XecBatch:
    """Events whose distributions are far from flat; few sensors have anything to say."""
    generator = torch.Generator().manual_seed(1)
    draw = torch.rand((number, 8), generator=generator)
    direction = torch.nn.functional.normalize(draw[:, :3].pow(3) + 0.1, dim=1)
    nothing = torch.zeros(number, 2)
    numbered = torch.arange(number)
    return XecBatch(
        photons=draw[:, 3:5].pow(2) * 1000,
        time=nothing,
        valid=nothing == 0,
        time_valid=nothing == 0,
        energy=15 + 45 * draw[:, 5].pow(2),
        position=torch.stack([draw[:, 6], draw[:, 7], draw[:, 0]], 1).pow(1.5),
        direction=direction * torch.tensor([-1.0, 1.0, 1.0]),
        start=draw[:, 4].pow(2),
        first_time=draw[:, 0].double(),
        weight=torch.ones(number),
        run=numbered,
        event=numbered,
        index=numbered,
    )


def axes_of(variable: str, batch: XecBatch) -> np.ndarray:
    """What a distribution is of (B, axes)."""
    if variable == "light":
        return batch.photons.sum(1, keepdim=True).numpy()
    if variable == "direction":
        return np.stack(xec.vector_to_angles(batch.direction.numpy()), -1)
    return true_target(variable, batch).numpy()


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("variable", ["light", "energy", "start", "direction", "position"])
def test_weights_make_a_distribution_flat(variable: str, power: float) -> None:
    batch = many_events()
    num_bins = {"direction": 5, "position": 3}.get(variable, 8)
    weighed = Weighting(variable, num_bins, power).weigh(batch)
    axes = axes_of(variable, batch).astype(np.float64)
    edges = [np.linspace(x.min(), x.max() + 1e-9, num_bins + 1) for x in axes.T]
    plain, _ = np.histogramdd(axes, edges)
    total, _ = np.histogramdd(axes, edges, weights=weighed.weight.double().numpy())
    filled = plain > 0
    assert plain[filled].max() > 3 * plain[filled].min()
    np.testing.assert_allclose(
        total[filled] / total.sum(),
        plain[filled] ** (1 - power) / (plain[filled] ** (1 - power)).sum(),
        rtol=0.02,
    )
    assert weighed.weight.mean().item() == pytest.approx(1, rel=1e-5)


def test_weights_need_the_truth(events: XecBatch) -> None:
    unknown = events._replace(energy=torch.full((3,), torch.nan))
    with pytest.raises(DataError, match=r"data.weighting wants energy, which these events lack"):
        Weighting("energy").weigh(unknown)
    assert Weighting("light").weigh(unknown).weight.isfinite().all()
    alike = Weighting("energy", 4).weigh(events._replace(energy=torch.full((3,), 52.8)))
    assert_close(alike.weight, torch.ones(3))
