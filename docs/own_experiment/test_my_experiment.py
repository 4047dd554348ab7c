from pathlib import Path

import pytest
import torch
from my_experiment import TrackNet, main
from torch.testing import assert_close

from hepattn.nn.encoder import Encoder
from hepattn.nn.normalise import Feature

CONFIG = Path(__file__).with_name("my_experiment.yaml")


def test_two_steps_of_everything_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(
        ["fit", "--config", str(CONFIG), "--data.num_tracks", "500", "--trainer.fast_dev_run", "2"]
    )


def test_padding_does_not_change_what_is_told() -> None:
    net = TrackNet([Feature("r", scale=0.01), Feature("phi")], Encoder(dim=8, depth=2)).eval()
    hits, valid = torch.randn(2, 6, 2), torch.arange(6) < torch.tensor([[6], [4]])
    told = net(hits, valid)
    assert_close(net(hits.masked_fill(~valid.unsqueeze(-1), torch.nan), valid), told)
    assert_close(net(hits[1:, :4], valid[1:, :4]), told[1:])
