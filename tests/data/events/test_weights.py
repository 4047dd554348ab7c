"""What events count in training, and how often they come."""

import numpy as np
import pytest

from hepattn.data import DataError
from hepattn.data.events import EventSampler, Weighting, require_every_class

CLASSES = ("a", "b", "c")
RNG = np.random.default_rng(0)
LABEL = np.repeat([0, 1, 2], [50, 30, 5])
WEIGHT = RNG.normal(1, 1, len(LABEL)).astype(np.float32)


@pytest.mark.parametrize("method", ["counts", "weights"])
def test_class_weights_make_classes_worth_the_same(method: str) -> None:
    weighting = Weighting(class_weights=method)
    factors = weighting.fit(np.append(LABEL, -1), np.append(WEIGHT, 99), CLASSES)  # one of none
    amount = np.ones(len(LABEL)) if method == "counts" else np.abs(WEIGHT)
    for number, factor in enumerate(factors):
        own = amount[number == LABEL].sum()
        assert factor == pytest.approx(amount.sum() / (own * 3), rel=1e-6)
    weighted = amount * np.array(factors)[LABEL]
    assert weighted.sum() == pytest.approx(amount.sum(), rel=1e-6)


def test_training_weights_are_those_of_events_and_classes() -> None:
    factors = (2.0, 0.5, 1.0)
    label = np.array([0, 1, 2, -1])
    weight = np.array([1, -3, 0.25, 7], np.float32)
    both = Weighting(class_weights="counts").weigh(label, weight, factors)
    assert both.tolist() == [2, -1.5, 0.25, 0]
    assert Weighting().weigh(label, weight, None).tolist() == [1, -3, 0.25, 0]
    assert Weighting(use_weights=False).weigh(label, weight, factors).tolist() == [2, 0.5, 1, 0]
    assert both.dtype == np.float32


def test_without_class_weights_there_is_nothing_to_fit() -> None:
    assert Weighting().fit(LABEL, WEIGHT, CLASSES) is None


def test_a_class_without_events_is_refused() -> None:
    with pytest.raises(DataError, match="found none of b, d"):
        Weighting(class_weights="counts").fit(np.array([0, 2]), np.ones(2), ("a", "b", "c", "d"))
    with pytest.raises(DataError, match="found none of c"):
        EventSampler(np.array([0, 1]), CLASSES, 4, "under")


@pytest.mark.parametrize(
    "options",
    [
        {"resampling": "under"},
        {"resampling": "over", "use_weights": False, "class_weights": "counts"},
        {"resampling": {"a": 3}, "column": "w"},
    ],
)
def test_resampling_excludes_weights(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="excludes weights"):
        Weighting(**options)


def test_options_without_effect_are_refused() -> None:
    with pytest.raises(ValueError, match="must have weights to sum"):
        Weighting(use_weights=False, class_weights="weights")
    with pytest.raises(ValueError, match="resampling of a=0"):
        Weighting(column=None, resampling={"a": 0})
    with pytest.raises(ValueError, match=r"resampling of \['d'\] must be of a, b, c"):
        EventSampler(LABEL, CLASSES, 4, {"d": 3})


@pytest.mark.parametrize(
    ("resampling", "expected"),
    [
        (None, (50, 30, 5)),
        ("under", (5, 5, 5)),
        ("over", (50, 50, 50)),
        ({"a": 20, "c": 13}, (20, 0, 13)),
    ],
)
def test_each_epoch_draws_the_wanted_numbers(
    resampling: str | dict[str, int] | None, expected: tuple[int, ...]
) -> None:
    sampler = EventSampler(LABEL, CLASSES, 4, resampling)
    sampler.set_epoch(3)
    batches = list(sampler)
    assert len(sampler) == len(batches)
    assert {len(batch) for batch in batches[:-1]} == {4}
    drawn = np.concatenate(batches)
    assert len(drawn) == sum(expected)
    assert np.bincount(LABEL[drawn], minlength=3).tolist() == list(expected)
    for number, wanted in enumerate(expected):
        places = np.flatnonzero(number == LABEL)
        times = np.bincount(drawn, minlength=len(LABEL))[places]
        least = wanted // len(places)
        assert set(times.tolist()) <= {least, least + 1}


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EventSampler(LABEL, CLASSES, 4, "under", seed)
        sampler.set_epoch(epoch)
        return [place for batch in sampler for place in batch]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert set(order(0, 0)) != set(order(0, 1))  # other events of the frequent classes


def test_training_events_must_be_of_every_class() -> None:
    require_every_class(np.append(LABEL, -1), CLASSES)
    with pytest.raises(DataError, match=r"training events: classes: found none of b, d"):
        require_every_class(np.array([0, 2, -1, -1]), (*CLASSES, "d"))
