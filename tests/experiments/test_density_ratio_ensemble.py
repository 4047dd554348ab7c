"""Ensembles of density ratios, and the weights that a subtraction leaves."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import poisson
from torch import Tensor
from torch.testing import assert_close

from hepattn import cli
from hepattn.data.events import EventBatch, EventSplit, Selection
from hepattn.experiments.events.density_ratio import DensityRatio
from hepattn.experiments.events.ensemble import Ensemble, mean_log_ratio, relative_spread
from hepattn.experiments.events.subtraction import Subtraction, kept_share, quantiles_of_kept
from hepattn.losses.density_ratio import LSIF, Logistic
from hepattn.models.mlp import MLP
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature
from hepattn.training.load import load_run

pytestmark = pytest.mark.slow

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
FEW = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "8"]
FEW += ["--data.num_simulated", "1500", "--data.batch_size", "64"]


def run(command: str, root: Path, config: str, *options: str) -> None:
    args = ["events/density_ratio", command, "--config", config, "--run.root", str(root)]
    assert cli.main([*args, *QUIET, "--trainer.log_every_n_steps", "1", *options]) == 0


def events(index: Tensor, label: Tensor | None = None) -> EventBatch:
    """Events with one column and weights of around one."""
    num = len(index)
    return EventBatch(
        events=torch.randn(num, 1),
        vectors=torch.zeros(num, 0, 4),
        valid=torch.zeros(num, 0, dtype=torch.bool),
        objects=(),
        label=index % 2 if label is None else label,
        weight=torch.rand(num) + 0.5,
        auxiliary=torch.zeros(num, 0),
        index=index,
    )


def build(ensemble: Ensemble | None, **options: object) -> DensityRatio:
    schema = EventSchema((Feature("met"),))
    given = {"net": MLP, "loss": Logistic(), "optimizer": torch.optim.AdamW} | options
    return DensityRatio(schema, ("mc", "data"), (), ensemble=ensemble, **given)


def test_members_see_an_event_as_often_as_a_poisson_distribution_says() -> None:
    copies = Ensemble(num_members=4, poisson_bootstrap=True).copies(events(torch.arange(50_000)))
    for member in range(4):
        found = torch.bincount(copies[:, member].long(), minlength=6)[:6].double() / 50_000
        expected = torch.from_numpy(poisson.pmf(np.arange(6), 1.0))
        assert_close(found, expected, rtol=0, atol=0.01)
    correlation = torch.corrcoef(copies.T) - torch.eye(4)
    assert correlation.abs().max() < 0.025  # five standard deviations


def test_copies_depend_on_event_member_and_seed_alone() -> None:
    ensemble = Ensemble(num_members=3, poisson_bootstrap=True)
    whole = ensemble.copies(events(torch.arange(100)))
    some = torch.tensor([70, 3, 99])
    assert torch.equal(ensemble.copies(events(some)), whole[some])
    more = Ensemble(num_members=5, poisson_bootstrap=True).copies(events(torch.arange(100)))
    assert torch.equal(more[:, :3], whole)
    other = Ensemble(num_members=3, poisson_bootstrap=True, seed=1).copies(
        events(torch.arange(100))
    )
    assert not torch.equal(other, whole)


@pytest.mark.parametrize("part", ["train", "test"])
def test_copies_know_nothing_of_the_split(part: str) -> None:
    rows = np.arange(20_000)
    index = rows[EventSplit(column=None).part(part).holds({}, rows)]
    copies = Ensemble(num_members=2, poisson_bootstrap=True).copies(events(torch.from_numpy(index)))
    assert copies.mean() == pytest.approx(1, abs=5 / math.sqrt(copies.numel()))


def test_norms_of_the_named_class_are_log_normal() -> None:
    norms = Ensemble(num_members=4000, mc_norm_sigma={"mc": 0.2}).norms(("mc", "data"))
    assert torch.equal(norms[1], torch.ones(4000))
    assert norms[0].log().std() == pytest.approx(0.2, rel=0.06)
    assert norms[0].log().mean() == pytest.approx(0, abs=0.016)
    with pytest.raises(ValueError, match=r"names \['wjets'\], but the classes are"):
        Ensemble(mc_norm_sigma={"wjets": 0.1}).norms(("mc", "data"))


@pytest.mark.parametrize("training", [True, False])
def test_each_member_trains_on_its_own_loss(training: bool) -> None:
    ensemble = Ensemble(num_members=3, poisson_bootstrap=True, mc_norm_sigma={"mc": 0.5})
    module = build(ensemble).train(training)
    batch, f = events(torch.arange(40)), torch.randn(40, 3)
    copies, norms = ensemble.copies(batch), ensemble.norms(("mc", "data"))
    expected = 0.0
    for member in range(3):
        weight = batch.weight * torch.where(batch.label == 1, 1.0, norms[0, member])
        weight = weight * copies[:, member] if training else weight
        costs = torch.where(batch.label == 1, (1 + (-f[:, member]).exp()), (1 + f[:, member].exp()))
        expected += float((weight * costs.log()).sum() / weight.sum()) / 3
    assert float(module.losses(batch, f)["ratio"]) == pytest.approx(expected, rel=1e-5)


def test_without_options_members_differ_by_their_start_alone() -> None:
    module, batch = build(Ensemble(num_members=3)), events(torch.arange(40))
    f = torch.randn(40, 1)
    plain = build(None).losses(batch, f)["ratio"]
    assert_close(module.losses(batch, f.expand(-1, 3))["ratio"], plain)
    assert module.net(*module.network_inputs(batch)).std(1).min() > 0


def test_the_ratio_is_the_mean_of_the_members() -> None:
    module = build(Ensemble(num_members=3), loss=LSIF())
    outputs = 3 * torch.randn(20, 3, dtype=torch.float64)
    ratios = outputs.exp().log1p()  # of LSIF
    assert_close(mean_log_ratio(module.member_log_ratios(outputs)).exp(), ratios.mean(1))
    assert_close(relative_spread(ratios.log()), ratios.std(1) / ratios.mean(1))
    assert mean_log_ratio(torch.full((1, 3), 200.0)) == pytest.approx(200.0)


def test_an_event_without_copies_teaches_nothing_and_the_batch_is_not_skipped() -> None:
    ensemble = Ensemble(num_members=2, poisson_bootstrap=True)
    batch = events(torch.arange(40))
    module, f = build(ensemble), torch.zeros(40, 2, requires_grad=True)
    module.losses(batch, f)["ratio"].backward()
    assert torch.equal(f.grad != 0, ensemble.copies(batch) > 0)
    assert not module.loss.skipped


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_members": 1}, "num_members=1 must be at least 2"),
        ({"mc_norm_sigma": {"mc": 0.0}}, "mc_norm_sigma of mc=0.0 must be positive"),
    ],
)
def test_senseless_ensembles_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ensemble(**options)


def test_what_is_kept_is_data_less_simulation() -> None:
    """A data event stands for 1/r simulated ones, a simulated one for r of the data."""
    ratio = torch.tensor([0.5, 1.0, 4.0])
    assert_close(kept_share(ratio.log(), "data"), torch.tensor([0.0, 0.0, 0.75]))
    assert_close(kept_share(ratio.log(), "simulation"), torch.tensor([0.0, 0.0, 3.0]))


def test_quantiles_of_what_is_kept_are_of_each_class() -> None:
    kept, label = torch.rand(301, 2), torch.arange(301) % 3 % 2
    found = quantiles_of_kept(kept, label, 0.9)
    for place in range(2):
        own = kept[label == place]
        assert (own <= found[place]).double().mean() == pytest.approx(0.9, abs=0.006)
    assert quantiles_of_kept(kept, torch.zeros(301), 0.9)[1] == math.inf
    with pytest.raises(ValueError, match=r"weight_clip_quantile=1.0 must lie between"):
        Subtraction("a", "b", weight_clip_quantile=1.0)


def test_a_selection_includes_what_it_says_of_all_its_columns() -> None:
    whole, slice_ = Selection(), Selection(ranges={"pt": (20.0, 40.0)})
    part = Selection(values={"is_tight": [1]}, ranges={"pt": (25.0, 40.0)})
    assert whole.includes(slice_)
    assert slice_.includes(part)
    assert not slice_.includes(whole)
    assert not part.includes(slice_)
    assert not slice_.includes(Selection(ranges={"pt": (30.0, 50.0)}))
    assert not Selection(values={"is_tight": [0]}).includes(part)


@pytest.fixture(scope="module")
def prompt(simulated_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the prompt shares of the tight and of the loose region, ensembles of three."""
    root = tmp_path_factory.mktemp("prompt")
    options = [*FEW, "--model.ensemble.num_members", "3"]
    options += ["--model.ensemble.poisson_bootstrap", "true"]
    for name in ("fakes_numerator", "fakes_denominator"):
        run("fit", root, f"{name}.yaml", *options)
    return root


def subtraction(prompt: Path) -> list[str]:
    pairs = [(name, prompt / f"fakes_{name}") for name in ("numerator", "denominator")]
    return [part for name, path in pairs for part in (f"--model.subtraction.{name}", str(path))]


def test_an_ensemble_of_a_run_says_what_it_is_uncertain_of(prompt: Path) -> None:
    run("test", prompt, "fakes_denominator.yaml")
    folder = prompt / "fakes_denominator" / "eval" / "test"
    table = pq.read_table(folder / "predictions.parquet").to_pandas()
    members = table[[f"log_ratio_{member}" for member in range(3)]].to_numpy()
    ratios = np.exp(members.astype(float))
    np.testing.assert_allclose(np.exp(table["log_ratio"]), ratios.mean(1), rtol=1e-4)
    spread = ratios.std(1, ddof=1) / ratios.mean(1)
    np.testing.assert_allclose(table["spread"], spread, rtol=1e-2, atol=1e-5)
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["spread"] == pytest.approx(float(np.median(spread)), rel=0.05)
    assert 0 <= figures["within_spread"] <= 1
    assert figures["log_ratio_min"] <= figures["log_ratio_mean"] <= figures["log_ratio_max"]


def test_members_are_subtracted_one_from_one(prompt: Path, tmp_path: Path) -> None:
    options = [*FEW, *subtraction(prompt), "--model.ensemble.num_members", "3"]
    run("fit", tmp_path, "fakes_ratio.yaml", *options)
    run("test", tmp_path, "fakes_ratio.yaml")
    loaded = load_run(tmp_path / "fakes_ratio")
    module, batch = loaded.module, next(iter(loaded.test_batches()))
    loose, tight = (load_run(prompt / f"fakes_{n}").module for n in ("denominator", "numerator"))
    module.references = (loose, tight)
    with torch.no_grad():
        outputs = torch.where((batch.label == 1).unsqueeze(1), tight(batch), loose(batch))
    expected = batch.weight.unsqueeze(1) * (1 - (-outputs).exp()).clamp(min=0)
    assert_close(module.member_weights(batch), expected)
    assert_close(module.weights(batch), expected.mean(1))


def test_another_number_of_members_is_refused(
    prompt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*FEW, *subtraction(prompt), "--model.ensemble.num_members", "4"]
    with pytest.raises(SystemExit):
        run("fit", tmp_path, "fakes_ratio.yaml", *options)
    assert "has 3 members, this run 4" in capsys.readouterr().err


def test_simulation_is_weighed_by_what_is_left_and_high_weights_are_cut(
    prompt: Path, tmp_path: Path
) -> None:
    options = [*FEW, *subtraction(prompt), "--model.subtraction.of", "simulation"]
    options += ["--model.subtraction.weight_clip_quantile", "0.8"]
    options += ["--data.labels.classes", "{loose: [mc_loose], tight: [mc_tight]}"]
    run("fit", tmp_path, "fakes_ratio.yaml", *options)
    run("test", tmp_path, "fakes_ratio.yaml")
    loaded = load_run(tmp_path / "fakes_ratio")
    module, batch = loaded.module, loaded.data.dataset("train").batch
    loose, tight = (load_run(prompt / f"fakes_{n}").module for n in ("denominator", "numerator"))
    module.references = (loose, tight)
    with torch.no_grad():
        outputs = torch.where((batch.label == 1).unsqueeze(1), tight(batch), loose(batch))
    kept = (outputs.exp() - 1).clamp(min=0)
    for place in range(2):
        own = kept[batch.label == place]
        most = own.quantile(0.8, interpolation="nearest")
        assert 0 < most < own.max()
        found = (module.weights(batch) / batch.weight)[batch.label == place]
        assert_close(module.most_kept[place], most)
        assert_close(found, own.clamp(max=float(most)).mean(1))


def test_slices_have_a_run_each_and_know_their_events(
    prompt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for low, high in ((0, 40), (40, 10_000)):
        options = ["--data.selection.ranges.lepton_pt", f"[{low}, {high}]"]
        options += ["--run.name", f"slice_{low}"]
        run("fit", tmp_path, "fakes_denominator.yaml", *FEW, *options)
        run("predict", tmp_path, "fakes_denominator.yaml", *options)
        table = pq.read_table(tmp_path / f"slice_{low}/eval/predict/predictions.parquet")
        rows.append(set(table["event"].to_pylist()))
    assert rows[0]
    assert rows[1]
    assert not rows[0] & rows[1]
    assert rows[0] | rows[1] == set(range(1500))
    options = ["--model.subtraction.numerator", str(prompt / "fakes_numerator")]
    options += ["--model.subtraction.denominator", str(tmp_path / "slice_0")]
    with pytest.raises(SystemExit):
        run("fit", tmp_path, "fakes_ratio.yaml", *FEW, *options)
    assert "give a run that knows them" in capsys.readouterr().err
