import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from data.make_trackml import make_events
from hepattn.data import DataError, LengthBucketSampler
from hepattn.data.trackml import (
    HitBatch,
    HitDataset,
    ParticleSelection,
    collate,
    hit_features,
    make_targets,
    open_events,
)
from hepattn.nn.normalise import Feature

FEATURES = [Feature("r"), Feature("phi"), Feature("charge", transform="log1p")]
PIXELS = ParticleSelection(volumes=(8,))


def strip_truth(folder: Path) -> None:
    for path in folder.glob("*truth*"):
        path.unlink()


def test_a_batch_holds_the_selected_hits_of_each_event_in_order(raw_events: Path) -> None:
    source = open_events(raw_events)
    dataset = HitDataset(source, None, FEATURES, PIXELS)
    batch = collate([dataset[0], dataset[1]])
    assert batch.label is not None
    assert batch.particle_index is not None
    assert batch.particle_id is not None
    assert batch.num_particle_hits is not None
    assert batch.particles is not None
    assert batch.particle_valid is not None
    assert batch.event.tolist() == [1000, 1001]
    for row in range(2):
        event = source.read(row)
        targets = make_targets(event, PIXELS)
        wanted = targets.selected
        num_hits, num_particles = int(wanted.sum()), len(targets.particles)
        assert batch.valid[row].tolist() == [i < num_hits for i in range(batch.valid.shape[1])]
        features = hit_features(event, FEATURES)[wanted]
        assert torch.equal(batch.hits[row, :num_hits], torch.tensor(features))
        assert batch.hit_id[row, :num_hits].tolist() == event.hits["hit_id"][wanted].tolist()
        assert batch.label[row, :num_hits].tolist() == targets.label[wanted].tolist()
        index = batch.particle_index[row, :num_hits]
        assert index.tolist() == targets.particle_index[wanted].tolist()
        owners = event.hits["particle_id"][wanted].tolist()
        assert batch.particle_id[row, :num_hits].tolist() == owners
        counts = targets.num_particle_hits[wanted].tolist()
        assert batch.num_particle_hits[row, :num_hits].tolist() == counts
        assert int(batch.particle_valid[row].sum()) == num_particles
        particles = batch.particles[row, :num_particles]
        assert torch.equal(particles, torch.tensor(targets.particles))


def test_padding_is_inert(raw_events: Path) -> None:
    dataset = HitDataset(open_events(raw_events), None, FEATURES, PIXELS)
    batch = collate([dataset[0], dataset[1]])
    padding = ~batch.valid
    assert padding.any()
    assert (batch.hits[padding] == 0).all()
    assert (batch.hit_id[padding] == -1).all()
    assert batch.label is not None
    assert not batch.label[padding].any()
    assert batch.particle_index is not None
    assert (batch.particle_index[padding] == -1).all()
    assert batch.particle_id is not None
    assert (batch.particle_id[padding] == 0).all()
    assert batch.num_particle_hits is not None
    assert (batch.num_particle_hits[padding] == 0).all()
    assert batch.particles is not None
    assert batch.particle_valid is not None
    assert (batch.particles[~batch.particle_valid] == 0).all()


def test_types_are_those_of_the_contract(raw_events: Path) -> None:
    batch = collate([HitDataset(open_events(raw_events), [1], FEATURES, PIXELS)[0]])
    assert [None if t is None else (t.dtype, t.ndim) for t in batch] == [
        (torch.float32, 3),
        (torch.bool, 2),
        (torch.bool, 2),
        (torch.int64, 2),
        (torch.int64, 2),
        (torch.int64, 2),
        (torch.int64, 2),
        (torch.float32, 3),
        (torch.bool, 2),
        (torch.int64, 1),
    ]


def test_prediction_has_no_labels_but_keeps_the_selected_volumes(one_event: Path) -> None:
    complete = collate([HitDataset(open_events(one_event), None, FEATURES, PIXELS)[0]])
    strip_truth(one_event)
    batch = collate([HitDataset(open_events(one_event), None, FEATURES, PIXELS)[0]])
    is_there = {name: value is not None for name, value in batch._asdict().items()}
    assert [name for name, there in is_there.items() if there] == [
        "hits", "valid", "hit_id", "event"
    ]  # fmt: skip
    assert torch.equal(batch.hit_id, complete.hit_id)
    assert torch.equal(batch.hits, complete.hits)


def test_no_selection_takes_all_hits_and_no_targets(raw_events: Path) -> None:
    source = open_events(raw_events)
    batch = collate([HitDataset(source, None, FEATURES)[0]])
    assert batch.label is None
    assert batch.hit_id[0].tolist() == source.read(0).hits["hit_id"].tolist()


def test_truth_can_be_required(one_event: Path) -> None:
    strip_truth(one_event)
    dataset = HitDataset(open_events(one_event), None, FEATURES, PIXELS, require_truth=True)
    with pytest.raises(DataError, match=r"targets need event000000007-truth\.csv"):
        dataset[0]
    with pytest.raises(ValueError, match="require_truth=True needs a selection"):
        HitDataset(open_events(one_event), None, FEATURES, require_truth=True)


def test_events_of_a_batch_agree_on_truth(raw_events: Path, one_event: Path) -> None:
    strip_truth(one_event)
    items = [
        HitDataset(open_events(path), None, FEATURES, PIXELS)[0] for path in (raw_events, one_event)
    ]
    with pytest.raises(
        DataError, match="event 7: truth: found none, expected truth, as event 1000"
    ):
        collate(items)


def test_an_event_without_selected_hits_is_a_row_without_tokens(raw_events: Path) -> None:
    source = open_events(raw_events)
    nowhere = HitDataset(source, [0], FEATURES, ParticleSelection(volumes=(99,)))[0]
    batch = collate([HitDataset(source, [1], FEATURES, PIXELS)[0], nowhere])
    assert batch.valid.any(1).tolist() == [True, False]
    assert batch.particle_valid is not None
    assert not batch.particle_valid[1].any()
    alone = collate([nowhere])
    assert alone.hits.shape == (1, 1, 3)
    assert not alone.valid.any()


def test_a_bad_event_is_an_error_unless_skipping_was_asked_for(
    one_event: Path, raw_events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_events(one_event, numbers=[8], suffix=".csv")
    path = one_event / "event000000008-hits.csv"
    os.truncate(path, 500)
    source = open_events(one_event)
    with pytest.raises(DataError, match="event000000008-hits"):
        HitDataset(source, [0, 1], FEATURES, PIXELS)[1]
    dataset = HitDataset(source, [1, 0], FEATURES, PIXELS, skip_bad=True)
    loader = DataLoader(dataset, batch_size=2, collate_fn=collate, num_workers=1)
    (batch,) = loader
    assert all(field is not None and len(field) == 2 for field in batch)
    assert batch.event.tolist() == [8, 7]
    assert batch.valid.any(1).tolist() == [False, True]
    assert dataset.num_skipped == 1
    assert caplog.text.count("skipped event000000008") == 1


def test_events_in_memory_are_read_once(one_event: Path) -> None:
    kept = HitDataset(open_events(one_event), None, [Feature("x")], in_memory=True)
    first = kept[0]
    for path in one_event.iterdir():
        path.unlink()
    assert kept[0] is first


def test_workers_report_what_they_skip(one_event: Path) -> None:
    make_events(one_event, numbers=[8, 9], suffix=".csv", num_particles=2)
    os.truncate(one_event / "event000000009-hits.csv", 200)
    dataset = HitDataset(open_events(one_event), None, FEATURES, PIXELS, skip_bad=True)
    assert dataset.num_skipped == 0
    loader = DataLoader(dataset, batch_size=1, collate_fn=collate, num_workers=2)
    assert sum(bool(batch.valid.any()) for batch in loader) == 2
    assert dataset.num_skipped == 1


def test_missing_features_are_reported_once(one_event: Path) -> None:
    for path in one_event.glob("*cells*"):
        path.unlink()
    source = open_events(one_event)
    features = [Feature("r"), Feature("charge", missing=0.0), Feature("lx", missing=0.1)]
    with pytest.warns(UserWarning, match=r"one: no columns for the features charge, lx") as record:
        dataset = HitDataset(source, None, features)
    assert len(record) == 1
    assert dataset[0].hits[:, 2].unique().tolist() == pytest.approx([0.1])  # and no warning again


def test_a_feature_that_is_missing_or_unknown_stops_the_start(one_event: Path) -> None:
    for path in one_event.glob("*cells*"):
        path.unlink()
    source = open_events(one_event)
    with pytest.raises(DataError, match="feature charge: found no column charge"):
        HitDataset(source, None, FEATURES, skip_bad=True)
    with pytest.raises(DataError, match=r"'ph'.*did you mean 'phi'\?"):
        HitDataset(source, None, [Feature("ph")], skip_bad=True)


def batches_of(source: Path, num_workers: int) -> Sequence[HitBatch]:
    dataset = HitDataset(open_events(source), None, FEATURES, PIXELS)
    sampler = LengthBucketSampler(dataset.lengths, max_events=2)
    return list(
        DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=num_workers)
    )


def test_a_loader_with_workers_gives_the_batches_of_one_without(tmp_path: Path) -> None:
    raw = make_events(tmp_path / "raw", numbers=range(5), num_particles=4)
    alone, helped = batches_of(raw, 0), batches_of(raw, 2)
    assert sorted(n for batch in alone for n in batch.event.tolist()) == list(range(5))
    assert len(alone) == len(helped) == 3
    for first, second in zip(alone, helped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
