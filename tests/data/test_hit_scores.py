"""Hits are read where a filter keeps them; what is to be found stays as it was."""

import pickle
import random
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from torch.utils.data import DataLoader

from data.make_trackml import make_events
from hepattn.data import DataError
from hepattn.data.trackml import (
    EventSource,
    HitDataset,
    HitItem,
    HitScores,
    KeptHits,
    ParticleSelection,
    collate,
    open_events,
)
from hepattn.experiments.trackml.data import TrackMLData
from hepattn.nn.normalise import Feature

FEATURES = [Feature("r"), Feature("phi")]
PIXELS = ParticleSelection(volumes=(8,), min_pt=0.5)
PER_HIT = ("hits", "hit_id", "label", "particle_index", "particle_id", "num_particle_hits")

Columns = dict[str, np.ndarray]


def score(source: EventSource, seed: int = 0) -> Columns:
    """Random scores of the selected hits of all events; rows in random order."""
    rng = np.random.default_rng(seed)
    events = [source.read(index) for index in range(len(source))]
    ids = [event.hits["hit_id"][PIXELS.select(event)] for event in events]
    order = rng.permutation(sum(map(len, ids)))
    values = rng.random(len(order), dtype=np.float32)
    return {
        "event": np.repeat([event.number for event in events], list(map(len, ids)))[order],
        "hit_id": np.concatenate(ids)[order],
        "score": values,
        "keep": values >= 0.75,
    }


def write(columns: Columns, path: Path) -> HitScores:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                file[name] = values
    return HitScores(str(path))


def make_dataset(source: EventSource, scores: HitScores, **options: bool) -> HitDataset:
    return HitDataset(source, None, FEATURES, PIXELS, kept_hits=KeptHits.load(scores), **options)


def kept_by_loop(item: HitItem, columns: Columns, threshold: float) -> list[int]:
    """Positions of the hits of an event that a filter keeps."""
    rows = zip(columns["event"], columns["hit_id"], columns["score"], strict=True)
    keep = {(event, hit_id) for event, hit_id, value in rows if value >= threshold}
    return [i for i, hit_id in enumerate(item.hit_id.tolist()) if (item.event, hit_id) in keep]


@pytest.mark.parametrize("suffix", [".parquet", ".h5"])
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_the_hits_that_are_kept_are_those_of_a_loop(
    raw_events: Path, tmp_path: Path, suffix: str, threshold: float | None
) -> None:
    source = open_events(raw_events)
    columns = score(source)
    path = write(columns, tmp_path / f"scores{suffix}").path
    whole = HitDataset(source, None, FEATURES, PIXELS)
    filtered = make_dataset(source, HitScores(path, threshold))
    for place in range(2):
        item, expected = filtered[place], whole[place]
        places = kept_by_loop(expected, columns, 0.75 if threshold is None else threshold)
        assert 0 < len(places) < len(expected.hits)
        for name in PER_HIT:
            assert torch.equal(getattr(item, name), getattr(expected, name)[places])
        assert torch.equal(item.particles, expected.particles)
        assert filtered.lengths[place] == len(places)


def test_an_event_that_lost_all_hits_keeps_its_particles(raw_events: Path, tmp_path: Path) -> None:
    source = open_events(raw_events)
    columns = score(source)
    columns["keep"] = columns["keep"] & (columns["event"] != 1000)
    filtered = make_dataset(source, write(columns, tmp_path / "scores.parquet"))
    batch = collate([filtered[0], filtered[1]])
    assert batch.valid.any(1).tolist() == [False, True]
    assert batch.particle_valid is not None
    assert batch.particle_valid.any(1).tolist() == [True, True]
    assert filtered.lengths[0] == 0


def test_events_without_truth_are_filtered_too(one_event: Path, tmp_path: Path) -> None:
    (one_event / "event000000007-truth.csv").unlink()
    source = open_events(one_event)
    columns = score(source)
    item = make_dataset(source, write(columns, tmp_path / "scores.parquet"))[0]
    assert item.label is None
    assert sorted(item.hit_id.tolist()) == sorted(columns["hit_id"][columns["keep"]].tolist())


def test_workers_filter_alike(raw_events: Path, tmp_path: Path) -> None:
    source = open_events(raw_events)
    filtered = make_dataset(source, write(score(source), tmp_path / "scores.parquet"))
    alone, helped = (
        next(iter(DataLoader(filtered, batch_size=2, collate_fn=collate, num_workers=num)))
        for num in (0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))
    thawed = pickle.loads(pickle.dumps(filtered.kept_hits))
    assert thawed.fingerprint() == filtered.kept_hits.fingerprint()


def test_an_event_without_scores_stops_the_start(raw_events: Path, tmp_path: Path) -> None:
    source = open_events(raw_events)
    columns = score(source)
    tested = {name: values[columns["event"] == 1001] for name, values in columns.items()}
    scores = write(tested, tmp_path / "scores.parquet")
    for skip_bad in (False, True):
        message = r"scores\.parquet: event: found no scores of event 1000.*filter's `predict`"
        with pytest.raises(DataError, match=message):
            make_dataset(source, scores, skip_bad=skip_bad)
    only = HitDataset(source, [1], FEATURES, PIXELS, kept_hits=KeptHits.load(scores))
    assert len(only[0].hits) == tested["keep"].sum()


def test_an_event_without_selected_hits_needs_no_scores(raw_events: Path, tmp_path: Path) -> None:
    nothing = {name: values[:0] for name, values in score(open_events(raw_events)).items()}
    kept = KeptHits.load(write(nothing, tmp_path / "scores.parquet"))
    nowhere = ParticleSelection(volumes=(99,))
    dataset = HitDataset(open_events(raw_events), None, FEATURES, nowhere, kept_hits=kept)
    assert len(dataset[0].hits) == 0


def test_an_event_that_cannot_be_read_needs_no_scores_if_it_is_skipped(tmp_path: Path) -> None:
    folder = make_events(tmp_path / "raw", numbers=[1, 2], suffix=".csv", num_particles=4)
    whole = score(open_events(folder))
    rest = {name: values[whole["event"] == 1] for name, values in whole.items()}
    (folder / "event000000002-hits.csv").write_text("hit_id\n")
    scores = write(rest, tmp_path / "scores.parquet")
    dataset = make_dataset(open_events(folder), scores, skip_bad=True)
    assert (dataset.num_skipped, len(dataset[1].hits)) == (1, 0)


def test_a_selected_hit_without_a_score_is_an_error(raw_events: Path, tmp_path: Path) -> None:
    source = open_events(raw_events)
    columns = score(source)
    rest = {name: values[3:] for name, values in columns.items()}
    dataset = make_dataset(source, write(rest, tmp_path / "scores.parquet"))
    place = int(columns["event"][0] == 1001)
    with pytest.raises(DataError, match=r"hit_id: found no scores of \d hits of event 100"):
        dataset[place]


TINY = {
    "event": np.array([3, 1, 3]),
    "hit_id": np.array([2, 2, 9]),
    "score": np.array([0.1, 0.5, 0.9], dtype=np.float32),
    "keep": np.array([False, True, True]),
}
BAD = {
    "no keep": ({"keep": None}, "column keep: found no such column"),
    "no score": ({"score": None}, "column score: found no such column"),
    "a hit twice": ({"hit_id": np.array([2, 2, 2])}, "found hit 2 of event 3 more than once"),
    "nan": (
        {"score": np.array([0.1, np.nan, 0.9], dtype=np.float32)},
        "score: found nan in data row 2, expected finite values",
    ),
    "text": ({"event": np.array([0.5, 1.0, 2.0])}, "column event: found float64, expected integ"),
    "numbers": ({"keep": np.array([0, 1, 1])}, "column keep: found int64, expected true or false"),
}


@pytest.mark.parametrize("suffix", [".parquet", ".h5"])
@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, suffix: str, case: str) -> None:
    change, message = BAD[case]
    columns = {name: values for name, values in (TINY | change).items() if values is not None}
    with pytest.raises(DataError, match=rf"scores{suffix}: .*{message}"):
        KeptHits.load(write(columns, tmp_path / f"scores{suffix}"))


@pytest.mark.parametrize("suffix", [".parquet", ".h5"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scores{suffix}"
    with pytest.raises(DataError, match=r"found no such file.*`predict`"):
        KeptHits.load(HitScores(str(path)))
    path.write_bytes(b"neither parquet nor HDF5")
    with pytest.raises(DataError, match=r"expected a readable file of scores"):
        KeptHits.load(HitScores(str(path)))


def test_an_absent_value_and_columns_of_unequal_length_are_errors(tmp_path: Path) -> None:
    parquet, hdf5 = tmp_path / "scores.parquet", tmp_path / "scores.h5"
    pq.write_table(pa.table(TINY | {"keep": pa.array([True, None, False])}), parquet)
    with pytest.raises(DataError, match="keep: found 1 rows without a value"):
        KeptHits.load(HitScores(str(parquet)))
    with pytest.raises(DataError, match=r"columns: found lengths \[3, 3, 3, 2\]"):
        KeptHits.load(write(TINY | {"keep": TINY["keep"][:2]}, hdf5))


def test_a_threshold_needs_no_decision_of_the_filter(tmp_path: Path) -> None:
    columns = {name: values for name, values in TINY.items() if name != "keep"}
    kept = KeptHits.load(HitScores(write(columns, tmp_path / "scores.h5").path, threshold=0.5))
    assert kept.select(1, np.array([2])).tolist() == [True]
    assert kept.select(3, np.array([9, 2])).tolist() == [True, False]
    assert (kept.num_kept(1), kept.num_kept(2), kept.num_kept(3)) == (1, 0, 1)


@given(
    hits=st.sets(st.tuples(st.integers(0, 5), st.integers(-(2**40), 2**40)), max_size=30),
    seed=st.integers(0, 9),
)
def test_order_of_the_rows_does_not_matter(hits: set[tuple[int, int]], seed: int) -> None:
    rows = sorted(hits)
    random.Random(seed).shuffle(rows)
    event, hit_id = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    keep = hit_id % 3 == 0
    kept = KeptHits(event, hit_id, keep, "scores")
    for number in range(6):
        ids = hit_id[event == number]
        assert kept.select(number, ids).tolist() == keep[event == number].tolist()
        assert kept.num_kept(number) == keep[event == number].sum()
        assert (number in kept) == (len(ids) > 0)
    order = np.lexsort((hit_id, event))
    again = KeptHits(event[order], hit_id[order], keep[order], "elsewhere")
    assert again.fingerprint() == kept.fingerprint()


def test_fingerprint_follows_what_is_kept_and_not_the_file(tmp_path: Path) -> None:
    first = KeptHits.load(write(TINY, tmp_path / "first.parquet")).fingerprint()
    assert KeptHits.load(write(TINY, tmp_path / "second.h5")).fingerprint() == first
    other = HitScores(str(tmp_path / "second.h5"), threshold=0.95)
    assert KeptHits.load(other).fingerprint() != first


def test_the_data_module_reads_scores_for_every_stage(raw_events: Path, tmp_path: Path) -> None:
    columns = score(open_events(raw_events))
    file = write(columns, tmp_path / "scores.parquet").path
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrackMLData, "data")
    options = ["--data.path", str(raw_events), "--data.features", "[{name: r}, {name: phi}]"]
    options += ["--data.selection.volumes", "[8]", "--data.split", "[0.5, 0.5, 0]"]

    def make(*more: str) -> TrackMLData:
        return parser.instantiate(parser.parse_args([*options, *more])).data

    whole, filtered = make(), make("--data.hit_scores.path", file)
    sharp = make("--data.hit_scores.path", file, "--data.hit_scores.threshold", "0.9")
    assert len({data.fingerprint() for data in (whole, filtered, sharp)}) == 3
    stages = (filtered.train_dataloader(), filtered.val_dataloader(), filtered.predict_dataloader())
    counts = [sum(int(batch.valid.sum()) for batch in loader) for loader in stages]
    assert counts[2] == counts[0] + counts[1] == columns["keep"].sum()
    assert whole.kept_hits is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("scores.csv",), r"path=scores\.csv of hit scores must end in \.parquet or \.h5"),
        (("scores.h5", 0.0), r"threshold=0\.0 of hit scores must be in \(0, 1\)"),
        (("scores.h5", 1.5), r"threshold=1\.5 of hit scores must be in \(0, 1\)"),
    ],
)
def test_senseless_options_are_refused(values: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HitScores(*values)
