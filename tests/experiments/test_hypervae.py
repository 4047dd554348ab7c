"""Jet generation from the command line: train, generate, evaluate."""

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hepattn import cli
from hepattn.data.jets import open_jets
from hepattn.experiments.hypervae import evaluate, generate, train
from hepattn.experiments.hypervae.baselines import resample_particles
from hepattn.experiments.hypervae.data import HypergraphData
from hepattn.experiments.hypervae.latent import latent_figures
from hepattn.experiments.hypervae.train import JetGenerator
from hepattn.training.load import load_run

GOLDEN_LOSS = 70.5826
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
TINY = ["--data.num_simulated", "300", "--data.batch_size", "32"]


@pytest.fixture(scope="module")
def trained(simulated_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    root = tmp_path_factory.mktemp("runs")
    args = ["fit", "--config", "hypervae_slim.yaml", *QUIET, *TINY, "--run.root", str(root)]
    args += ["--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1"]
    assert cli.main(["hypervae/train", *args]) == 0
    return root / "hypervae_slim"


@pytest.fixture(scope="module")
def generated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generated") / "jets.h5"
    args = [str(trained), str(path), "--num_jets", "90", "--batch_size", "40"]
    assert cli.main(["generate-jets", *args]) == 0
    return path


def test_generated_files_are_jets_in_physical_units(generated: Path) -> None:
    source = open_jets(generated)
    assert source.classes == ("g", "q", "t")
    table = source.read(0, source.num_jets)
    assert table.label.tolist() == [0, 1, 2] * 30
    assert (table.counts >= 1).all()
    pt = np.hypot(table.sum_of_particles("part_px"), table.sum_of_particles("part_py"))
    np.testing.assert_allclose(pt, table.jets["jet_pt"], rtol=1e-3)
    assert 300 < np.median(pt) < 1500
    with h5py.File(generated) as file:
        particles, jets = file["particle_features"][:], file["jet_features"][:]
        assert list(file["particle_features"].attrs["names"]) == [
            "etarel", "phirel", "ptrel", "mask",
        ]  # fmt: skip
    mask = particles[..., 3] > 0.5
    assert (mask[:, 1:] <= mask[:, :-1]).all()
    assert (particles[~mask] == 0).all()
    np.testing.assert_array_equal(mask.sum(1), jets[:, 4])
    assert (np.diff(np.where(mask, particles[..., 2], 0), axis=1) <= 1e-6).all()


@pytest.mark.slow
def test_test_writes_the_state_of_the_latent_space_and_where_jets_are_in_it(
    trained: Path,
) -> None:
    args = ["test", "--config", "hypervae_slim.yaml", *QUIET, *TINY]
    assert cli.main(["hypervae/train", *args, "--run.root", str(trained.parent)]) == 0
    folder = trained / "eval" / "test"
    figures = json.loads((folder / "metrics.json").read_text())
    assert {"w1_mass", "w1_particles", "w1_count", "active_dimensions"} <= set(figures)
    assert len(figures["latent"]["kl"]) == len(figures["latent"]["variance"]) == 16
    table = pq.read_table(folder / "predictions.parquet")
    assert table.num_rows == figures["num_jets"]
    assert "latent_15" in table.column_names
    assert (folder / "jets.png").stat().st_size > 10_000


def test_the_same_seed_generates_the_same_jets(trained: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.h5" for name in "abc"]
    for path, seed in zip(files, ("1", "1", "2"), strict=True):
        generate.main([str(trained), str(path), "--num_jets", "9", "--seed", seed])
    first, again, other = (h5py.File(path)["particle_features"][:] for path in files)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_only_the_types_asked_for_are_generated(trained: Path, tmp_path: Path) -> None:
    generate.main([str(trained), str(tmp_path / "t.h5"), "--num_jets", "5", "--types", "t"])
    assert open_jets(tmp_path / "t.h5").read(0, 5).label.tolist() == [2] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--types", "b"], "types=['b']: the run knows g, q, t"),
        (["--num_jets", "0"], "num_jets=0"),
    ],
)
def test_wrong_options_of_the_generation_are_named(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit):
        generate.main([str(trained), str(tmp_path / "x.h5"), *options])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_evaluation_compares_with_truth_beside_truth(
    generated: Path, simulated_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = HypergraphData(num_simulated=300)
    truth = str(data.source.files[0])
    args = [str(generated), "--truth", truth, "--out", str(tmp_path), "--fast"]
    assert cli.main(["evaluate-jets", *args]) == 0
    figures = json.loads((tmp_path / "metrics.json").read_text())["types"]
    assert set(figures) == {"g", "q", "t"}
    for rows in figures.values():
        assert set(rows) == {"truth", "jets", "independent particles"}
        assert {"w1_mass", "w1_particles", "w1_efp", "w1_count", "fpd", "kpd"} <= set(rows["jets"])
        assert all(row["w1_mass"]["value"] > 0 for row in rows.values())
    assert (tmp_path / "jets.png").stat().st_size > 10_000
    assert "30 jets against 30 true ones" in capsys.readouterr().out


def test_evaluation_names_what_it_cannot_compare(
    generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        evaluate.main([str(generated), "--truth", str(tmp_path / "none.h5")])
    assert "none.h5" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate.main([str(generated), str(generated), "--truth", str(generated)])
    assert "need different names" in capsys.readouterr().err


def test_a_checkpoint_carries_its_statistics(trained: Path, simulated_cache: Path) -> None:
    module = load_run(trained).module
    assert module.net.is_fitted
    data = HypergraphData(num_simulated=300, hypergraph=module.hypergraph)
    torch.testing.assert_close(module.net.energy_scale, data.statistics().energy_scale)


def test_loss_of_the_first_steps_is_the_golden_one(simulated_cache: Path, tmp_path: Path) -> None:
    options = [*QUIET, *TINY, "--run.root", str(tmp_path), "--trainer.fast_dev_run", "2"]
    ran = train.run(
        JetGenerator,
        HypergraphData,
        links=train.LINKS,
        data_links=train.DATA_LINKS,
        args=["fit", "--config", "hypervae_slim.yaml", *options],
    )
    loss = float(ran.trainer.callback_metrics["train/loss"])
    assert loss == pytest.approx(GOLDEN_LOSS, rel=2e-3)


def test_independent_particles_have_the_right_number_and_masses_without_tails(
    simulated_cache: Path,
) -> None:
    data = HypergraphData(num_simulated=300)
    data.prepare_data()
    true = evaluate.read_jets(str(data.source.files[0]), 30).by_type()["q"]
    drawn = resample_particles(true, 100, np.random.default_rng(0))
    assert set(drawn.valid.sum(1)) <= set(true.valid.sum(1))
    assert drawn.mass.std() < 0.8 * true.mass.std()  # many independent pairs average out


def test_latent_figures_tell_active_dimensions_and_a_wrong_prior() -> None:
    mean = torch.stack([torch.randn(5000), torch.zeros(5000), 0.5 + torch.randn(5000)], 1)
    log_variance = torch.tensor([-8.0, 0.0, -8.0]).expand(5000, -1)
    figures = latent_figures(mean, log_variance)
    assert figures.num_active == 2
    assert figures.mismatch == pytest.approx(0.5, abs=0.05)
    assert latent_figures(mean[:, :2], log_variance[:, :2]).mismatch < 0.1
