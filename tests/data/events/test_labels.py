"""Classes of processes, and which events are used."""

from collections.abc import Callable

import numpy as np
import pytest

from hepattn.data import DataError
from hepattn.data.events import Labels, Selection

PROCESSES = {"zjets": 3, "ttbar": 0, "signal": 7}


def test_every_process_is_a_class_by_default() -> None:
    labels = Labels()
    assert labels.names(PROCESSES, "file") == ("ttbar", "zjets", "signal")
    assert labels.decode(np.array([7, 0, 3, -1]), PROCESSES, "file").tolist() == [2, 0, 1, -1]


def test_groups_of_processes_are_classes_and_others_are_none() -> None:
    labels = Labels(classes={"background": ["ttbar", 3], "signal": [9, "signal"]})
    assert labels.names({}, "file") == ("background", "signal")
    process = np.array([0, 3, 7, 9, 5, -1])
    assert labels.decode(process, PROCESSES, "file").tolist() == [0, 0, 1, 1, -1, -1]


@pytest.mark.parametrize("dtype", ["?", "u1", "f4"])
def test_processes_may_be_of_any_type(dtype: str) -> None:
    labels = Labels(classes={"no": [0], "yes": [1]})
    assert labels.decode(np.array([1, 0, 1], dtype), {}, "file").tolist() == [1, 0, 1]


def test_minus_one_may_be_a_process_of_a_class() -> None:
    labels = Labels(classes={"lost": [-1], "found": [0, 1, 2]})
    assert labels.decode(np.array([-1, 2, 3]), {}, "file").tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (lambda: Labels().decode(np.array([0, 4]), PROCESSES, "f"), r"label: found 4, .*ttbar"),
        (lambda: Labels().decode(np.array([0.5]), PROCESSES, "f"), r"label: found 0.5, .*whole"),
        (lambda: Labels().decode(np.array([0]), {}, "f"), r"classes: .*give labels.classes"),
        (
            lambda: Labels(classes={"a": ["wjets"], "b": [1]}).decode(
                np.array([0]), PROCESSES, "f"
            ),
            r"no process wjets, expected processes among zjets, ttbar",
        ),
    ],
)
def test_labels_outside_are_refused(decode: Callable[[], np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        decode()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"a": [0]}, "two at least"),
        ({"a": [0], "b": []}, "class b must have a process"),
        ({"a": [0, 1], "b": [1]}, "process 1 must be in one class alone"),
    ],
)
def test_wrong_groups_are_refused(classes: dict[str, list[int | str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Labels(classes=classes)


def test_selected_events_meet_all_conditions() -> None:
    rng = np.random.default_rng(0)
    columns = {"is_tight": rng.integers(0, 3, 200), "pt": rng.integers(0, 10, 200) * 10.0}
    selection = Selection({"is_tight": [0, 2]}, {"pt": (20, 50)})
    expected = [t in (0, 2) and 20 <= p < 50 for t, p in zip(*columns.values(), strict=True)]
    assert selection.holds(columns).tolist() == expected
    assert selection.columns == {"is_tight", "pt"}


def test_selected_values_are_rounded_as_the_column_is() -> None:
    columns = {"x": np.array([0.1, 0.2], np.float32), "n": np.array([1, 2], np.uint8)}
    assert Selection({"x": [0.1]}).holds(columns).tolist() == [True, False]
    assert Selection({"n": [1.5, 2.0, 257]}).holds(columns).tolist() == [False, True]


def test_selections_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="selection of year must have a value"):
        Selection({"year": []})
    with pytest.raises(ValueError, match=r"selection of pt: \(5, 5\) must be \(low, high\)"):
        Selection(ranges={"pt": (5, 5)})
