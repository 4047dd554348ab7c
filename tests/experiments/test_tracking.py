"""Tracking from the command line: fit, test and predict, on simulated and real events."""

# H hits

import csv
import json
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from data.make_trackml import rows_of
from hepattn import cli
from hepattn.data.trackml import ParticleSelection, make_targets, open_events, write_submission
from hepattn.experiments.trackml import tracking
from hepattn.experiments.trackml.data import TrackMLData
from hepattn.experiments.trackml.score import score
from hepattn.experiments.trackml.tracking import LINKS, Tracking, main
from hepattn.nn.normalise import Feature
from hepattn.simulate.tracker import TrackerConfig, simulate_events
from hepattn.training.cli import run
from hepattn.training.figures import save_figure

pytestmark = pytest.mark.slow

DATA = ["--data.num_simulated", "6", "--data.batch_size", "2"]
DATA += ["--data.simulation.num_particles", "50"]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1"]
SMALL = ["--config", "tracking.yaml", *DATA, *QUIET]
GOLDEN_LOSS = 4.45201
NET = "--model.net.init_args"
NETWORK = [f"{NET}.encoder.init_args.dim", "16", f"{NET}.encoder.init_args.depth", "1"]
NETWORK += [f"{NET}.decoder.init_args.depth", "1"]
# so low that a network that has learned nothing finds tracks too
NETWORK += ["--model.object_threshold", "0.01", "--model.mask_threshold", "0.01"]
PLOTS = {f"{name}.png" for name in ("efficiency", "fake_rate", "residuals", "event", "attention")}

Tracks = dict[int, dict[int, int]]
"""The track of each hit that is in one, by event and hit id."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, simulated_cache: Path) -> Path:
    """The directory of a run that trained two epochs."""
    root = tmp_path_factory.mktemp("runs")
    main(["fit", *SMALL, *NETWORK, "--run.root", str(root), "--trainer.max_epochs", "2"])
    return root / "tracking"


@pytest.fixture(scope="module")
def tested(trained: Path) -> Path:
    return evaluate("test", trained)


@pytest.fixture(scope="module")
def predicted(trained: Path) -> Path:
    return evaluate("predict", trained)


@pytest.fixture(scope="module")
def raw(trained: Path) -> Path:
    """The CSV files of the simulated events."""
    data = TrackMLData((Feature("x"),), simulation=TrackerConfig(50), num_simulated=6)
    return data.source.path.parent / "raw"


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are made, but not rendered, which takes seconds."""
    monkeypatch.setattr(tracking, "save_figure", lambda figure, path: path.touch())


@pytest.fixture
def perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracks are the particles to find."""
    monkeypatch.setattr(Tracking, "tracks", lambda self, batch, outputs: batch.particle_index)


def evaluate(stage: str, trained: Path, *options: str) -> Path:
    before = set(trained.glob("eval/*"))
    main([stage, "--config", "tracking.yaml", "--run.root", str(trained.parent), *QUIET, *options])
    (folder,) = set(trained.glob("eval/*")) - before
    return folder


def names_of_test(trained: Path) -> list[str]:
    return json.loads((trained / "split.json").read_text())["test"]


def figures_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def submitted(path: Path) -> Tracks:
    tracks: Tracks = defaultdict(dict)
    with path.open() as file:
        for row in csv.DictReader(file):
            if int(row["track_id"]):
                tracks[int(row["event_id"])][int(row["hit_id"])] = int(row["track_id"])
    return tracks


def predicted_tracks(folder: Path) -> Tracks:
    tracks: Tracks = defaultdict(dict)
    for row in pq.read_table(folder / "predictions.parquet").to_pylist():
        if row["track"] >= 0:
            tracks[row["event"]][row["hit_id"]] = row["track"]
    return tracks


def files_of(folder: Path, table: str) -> dict[int, list[Mapping[str, str]]]:
    """The rows of the CSV files of all events by the event's number."""
    return {int(p.name[5:14]): rows_of(p) for p in sorted(folder.glob(f"event*-{table}.csv*"))}


def scores_by_definition(raw: Path, tracks: Tracks) -> list[float]:
    """Score each event as the challenge defines it, hit by hit, from its truth file."""
    scores = []
    for event, rows in files_of(raw, "truth").items():
        owner = {int(row["hit_id"]): int(row["particle_id"]) for row in rows}
        weight = {int(row["hit_id"]): float(row["weight"]) for row in rows}
        size, gained, members = Counter(owner.values()), 0.0, defaultdict(list)
        for hit, track in tracks.get(event, {}).items():
            members[track].append(hit)
        for hits in members.values():
            particle, shared = Counter(owner[hit] for hit in hits).most_common(1)[0]
            if particle and 2 * shared > len(hits) and 2 * shared > size[particle]:
                gained += sum(weight[hit] for hit in hits if owner[hit] == particle)
        scores.append(gained / sum(weight.values()))
    return scores


def test_tools_look_into_a_run(trained: Path) -> None:
    folder = str(trained)
    for command in (["attention-maps", folder, "--num", "1"], ["profile", folder]):
        assert cli.main(command) == 0
    assert (trained / "eval" / "attention_maps" / "layers.json").is_file()
    assert (trained / "deploy" / "profile" / "layers.csv").is_file()


def test_a_trial_run_leaves_nothing(simulated_cache: Path, tmp_path: Path) -> None:
    main(["fit", *SMALL, *NETWORK, "--run.root", str(tmp_path), "--trainer.fast_dev_run", "2"])
    assert not list(tmp_path.iterdir())


def test_training_leaves_checkpoints_config_and_provenance(trained: Path) -> None:
    for name in ("ckpts/best.ckpt", "ckpts/last.ckpt", "config.yaml", "environment.json"):
        assert (trained / name).is_file()
    split = json.loads((trained / "split.json").read_text())
    assert len({*split["train"], *split["val"], *split["test"]}) == 6


def test_evaluation_writes_figures_and_plots(tested: Path) -> None:
    assert {path.name for path in tested.glob("*.png")} == PLOTS
    numbers = figures_of(tested)
    for stage in ("before_filter", "after_filter"):
        for criterion in ("double_majority", "perfect", "lhc"):
            for value, low, high in numbers[stage][criterion].values():
                assert 0 <= low <= value <= high <= 1
    assert numbers["before_filter"] == numbers["after_filter"]  # there is no filter


def test_figures_count_the_tracks_and_the_particles_of_the_test_events(
    tested: Path, trained: Path, raw: Path
) -> None:
    numbers = figures_of(tested)["before_filter"]
    tracks = {(e, track) for e, hits in predicted_tracks(tested).items() for track in hits.values()}
    assert numbers["num_tracks"] == len(tracks) > 0
    source = open_events(raw)
    events = [source.read(source.names.index(name)) for name in names_of_test(trained)]
    targets = [make_targets(event, ParticleSelection()) for event in events]
    assert numbers["num_particles"] == sum(len(target.particles) for target in targets) > 1
    rows = pq.read_table(tested / "predictions.parquet")
    assert rows.num_rows == sum(target.selected.sum() for target in targets)
    np.testing.assert_array_equal(rows["score"].to_numpy() > 0, rows["track"].to_numpy() >= 0)
    sizes = Counter(t for hits in predicted_tracks(tested).values() for t in hits.values())
    assert min(sizes.values()) >= 3


def test_submission_holds_every_hit_of_every_event_once(predicted: Path, raw: Path) -> None:
    with (predicted / "submission.csv").open() as file:
        rows = [(int(row["event_id"]), int(row["hit_id"])) for row in csv.DictReader(file)]
    hits = files_of(raw, "hits").items()
    expected = [(event, int(row["hit_id"])) for event, table in hits for row in table]
    assert sorted(rows) == sorted(expected)


def test_submission_and_predictions_hold_the_same_tracks(predicted: Path) -> None:
    ours, theirs = submitted(predicted / "submission.csv"), predicted_tracks(predicted)
    assert ours.keys() == theirs.keys()
    for event, tracks in ours.items():
        assert tracks.keys() == theirs[event].keys()
        pairs = {(track, theirs[event][hit]) for hit, track in tracks.items()}
        assert len(pairs) == len(set(tracks.values())) == len(set(theirs[event].values())) > 0


def test_score_is_that_of_the_challenges_definition(
    predicted: Path, raw: Path, tmp_path: Path
) -> None:
    found = score(predicted / "submission.csv", raw)
    expected = scores_by_definition(raw, predicted_tracks(predicted))
    assert list(found.values()) == pytest.approx(expected, abs=1e-6)
    rng, source, tracks = np.random.default_rng(0), open_events(raw), []
    for place in range(len(source)):  # true tracks, of which some are torn and some merged
        event = source.read(place)
        _, track = np.unique(event.hits["particle_id"], return_inverse=True)
        track = np.where(rng.random(len(track)) < 0.3, track // 3, track + 1000)
        tracks.append((event.number, event.hits["hit_id"], track))
    write_submission(tmp_path / "torn.csv", source, tracks)
    expected = scores_by_definition(raw, submitted(tmp_path / "torn.csv"))
    assert list(score(tmp_path / "torn.csv", raw).values()) == pytest.approx(expected, abs=1e-6)
    assert all(0.1 < value < 0.9 for value in expected)


@pytest.mark.usefixtures("perfect")
def test_perfect_tracks_score_all_but_the_weight_of_other_particles(
    trained: Path, raw: Path
) -> None:
    whole = ["--data.selection.volumes", "null", "--data.selection.min_hits", "4"]
    path = evaluate("predict", trained, *whole) / "submission.csv"
    scores, selection = score(path, raw), ParticleSelection(volumes=None, min_hits=4)
    for place, name in enumerate((source := open_events(raw)).names):
        event = source.read(place)
        lost = event.hits["weight"][~make_targets(event, selection).label]
        assert scores[name] == pytest.approx(1 - lost.sum() / event.hits["weight"].sum(), abs=1e-6)
        assert 0 < scores[name] < 1
    expected = scores_by_definition(raw, submitted(path))
    assert list(scores.values()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.usefixtures("perfect")
def test_efficiency_before_the_filter_is_out_of_all_particles(
    trained: Path, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracking, "_draw", lambda self, folder: None)
    source, lost = open_events(raw), len(names_of_test(trained))
    columns: dict[str, list] = {"event": [], "hit_id": [], "keep": []}
    for place in range(len(source)):
        event = source.read(place)
        targets = make_targets(event, ParticleSelection())
        columns["event"] += [event.number] * event.num_hits
        columns["hit_id"] += event.hits["hit_id"].tolist()
        columns["keep"] += (targets.particle_index != 1).tolist()  # of each event's second one
    columns["score"] = np.array(columns["keep"], dtype=np.float32)
    pq.write_table(pa.table(columns), tmp_path / "scores.parquet")
    options = ["--data.hit_scores.path", str(tmp_path / "scores.parquet")]
    numbers = figures_of(evaluate("test", trained, *options))
    before, after = numbers["before_filter"], numbers["after_filter"]
    total = before["num_particles"]
    assert after["num_particles"] == total - lost
    for criterion in ("double_majority", "perfect", "lhc"):
        assert before[criterion]["efficiency"][0] == pytest.approx((total - lost) / total)
        assert after[criterion]["efficiency"][0] == 1
        assert before[criterion]["fake_rate"][0] == 0


def test_a_second_prediction_keeps_the_first(trained: Path, predicted: Path) -> None:
    names = ("submission.csv", "predictions.parquet")
    before = [(predicted / name).read_bytes() for name in names]
    again = evaluate("predict", trained)
    assert again != predicted
    assert [(predicted / name).read_bytes() for name in names] == before
    assert (again / names[0]).read_bytes() == before[0]


@pytest.mark.filterwarnings("ignore:.*no columns for the features:UserWarning")
def test_hits_alone_are_enough_to_predict(trained: Path, raw: Path, tmp_path: Path) -> None:
    for path in list(raw.glob("*-hits.csv*"))[:2]:
        shutil.copy(path, tmp_path)
    folder = evaluate("predict", trained, "--data.path", str(tmp_path))
    expected = sum(len(rows) for rows in files_of(tmp_path, "hits").values())
    assert len((folder / "submission.csv").read_text().splitlines()) == 1 + expected
    assert submitted(folder / "submission.csv").keys() == predicted_tracks(folder).keys()


@pytest.mark.usefixtures("sketched")
def test_a_bad_first_event_is_skipped_when_asked_for(
    trained: Path, raw: Path, tmp_path: Path
) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    broken = min((tmp_path / "raw").glob("*-hits.csv*"))
    broken.write_bytes(broken.read_bytes()[:100])
    options = ["--data.path", str(tmp_path / "raw"), "--data.skip_bad", "true"]
    folder = evaluate("test", trained, *options, "--data.split", "[0.0, 0.0, 1.0]")
    assert figures_of(folder)["before_filter"]["num_tracks"] > 0


def test_an_evaluation_may_find_no_track(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(figure: Figure, path: Path) -> None:
        if path.stem in {"fake_rate", "residuals"}:  # those of the tracks
            save_figure(figure, path)

    monkeypatch.setattr(tracking, "save_figure", save)
    folder = evaluate("test", trained, "--model.object_threshold", "0.999999")
    assert figures_of(folder)["before_filter"]["num_tracks"] == 0
    assert {path.stem for path in folder.glob("*.png")} == {"fake_rate", "residuals"}


@pytest.mark.data
@pytest.mark.parametrize("folder", ["trackml", "trackml/barrel"])
@pytest.mark.filterwarnings("ignore:.*cannot be split:UserWarning")
@pytest.mark.filterwarnings("ignore:.*no columns for the features:UserWarning")
@pytest.mark.usefixtures("sketched")
def test_a_real_event_trains_tests_and_predicts(
    folder: str, trained: Path, data_dir: Path, tmp_path: Path
) -> None:
    path = ["--data.path", str(data_dir / folder)]
    trial = ["--run.root", str(tmp_path), "--trainer.fast_dev_run", "2"]
    main(["fit", *SMALL, *NETWORK, *path, *trial])
    result = evaluate("test", trained, *path)
    assert {path.name for path in result.glob("*.png")} == PLOTS
    targets = make_targets(open_events(data_dir / folder).read(0), ParticleSelection())
    assert figures_of(result)["before_filter"]["num_particles"] == len(targets.particles)
    result = evaluate("predict", trained, *path)
    expected = scores_by_definition(data_dir / folder, predicted_tracks(result))
    found = score(result / "submission.csv", data_dir / folder)
    assert list(found.values()) == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def trained_filter(tmp_path_factory: pytest.TempPathFactory, simulated_cache: Path) -> Path:
    root = tmp_path_factory.mktemp("filters")
    options = ["--model.net.init_args.dim", "16", "--model.net.init_args.depth", "1"]
    options += ["--run.root", str(root), "--trainer.max_epochs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", sys.argv)  # which the command replaces
        assert cli.main(["trackml/hit_filter", "fit", *DATA, *QUIET, *options]) == 0
    return root / "hit_filter"


@pytest.mark.parametrize("events", ["simulated", pytest.param("real", marks=pytest.mark.data)])
@pytest.mark.filterwarnings("ignore:.*cannot be split:UserWarning")
def test_filter_tracking_and_score_follow_each_other_from_raw_files(
    events: str,
    trained: Path,
    trained_filter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)  # which the command replaces
    files, store = tmp_path / "raw", str(tmp_path / "store")
    if events == "real":
        files = request.getfixturevalue("data_dir") / "trackml"
    else:
        simulate_events(files, 3, TrackerConfig(50, seed=3))
    assert cli.main(["prep-trackml", str(files), store]) == 0
    options, root = ["--data.path", store, *QUIET], ["--run.root", str(trained_filter.parent)]
    assert cli.main(["trackml/hit_filter", "predict", *options, *root]) == 0
    scores = trained_filter / "eval" / "predict" / "predictions.parquet"
    scores = Path(shutil.move(scores.parent, tmp_path / "scores")) / scores.name
    cut = float(np.median((rows := pq.read_table(scores))["score"]))
    options += ["--data.hit_scores.path", str(scores), "--data.hit_scores.threshold", str(cut)]
    root, before = ["--run.root", str(trained.parent)], set(trained.glob("eval/*"))
    assert cli.main(["trackml/tracking", "predict", *options, *root]) == 0
    (folder,) = set(trained.glob("eval/*")) - before
    kept = {(r["event"], r["hit_id"]) for r in rows.to_pylist() if r["score"] >= cut}
    tracks = submitted(folder / "submission.csv")
    in_tracks = {(event, hit) for event, hits in tracks.items() for hit in hits}
    assert 0 < len(in_tracks) <= len(kept) < rows.num_rows
    assert in_tracks <= kept
    capsys.readouterr()
    assert cli.main(["score-trackml", str(folder / "submission.csv"), str(files)]) == 0
    mean = np.mean(scores_by_definition(files, tracks))
    assert capsys.readouterr().out.splitlines()[-1].endswith(f": {mean:.5f}")


BAD_INPUT = {
    "senseless threshold": (["--model.object_threshold", "1.5"], "object_threshold=1.5"),
    "seeds of learned queries": (
        [f"{NET}.queries", "hepattn.nn.queries.LearnedQueries"],
        "costs.seed=2.0",
    ),
    "regression without parameters": (
        ["--model.loss.init_args.weights.regression", "1.0"],
        "num_parameters=0",
    ),
    "missing scores": (["--data.hit_scores.path", "nowhere.parquet"], "nowhere.parquet"),
    "misspelt key of the decoder": ([f"{NET}.decoder.init_args.widow", "3"], "widow"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_stops_with_one_clear_line(
    case: str, simulated_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options, message = BAD_INPUT[case]
    with pytest.raises(SystemExit):
        main(["fit", *SMALL, *options, "--run.root", str(tmp_path)])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error:")
    assert message in last


def test_golden_loss(simulated_cache: Path, tmp_path: Path) -> None:
    """A refactor leaves the loss of the shipped config as it is; a change of physics updates it."""
    options = [*SMALL, "--run.root", str(tmp_path), "--trainer.max_epochs", "1"]
    cli = run(Tracking, TrackMLData, config="tracking.yaml", links=LINKS, args=["fit", *options])
    assert float(cli.trainer.callback_metrics["val/loss"]) == pytest.approx(GOLDEN_LOSS, rel=1e-3)
