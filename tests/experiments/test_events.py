"""Event classification and density ratios from the command line, on simulated and real events."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hepattn import cli
from hepattn.data.error import DataError
from hepattn.data.events import Labels
from hepattn.experiments.events import classify, density_ratio
from hepattn.experiments.events.classify import EventClassifier
from hepattn.experiments.events.data import EventData, Inputs
from hepattn.experiments.events.density_ratio import DensityRatio
from hepattn.experiments.events.summary import open_data
from hepattn.losses.classification import CrossEntropy
from hepattn.losses.density_ratio import Logistic
from hepattn.losses.event import EventBinaryCrossEntropy
from hepattn.models.mlp import MLP
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature
from hepattn.simulate.events import EventsConfig
from hepattn.training.load import load_run

GOLDEN_LOSS = 0.52103
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
SIZE = ["--data.num_simulated", "600", "--data.batch_size", "64"]
REAL = {"hzz": "events/uproot-HZZ.root", "ttbar": "events/example_1k.h5"}


def run(command: str, root: Path, *options: str, config: str = "mlp.yaml") -> None:
    name = "density_ratio" if config.startswith(("density", "fakes")) else "classify"
    args = [f"events/{name}", command, "--config", config, *QUIET, *SIZE, "--run.root", str(root)]
    assert cli.main([*args, "--trainer.log_every_n_steps", "1", *options]) == 0


@pytest.fixture(scope="module")
def trained(simulated_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a multi-layer perceptron, trained for one epoch and tested."""
    root = tmp_path_factory.mktemp("runs")
    options = ["--trainer.max_epochs", "1", "--data.auxiliary", "[m_jj]"]
    run("fit", root, *options)
    run("test", root)
    return root / "mlp"


def test_test_writes_figures_and_plots(trained: Path) -> None:
    folder = trained / "eval" / "test"
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["classes"] == ["background", "signal"]
    assert 0.5 < figures["auc"] <= 1
    assert 0 <= figures["distance_correlation"]["m_jj"] <= 1
    assert {"cut", "binned"} <= set(figures["significance"])
    plots = {path.stem for path in folder.glob("*.png")}
    assert figures["auc_one_against_rest"] == {}
    drawn = {"roc", "precision", "scores", "significance", "confusion", "reliability"}
    assert plots == drawn | {"sculpting_m_jj"}


@pytest.mark.slow
def test_each_of_several_classes_is_drawn_against_the_rest(
    simulated_cache: Path, tmp_path: Path
) -> None:
    few = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    few += ["--data.labels.classes", "{qcd: [qcd], top: [ttbar], signal: [x_to_bb, zprime_to_ll]}"]
    few += ["--model.loss", "hepattn.losses.classification.CrossEntropy"]
    run("fit", tmp_path, *few)
    run("test", tmp_path, *few)
    folder = tmp_path / "mlp" / "eval" / "test"
    areas = json.loads((folder / "metrics.json").read_text())["auc_one_against_rest"]
    assert list(areas) == ["qcd", "top", "signal"]
    assert all(0 <= area <= 1 for area in areas.values())
    drawn = {path.stem for path in folder.glob("*.png")}
    assert {"roc_one_against_rest", *(f"scores_{name}" for name in areas)} <= drawn


def test_predict_writes_the_scores_of_every_event_in_order(trained: Path) -> None:
    run("predict", trained.parent)
    table = pq.read_table(trained / "eval" / "predict" / "predictions.parquet")
    assert table["event"].to_pylist() == list(range(600))
    both = table["score_background"].to_numpy() + table["score_signal"].to_numpy()
    np.testing.assert_allclose(both, 1, atol=1e-6)
    assert table["m_jj"].to_numpy().max() > 100
    tested = pq.read_table(trained / "eval" / "test" / "predictions.parquet")
    rows = tested["event"].to_numpy()
    assert 0 < len(rows) < 600
    np.testing.assert_allclose(
        tested["score_signal"].to_numpy(), table["score_signal"].to_numpy()[rows], atol=1e-6
    )


def test_a_run_writes_its_split_down(trained: Path) -> None:
    rule = json.loads((trained / "split.json").read_text())
    assert [rule[part] for part in ("train", "val", "test", "calib")] == [0.7, 0.1, 0.1, 0.1]


def test_parts_are_disjoint_and_whole(trained: Path) -> None:
    data = load_run(trained).data
    rows = [data.dataset(part).batch.index for part in ("train", "val", "test", "calib")]
    assert torch.cat(rows).sort().values.tolist() == list(range(600))


def test_events_that_stream_give_the_figures_of_events_in_memory(trained: Path) -> None:
    run("test", trained.parent, "--data.in_memory", "false")
    old, new = (
        json.loads((trained / "eval" / name / "metrics.json").read_text())
        for name in ("test", "test_2")
    )
    assert old == new


def test_a_checkpoint_carries_the_statistics_of_its_training_events(trained: Path) -> None:
    loaded = load_run(trained)
    met = loaded.data.dataset("train").batch.events[:, 0].log1p()
    normalise = loaded.module.net.network.embedding.normalise
    torch.testing.assert_close(normalise.shift[0], met.mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(1 / normalise.scale[0], met.std(correction=0), rtol=1e-3, atol=0)


def test_a_calibrated_checkpoint_predicts_through_the_ordinary_command(trained: Path) -> None:
    assert cli.main(["calibrate", str(trained), "--method", "temperature"]) == 0
    calibrated = trained / "ckpts" / "best_calibrated.ckpt"
    run("predict", trained.parent, "--ckpt_path", str(calibrated))
    folder = max((trained / "eval").glob("predict*"), key=lambda path: path.stat().st_mtime)
    table = pq.read_table(folder / "predictions.parquet")
    module = load_run(trained, str(calibrated)).module
    scale = float(module.net.scaling.weight.squeeze())
    assert scale != 1
    plain = pq.read_table(trained / "eval" / "test" / "predictions.parquet")
    score = plain["score_signal"].to_numpy().astype(float)
    odds = scale * np.log(score / (1 - score))
    expected = 1 / (1 + np.exp(-odds))
    rows = plain["event"].to_numpy()
    np.testing.assert_allclose(table["score_signal"].to_numpy()[rows], expected, atol=1e-4)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_what_the_head_reads_is_drawn_in_two_dimensions(method: str, trained: Path) -> None:
    folder = trained / "eval" / method
    options = ["--method", method, "--num", "40", "--perplexity", "5", "--output", str(folder)]
    assert cli.main(["representation", str(trained), *options]) == 0
    table = pq.read_table(folder / "representation.parquet").to_pandas()
    tested = pq.read_table(trained / "eval" / "test" / "predictions.parquet").to_pandas()
    labels = tested.set_index("event")["label"]
    assert table["label"].tolist() == labels.loc[table["event"]].tolist()
    assert len(table) == 40
    assert table[["x", "y"]].std().min() > 0
    figures = json.loads((folder / "metrics.json").read_text())
    assert (figures["num_events"], figures["dim"]) == (40, 128)
    assert (folder / "representation.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num", "1"], "--num=1 must be at least 2"),
        (["--method", "tsne", "--num", "30"], "--num=30 must be at least 31"),
        (["--method", "umap"], "invalid choice: 'umap'"),
    ],
)
def test_wrong_options_of_the_representation_are_named(
    options: list[str], message: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["representation", str(trained), *options])
    assert message in capsys.readouterr().err


def test_statistics_from_a_file_are_those_of_the_training(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "columns.json"
    args = ["mlp.yaml", str(path), "--data.num_simulated", "600"]
    assert cli.main(["summarise-events", *args]) == 0
    own = load_run(trained).data.summaries()
    other = load_run(trained, overrides=["--data.statistics", str(path)]).data.summaries()
    torch.testing.assert_close(other["events"].quantiles, own["events"].quantiles)
    with pytest.raises(SystemExit):
        cli.main(["summarise-events", *args])


def test_loss_of_the_first_steps_is_the_golden_one(simulated_cache: Path, tmp_path: Path) -> None:
    options = ["--config", "particle_transformer_both.yaml", "--run.root", str(tmp_path)]
    trained = classify.run(
        EventClassifier,
        EventData,
        data_links=classify.DATA_LINKS,
        args=["fit", *options, *QUIET, *SIZE, "--trainer.fast_dev_run", "2"],
    )
    loss = float(trained.trainer.callback_metrics["train/loss"])
    assert loss == pytest.approx(GOLDEN_LOSS, rel=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["set_transformer.yaml", "particle_transformer.yaml"])
@pytest.mark.parametrize("name", REAL)
def test_real_events_train_and_are_evaluated(
    name: str, config: str, data_dir: Path, tmp_path: Path
) -> None:
    options = ["--config", f"sets/{name}.yaml", "--data.path", str(data_dir / REAL[name])]
    options += ["--run.name", "real"]
    few = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3"]
    run("fit", tmp_path, *options, *few, config=config)
    run("test", tmp_path, *options, config=config)
    figures = json.loads((tmp_path / "real" / "eval" / "test" / "metrics.json").read_text())
    assert 0 <= figures["auc"] <= 1
    assert figures["num_events"] > 50


@pytest.mark.slow
def test_ratio_of_a_run_is_close_to_the_true_one(simulated_cache: Path, tmp_path: Path) -> None:
    options = ["--data.num_simulated", "20000", "--data.batch_size", "128"]
    options += ["--trainer.max_epochs", "5", "--run.name", "ratio"]
    run("fit", tmp_path, *options, config="density_ratio.yaml")
    run("test", tmp_path, *options, config="density_ratio.yaml")
    folder = tmp_path / "ratio" / "eval" / "test"
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["ratio_error"] < 0.15
    assert figures["chi2_per_ndf_ht"] < 2
    assert {path.stem for path in folder.glob("*.png")} == {"closure", "ratio"}


@pytest.mark.slow
def test_prompt_events_are_subtracted_by_the_ratios_of_earlier_runs(
    simulated_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    few += ["--data.num_simulated", "1500"]
    for name in ("fakes_numerator", "fakes_denominator"):
        run("fit", tmp_path, *few, config=f"{name}.yaml")
    options = [*few, "--model.subtraction.numerator", str(tmp_path / "fakes_numerator")]
    options += ["--model.subtraction.denominator", str(tmp_path / "fakes_denominator")]
    run("fit", tmp_path, *options, config="fakes_ratio.yaml")
    run("test", tmp_path, config="fakes_ratio.yaml")
    loaded = load_run(tmp_path / "fakes_ratio")
    module, batch = loaded.module, next(iter(loaded.test_batches()))
    tight, loose = (load_run(tmp_path / f"fakes_{n}").module for n in ("numerator", "denominator"))
    for reference, log_ratio in ((tight, 1.0), (loose, -0.5)):  # prompt: 1 / e, and more than all
        reference.member_log_ratios = lambda outputs, known=log_ratio: outputs.new_full(
            (len(outputs), 1), known
        )
    module.references = (loose, tight)
    expected = torch.where(batch.label == 1, 1 - 1 / torch.e, 0.0) * batch.weight
    torch.testing.assert_close(module.weights(batch), expected)
    swapped = ["--model.subtraction.numerator", str(tmp_path / "fakes_denominator")]
    swapped += ["--model.subtraction.denominator", str(tmp_path / "fakes_numerator")]
    with pytest.raises(SystemExit):
        run("fit", tmp_path, *few, *swapped, "--run.name", "swapped", config="fakes_ratio.yaml")
    assert "are the two runs swapped?" in capsys.readouterr().err


def test_options_that_do_not_fit_are_refused() -> None:
    schema = EventSchema((Feature("met"),))
    given = {"net": MLP, "loss": EventBinaryCrossEntropy(), "optimizer": torch.optim.AdamW}
    with pytest.raises(ValueError, match="classification needs two classes at least"):
        EventClassifier(schema, ("one",), (), **given)
    with pytest.raises(ValueError, match=r"signal=\['other'\] must be some of the classes"):
        EventClassifier(schema, ("a", "b"), (), signal=("other",), **given)
    with pytest.raises(ValueError, match="output"):
        EventClassifier(schema, ("a", "b", "c"), (), **given)
    with pytest.raises(ValueError, match="sdpa_kernels"):
        EventClassifier(schema, ("a", "b"), (), sdpa_kernels=[], **given)
    with pytest.raises(ValueError, match="a density ratio is of two classes"):
        DensityRatio(schema, ("a", "b", "c"), (), **(given | {"loss": Logistic()}))
    with pytest.raises(ValueError, match="truth=log_ratio must be one of"):
        DensityRatio(schema, ("a", "b"), (), truth="log_ratio", **(given | {"loss": Logistic()}))


def test_two_classes_have_one_output_and_more_have_one_each() -> None:
    schema = EventSchema((Feature("met"),))
    losses = (EventBinaryCrossEntropy(), CrossEntropy())
    for classes, num_outputs, loss in ((("a", "b"), 1, losses[0]), (("a", "b", "c"), 3, losses[1])):
        module = EventClassifier(schema, classes, (), MLP, loss, torch.optim.AdamW)
        assert module.net.network.head.out_features == num_outputs


def test_what_the_network_gets_is_what_use_says() -> None:
    both = EventData()
    assert both.schema.events
    assert set(both.schema.objects) == {"jets", "electrons", "muons"}
    assert not EventData(use="objects").schema.events
    assert not EventData(use="events").schema.objects


def test_unknown_inputs_are_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match="did you mean 'search'"):
        EventData(inputs="serch")


def test_a_column_that_is_not_there_is_named(simulated_cache: Path) -> None:
    inputs = Inputs(events=(Feature("met"), Feature("sphericity")))
    data = EventData(inputs=inputs, simulation=EventsConfig(), num_simulated=600)
    data.prepare_data()
    with pytest.raises(DataError, match="no sphericity"):
        data.dataset("train")


def test_a_misspelt_option_of_a_network_is_named(
    simulated_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["fit", "--config", "mlp.yaml", "--model.net.init_args.hiden", "[8]"]
    with pytest.raises(SystemExit):
        cli.main(["events/classify", *args, "--run.root", str(tmp_path)])
    assert "hiden" in capsys.readouterr().err


def test_data_of_a_config_opens_alone() -> None:
    data = open_data("density_ratio.yaml", ["--data.num_simulated", "10"])
    assert data.classes == ("denominator", "numerator")
    assert density_ratio.CONFIG == "density_ratio.yaml"


def test_a_class_without_training_events_is_refused(simulated_cache: Path) -> None:
    labels = Labels(classes={"background": ["qcd"], "signal": [77]})
    data = EventData(labels=labels, num_simulated=600)
    data.prepare_data()
    with pytest.raises(DataError, match="none of signal"):
        data.train_dataloader()


def test_classes_keep_their_order_in_a_run_that_is_opened_again(trained: Path) -> None:
    assert load_run(trained).data.classes == ("background", "signal")
    options = ["--data.labels.classes", "{signal: [x_to_bb], background: [qcd]}"]
    assert load_run(trained, overrides=options).data.classes == ("signal", "background")
