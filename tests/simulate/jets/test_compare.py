from pathlib import Path

import numpy as np
import pytest

from hepattn.simulate.jets import CLASSES, JetConfig, make_jets, simulate_jets
from hepattn.simulate.jets.compare import (
    Summary,
    main,
    median_error,
    medians,
    read_jetclass,
    summarise,
)


def test_a_written_file_is_read_back(tmp_path: Path) -> None:
    (path,) = simulate_jets(tmp_path, 20, progress=False)
    read, made = read_jetclass(path), summarise(make_jets(JetConfig(), 20))
    np.testing.assert_array_equal(read.label, made.label)
    np.testing.assert_array_equal(read.num_particles, made.num_particles)
    np.testing.assert_allclose(read.pt, made.pt, rtol=1e-5)
    np.testing.assert_allclose(read.mass, made.mass, rtol=1e-3, atol=0.1)


def test_comparison_is_drawn_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = simulate_jets(tmp_path, 20, progress=False)
    figure = tmp_path / "jets.png"
    main([str(path), "--out", str(figure), "--num_shower", "20", "--num_pythia", "0"])
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "| Hbb |" in capsys.readouterr().out


def test_medians_are_those_of_the_class() -> None:
    values = np.array([1.0, 2.0, 9.0])
    summary = Summary(np.array([0, 0, 0]), values, values, values.astype(int))
    lines = medians({"real": summary}).splitlines()
    assert lines[2].startswith(f"| QCD | 2.0 ± {median_error(values):.1f} | 2.0")
    assert lines[3] == "| Hbb | – | – |"


@pytest.mark.data
def test_simulated_jets_are_alike_in_kind(data_dir: Path) -> None:
    real = read_jetclass(data_dir / "jetclass" / "JetClass_small500_p4.root")
    simulated = summarise(make_jets(JetConfig(), 1000))
    for name in CLASSES:
        for quantity, tolerance in (("mass", 0.12), ("num_particles", 0.15)):
            values = real.of(name, quantity)
            allowed = tolerance * np.median(values) + 2 * median_error(values)
            found = np.median(simulated.of(name, quantity))
            assert abs(found - np.median(values)) < allowed, (name, quantity)
