"""Jet tagging from the command line, on simulated and on real jets."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hepattn import cli
from hepattn.data.error import DataError
from hepattn.data.jets import JetBatch
from hepattn.experiments.jets import tag
from hepattn.experiments.jets.data import JetData
from hepattn.experiments.jets.tag import JetTagger, Pretrained
from hepattn.losses.classification import CrossEntropy
from hepattn.models.particle_flow import ParticleFlowNetwork
from hepattn.models.particle_net import ParticleNet
from hepattn.nn.attention import Attention
from hepattn.physics import four_vector
from hepattn.simulate.jets import CLASSES, JetConfig, simulate_jets

GOLDEN_LOSS = 2.32973
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
REAL = {
    "jetclass/JetClass_small500_p4.root": ("kin",),
    "jetclass/JetClass_top200_full.root": ("kin", "full"),
    "toptagging/test_1000.parquet": ("kin",),
    "toptagging/test_500.h5": ("kin",),
    "quarkgluon/qg_1000.npz": ("kin",),
}


@pytest.fixture(scope="module")
def simulated(simulated_cache: Path) -> Path:
    """A cache with the jets of all these tests."""
    data = JetData(num_simulated=200)
    data.prepare_data()
    return simulated_cache


def run(command: str, root: Path, *options: str, config: str = "pfn.yaml") -> None:
    args = [command, "--config", config, *QUIET, "--run.root", str(root), *options]
    args += ["--data.num_simulated", "200", "--data.batch_size", "32"]
    args += ["--trainer.log_every_n_steps", "1"]
    assert cli.main(["jets/tag", *args]) == 0


@pytest.fixture(scope="module")
def trained(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the particle flow network, trained for one epoch and tested."""
    root = tmp_path_factory.mktemp("runs")
    run("fit", root, "--trainer.max_epochs", "1")
    run("test", root)
    return root / "pfn"


def test_test_writes_figures_and_plots(trained: Path) -> None:
    folder = trained / "eval" / "test"
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["classes"] == list(CLASSES)
    assert np.sum(figures["confusion"]) == figures["num_jets"]
    share = np.trace(figures["confusion"]) / figures["num_jets"]
    assert figures["accuracy"]["value"] == pytest.approx(share)
    for plot in ("roc.png", "confusion.png"):
        assert (folder / plot).stat().st_size > 10_000


def test_predict_writes_the_scores_of_every_jet_in_order(trained: Path) -> None:
    run("predict", trained.parent)
    table = pq.read_table(trained / "eval" / "predict" / "predictions.parquet")
    assert table["jet"].to_pylist() == list(range(200))
    scores = np.stack([table[f"score_{name}"].to_numpy() for name in CLASSES], 1)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    tested = pq.read_table(trained / "eval" / "test" / "predictions.parquet")
    rows = tested["jet"].to_numpy()
    assert 0 < len(rows) < 200
    np.testing.assert_allclose(tested["score_QCD"].to_numpy(), scores[rows, 0], atol=1e-5)
    label = table["label"].to_numpy()
    assert sorted(set(label.tolist())) == list(range(10))


def test_a_run_writes_its_split_down(trained: Path) -> None:
    rule = json.loads((trained / "split.json").read_text())
    assert rule == {"fractions": [0.8, 0.1, 0.1], "seed": 0, "offset": 0.0}


def test_jets_that_stream_give_the_figures_of_jets_in_memory(trained: Path) -> None:
    run("test", trained.parent, "--data.in_memory", "false")
    figures = [
        json.loads((trained / "eval" / name / "metrics.json").read_text())
        for name in ("test", "test_2")
    ]
    assert figures[0] == figures[1]


def test_loss_of_the_first_steps_is_the_golden_one(simulated: Path, tmp_path: Path) -> None:
    options = ["--data.num_simulated", "200", "--run.root", str(tmp_path)]
    tagging = tag.run(
        JetTagger,
        JetData,
        links=tag.LINKS,
        data_links=tag.DATA_LINKS,
        args=["fit", "--config", "pfn.yaml", *QUIET, *options, "--trainer.fast_dev_run", "2"],
    )
    loss = float(tagging.trainer.callback_metrics["train/loss"])
    assert loss == pytest.approx(GOLDEN_LOSS, abs=2e-4)


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "features"), [(file, name) for file, names in REAL.items() for name in names]
)
def test_real_jets_train_two_steps(
    file: str, features: str, data_dir: Path, tmp_path: Path
) -> None:
    options = ["--data.path", str(data_dir / file), "--data.features", features]
    run("fit", tmp_path, *options, "--trainer.fast_dev_run", "2")


@pytest.mark.data
def test_features_that_a_source_lacks_are_named(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data.path", str(data_dir / "toptagging" / "test_500.h5")]
    with pytest.raises(SystemExit) as stopped:
        run("fit", tmp_path, *options, "--trainer.fast_dev_run", "2")
    assert stopped.value.code == 1
    assert "part_charge" in capsys.readouterr().err


@pytest.mark.data
def test_published_weights_tag_real_jets_as_the_published_network(
    data_dir: Path, tmp_path: Path
) -> None:
    weaver = pytest.importorskip("weaver.nn.model.ParticleNet")
    file = data_dir / "jetclass" / "JetClass_small500_p4.root"
    weights = data_dir / "weights" / "ParticleNet_kin.pt"
    options = ["--data.path", str(file), "--data.features", "kin"]
    options += ["--data.split", "[0.0,0.0,1.0]", "--model.pretrained.path", str(weights)]
    options += ["--model.pretrained.new_head", "false"]
    run("test", tmp_path, *options, config="particlenet.yaml")
    folder = tmp_path / "particlenet" / "eval" / "test"
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["num_jets"] == 500
    assert figures["accuracy"]["value"] == pytest.approx(0.718)

    data = JetData(features="kin", path=str(file), split=(0.0, 0.0, 1.0), batch_size=60)
    batch = next(iter(data.test_dataloader()))
    theirs = weaver.ParticleNet(
        input_dims=7,
        num_classes=10,
        conv_params=[(16, (64, 64, 64)), (16, (128, 128, 128)), (16, (256, 256, 256))],
        fc_params=[(256, 0.1)],
        use_fusion=False,
        use_fts_bn=True,
        use_counts=True,
    ).eval()
    state = torch.load(weights, map_location="cpu", weights_only=True)
    theirs.load_state_dict({key.removeprefix("mod."): value for key, value in state.items()})
    net = ParticleFlowNetwork(data.features, 10)
    inputs = net.normalise(batch.particles, batch.valid).transpose(1, 2)
    mask = batch.valid.unsqueeze(1)
    places = batch.particles[..., -2:].transpose(1, 2)
    with torch.no_grad():
        expected = theirs(places, inputs, mask=mask).softmax(-1).numpy()
    table = pq.read_table(folder / "predictions.parquet")
    ours = np.stack([table[f"score_{name}"].to_numpy() for name in CLASSES], 1)[:60]
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_test_parts_of_all_folds_are_the_whole(simulated: Path) -> None:
    rows = []
    for fold in range(5):
        data = JetData(features="kin", num_simulated=200, split=(0.7, 0.1, 0.2), fold=fold)
        parts = [data.split().part(name) for name in ("train", "val", "test")]
        held = [np.flatnonzero(part.holds(np.arange(200))) for part in parts]
        assert sorted(np.concatenate(held).tolist()) == list(range(200))
        rows += held[2].tolist()
    assert sorted(rows) == list(range(200))


@pytest.fixture(scope="module")
def two_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two files of forty simulated jets, the classes one after the other."""
    folder = tmp_path_factory.mktemp("jets")
    files = simulate_jets(folder, 80, JetConfig(shard_size=40), progress=False)
    return [str(file) for file in files]


def num_jets(loader: DataLoader[JetBatch]) -> int:
    return sum(len(batch.label) for batch in loader)


def test_parts_with_files_of_their_own_leave_the_rest_to_training(two_files: list[str]) -> None:
    path, other = two_files
    data = JetData(features="kin", path=path, test_path=other, split=(0.6, 0.2, 0.2))
    assert data.fractions == pytest.approx((0.75, 0.25, 0.0))
    assert num_jets(data.train_dataloader()) + num_jets(data.val_dataloader()) == 40
    assert num_jets(data.test_dataloader()) == 40


def test_a_file_for_training_and_test_is_refused(two_files: list[str]) -> None:
    folder = str(Path(two_files[0]).parent)
    data = JetData(features="kin", path=folder, test_path=two_files[1])
    with pytest.raises(DataError, match=r"jets_0001.root is among the training and the evaluation"):
        data.test_dataloader()


def test_a_fold_beyond_the_last_is_refused() -> None:
    with pytest.raises(DataError, match=r"data.fold=5 must be below 5: the test share .* is 0.2"):
        JetData(split=(0.7, 0.1, 0.2), fold=5)
    with pytest.raises(DataError, match=r"data.fold=1 must be below 1"):
        JetData(test_path="other.root", fold=1)


@pytest.mark.parametrize("in_memory", [True, False])
def test_validation_mixes_the_files_alike_every_time(two_files: list[str], in_memory: bool) -> None:
    data = JetData(
        features="kin",
        path=two_files,
        split=(0.0, 1.0, 0.0),
        in_memory=in_memory,
        batch_size=20,
        buffer_size=80,
    )
    rows = [next(iter(data.val_dataloader())).index for _ in range(2)]
    assert torch.equal(*rows)
    assert 3 < (rows[0] < 40).sum() < 17


@pytest.mark.parametrize("classes", [("QCD", "Tbqq"), ("Tbqq", "QCD")])
def test_simulated_classes_are_labelled_in_the_order_asked_for(
    simulated_cache: Path, classes: tuple[str, str]
) -> None:
    data = JetData(features="kin", simulation=JetConfig(classes=classes), num_simulated=200)
    data.prepare_data()
    batch = next(iter(JetData.predict_dataloader(data)))
    mass = four_vector.mass(batch.vectors.sum(1))
    assert data.classes == data.source.classes == classes
    medians = [float(mass[batch.label == number].median()) for number in range(2)]
    assert medians[classes.index("Tbqq")] > 130 > medians[classes.index("QCD")]


def test_jets_that_are_left_out_do_not_stop_the_training(two_files: list[str]) -> None:
    data = JetData(features="kin", path=two_files, split=(1.0, 0.0, 0.0), batch_size=80)
    batch = next(iter(data.train_dataloader()))
    bad = torch.arange(80) < 3
    batch = batch._replace(label=batch.label.where(~bad, -1), weight=(~bad).float())
    tagger = make_tagger(None, num_classes=10)
    rest = JetBatch(*(field[3:] for field in batch))
    with torch.no_grad():
        losses = [tagger.losses(some, tagger(some))["class"] for some in (batch, rest)]
    assert float(losses[0]) == pytest.approx(float(losses[1]))


def test_files_of_other_classes_are_refused(simulated: Path, data_dir: Path) -> None:
    top = str(data_dir / "toptagging" / "test_500.h5")
    data = JetData(features="kin", num_simulated=200, test_path=top)
    with pytest.raises(DataError, match=r"classes: found QCD, top, expected QCD, Hbb"):
        data.test_dataloader()


def test_training_jets_are_weighted_to_be_flat_in_pt(simulated: Path) -> None:
    data = JetData(features="kin", num_simulated=200, pt_edges=(500.0, 700.0, 1000.0))
    weight = torch.cat([batch.weight for batch in data.train_dataloader()])
    assert weight.unique().numel() > 5
    assert weight.mean() == pytest.approx(1, abs=0.1)
    assert all((batch.weight == 1).all() for batch in data.val_dataloader())


def make_tagger(pretrained: Pretrained | None, num_classes: int = 2, **options: Any) -> JetTagger:
    return JetTagger(
        features="kin",
        num_classes=num_classes,
        net=lambda features, classes: ParticleFlowNetwork(features, classes, (8, 8), (8,)),
        loss=CrossEntropy(),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
        pretrained=pretrained,
        **options,
    )


def test_the_head_of_a_pretrained_network_learns_faster() -> None:
    tagger = make_tagger(Pretrained(path="weights.pt", head_lr_factor=50.0))
    optimizer = tagger.configure_optimizers()
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    head = {id(p) for p in tagger.net.head.parameters()}
    assert {rates[p] for p in head} == {5.0}
    assert {rate for p, rate in rates.items() if p not in head} == {0.1}
    assert len(rates) == len(list(tagger.parameters()))


def test_statistics_of_a_pretrained_network_stay() -> None:
    def make(features: Any, classes: int) -> ParticleNet:
        return ParticleNet(features, classes, 4, ((8,),), 8)

    for stay in (True, False):
        given = Pretrained(path="weights.pt", freeze_statistics=stay)
        tagger = JetTagger("kin", 2, make, CrossEntropy(), torch.optim.SGD, pretrained=given)
        norms = {type(m).__name__: m.training for m in tagger.train().net.modules()}
        assert norms["MaskedBatchNorm"] is not stay
        assert norms["Dropout"]


def test_a_frozen_network_trains_its_head_alone() -> None:
    tagger = make_tagger(Pretrained(path="weights.pt", freeze=True)).train()
    trainable = {name for name, p in tagger.net.named_parameters() if p.requires_grad}
    assert trainable == {"head.weight", "head.bias"}
    assert not tagger.net.particles.training
    assert tagger.net.head.training


def test_training_starts_from_a_run_with_other_classes(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = next((trained / "ckpts").glob("*.ckpt"))
    options = ["--model.pretrained.path", str(checkpoint), "--trainer.max_epochs", "1"]
    options += ["--data.simulation.classes", "[QCD,Tbqq]", "--model.optimizer.init_args.lr", "0.0"]
    run("fit", tmp_path, *options, "--run.name", "tuned")
    saved = next((tmp_path / "tuned" / "ckpts").glob("*.ckpt"))
    ours, theirs = (
        torch.load(file, weights_only=True)["state_dict"] for file in (saved, checkpoint)
    )
    shared = [key for key, value in ours.items() if isinstance(value, Tensor) and "head" not in key]
    assert len(shared) > 5
    assert all(torch.equal(ours[key], theirs[key]) for key in shared)
    assert ours["net.head.weight"].shape[0] == 2


def test_statistics_stay_through_a_training(two_files: list[str], tmp_path: Path) -> None:
    options = ["--model.net.num_neighbours", "4", "--model.net.widths", "[[8]]"]
    options += ["--model.net.dense_dim", "8", "--data.path", two_files[0]]
    options += ["--trainer.max_epochs", "1", "--trainer.num_sanity_val_steps", "0"]
    run("fit", tmp_path, *options, "--run.name", "first", config="particlenet.yaml")
    first = tmp_path / "first" / "ckpts" / "last.ckpt"
    options += ["--model.pretrained.path", str(first)]
    run("fit", tmp_path, *options, "--run.name", "second", config="particlenet.yaml")
    second = tmp_path / "second" / "ckpts" / "last.ckpt"
    before, after = (torch.load(file, weights_only=True)["state_dict"] for file in (first, second))
    statistics = [key for key in before if "running_" in key]
    assert len(statistics) > 3
    assert all(torch.equal(before[key], after[key]) for key in statistics)
    assert not torch.equal(before["net.dense.weight"], after["net.dense.weight"])


def test_finetuning_without_weights_warns(simulated: Path, tmp_path: Path) -> None:
    options = ["--model.net", "hepattn.models.particle_flow.ParticleFlowNetwork"]
    with pytest.warns(UserWarning, match=r"no model.pretrained.path is given"):
        run("fit", tmp_path, *options, "--trainer.fast_dev_run", "1", config="finetune.yaml")


def test_attention_backend_reaches_every_layer(simulated: Path, tmp_path: Path) -> None:
    options = ["--data.num_simulated", "200", "--run.root", str(tmp_path), *QUIET]
    options += ["--model.attention_backend", "sdpa", "--trainer.fast_dev_run", "1"]
    options += ["--model.net.init_args.depth", "1", "--data.batch_size", "4"]
    tagging = tag.run(
        JetTagger,
        JetData,
        links=tag.LINKS,
        data_links=tag.DATA_LINKS,
        args=["fit", "--config", "part.yaml", *options],
    )
    layers = [m for m in tagging.model.modules() if isinstance(m, Attention)]
    assert len(layers) == 3
    assert {layer.options.backend for layer in layers} == {"sdpa"}


def test_attention_backend_without_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="ParticleFlowNetwork has no attention layers"):
        make_tagger(None, attention_backend="sdpa")


def test_jets_without_labels_are_refused_in_training() -> None:
    tagger = make_tagger(None)
    logit = torch.zeros(2, 2)
    nothing = torch.zeros(2, 0)
    jets = JetBatch(nothing, nothing, nothing.bool(), torch.tensor([0, -1]), torch.ones(2), nothing)
    with pytest.raises(DataError, match="need labels, and some jets have none"):
        tagger.losses(jets, logit)
    assert math.isfinite(tagger.losses(jets._replace(label=torch.tensor([0, 1])), logit)["class"])
