"""The tool that scores submissions."""

from pathlib import Path

import numpy as np
import pytest

from data.make_trackml import make_events
from hepattn.cli import main
from hepattn.data.trackml import open_events, prepare, write_submission


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_events(tmp_path_factory.mktemp("raw"), num_particles=20)


def submit(raw: Path, path: Path, share: float) -> float:
    """Submit that share of the true particles' hits; what the mean score should be."""
    source = open_events(raw)
    tracks, scores = [], []
    for place in range(len(source)):
        event = source.read(place)
        hits = event.hits
        particles, index = np.unique(hits["particle_id"], return_inverse=True)
        found = (index <= share * len(particles)) & (hits["particle_id"] != 0)
        tracks.append((event.number, hits["hit_id"], np.where(found, index, -1)))
        scores.append(hits["weight"][found].sum() / hits["weight"].sum())
    write_submission(path, source, tracks)
    return float(np.mean(scores))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_score_of_each_event_and_their_mean_are_printed(
    share: float, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    expected = submit(raw, tmp_path / "submission.csv", share)
    assert main(["score-trackml", str(tmp_path / "submission.csv"), str(raw)]) == 0
    *lines, mean = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["event000001000", "event000001001"]
    assert mean == f"mean of 2 events: {expected:.5f}"
    assert np.mean([float(line.split()[1]) for line in lines]) == pytest.approx(expected, abs=1e-5)


def test_a_store_scores_like_its_source(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    submit(raw, tmp_path / "submission.csv", 0.7)
    prepare(raw, tmp_path / "store", progress=False)
    printed = []
    for data in (raw, tmp_path / "store"):
        main(["score-trackml", str(tmp_path / "submission.csv"), str(data)])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


@pytest.mark.data
def test_all_particles_of_a_real_event_score_one(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    submit(data_dir / "trackml", tmp_path / "submission.csv", 1)
    main(["score-trackml", str(tmp_path / "submission.csv"), str(data_dir / "trackml")])
    assert capsys.readouterr().out.endswith("mean of 1 events: 1.00000\n")


def test_events_without_truth_stop_with_one_clear_line(raw: Path, tmp_path: Path) -> None:
    submit(raw, tmp_path / "submission.csv", 0.7)
    folder = tmp_path / "hits"
    folder.mkdir()
    for path in raw.glob("*-hits*"):
        (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(SystemExit, match=r"error: .*event000001000: truth: found none"):
        main(["score-trackml", str(tmp_path / "submission.csv"), str(folder)])


def test_a_submission_of_other_events_stops_with_one_clear_line(raw: Path, tmp_path: Path) -> None:
    submit(raw, tmp_path / "submission.csv", 0.7)
    other = make_events(tmp_path / "other", numbers=[5], num_particles=3)
    with pytest.raises(SystemExit, match=r"error: .*submission\.csv: event_id: found 2 values"):
        main(["score-trackml", str(tmp_path / "submission.csv"), str(other)])
