from pathlib import Path

import numpy as np
import pytest

from hepattn.physics import xec
from hepattn.simulate.xec import XecConfig, make_events
from hepattn.simulate.xec.compare import main, mean_coverage, signal_config, summarise, table


def test_figures_are_drawn_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "xec.png"
    main(["--out", str(figure), "--num_events", "6"])
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "| photoelectrons | 100,000 to 126,000 |" in capsys.readouterr().out


def test_figures_are_those_of_the_events() -> None:
    config = signal_config(XecConfig(calibration_spread=0.0))
    events = make_events(config, 5)
    summary = summarise(events, config)
    pde = np.where(xec.sensors().is_pmt, 0.16, 0.15)
    np.testing.assert_allclose(summary.photoelectrons, events["npho"] @ pde, rtol=1e-5)
    assert len(summary.arrival) == (events["npho"] * pde > 50.0001).sum()
    assert (summary.bright < summary.hit).all()
    assert f"{np.median(summary.hit):,.0f}" in table(summary)


def test_coverage_of_the_prototype() -> None:
    for depth, expected in ((0.5, 0.43), (20.0, 0.31)):
        assert mean_coverage(depth, 200) == pytest.approx(expected, rel=0.08)
