"""Runs whose networks do more than answer a batch are exported as what a user wants of them."""

# B events, M queries, N hits

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.testing import assert_close

from experiments.hypervae_cases import NUM_SLOTS, draw_batch, make_net
from hepattn import cli
from hepattn.experiments.hypervae.generator import Generator
from hepattn.experiments.trackml.track_finder import FoundTracks
from hepattn.training.load import load_run

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra deploy")
pytest.importorskip("onnxscript", reason="needs the extra deploy")

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
SHORT = [*QUIET, "--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1"]
NET = "--model.net.init_args"
TRACKING = ["--data.num_simulated", "6", "--data.batch_size", "2"]
TRACKING += [f"{NET}.encoder.init_args.dim", "16", f"{NET}.encoder.init_args.depth", "1"]
TRACKING += [f"{NET}.decoder.init_args.depth", "1", f"{NET}.decoder.init_args.num_parameters", "5"]
TRACKING += ["--model.loss.init_args.weights.regression", "0.1"]
HYPERVAE = ["--data.num_simulated", "300", "--data.batch_size", "32"]
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def export_short_run(experiment: str, options: list[str], root: Path) -> Path:
    """The directory of a short training, which holds ``deploy/model.onnx``."""
    assert cli.main([experiment, "fit", *SHORT, *options, "--run.root", str(root)]) == 0
    (run,) = root.iterdir()
    assert cli.main(["export", str(run)]) == 0
    return run


def description(run: Path) -> dict[str, Any]:
    return json.loads((run / "deploy" / "model.json").read_text())


def answers(run: Path, inputs: dict[str, Tensor]) -> dict[str, NDArray[np.generic]]:
    session = onnxruntime.InferenceSession(run / "deploy" / "model.onnx")
    found = session.run(None, {name: x.numpy() for name, x in inputs.items()})
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, found, strict=True))


@pytest.mark.slow
def test_exported_tracks_are_those_of_the_network_whatever_padding_holds(
    tmp_path: Path, simulated_cache: Path
) -> None:
    folder = export_short_run("trackml/tracking", TRACKING, tmp_path)
    assert description(folder)["worst_relative_difference"] <= 1e-4
    run = load_run(folder)
    hits = next(iter(run.test_batches())).hits[0]  # (N, F)
    lengths = torch.tensor([len(hits), 20, 2, 0])
    valid = torch.arange(len(hits)) < lengths[:, None]
    x = hits.expand(len(lengths), -1, -1).masked_fill(~valid.unsqueeze(-1), torch.nan)
    found = answers(folder, {"x": x, "valid": valid})
    assert tuple(found) == FoundTracks._fields
    M = run.module.net.queries.num_queries
    assert found["object_score"].shape == (4, M)
    for row, length in enumerate(lengths.tolist()):
        if not length:
            assert not any(output[row].any() for output in found.values())
            continue
        with torch.no_grad():
            alone = run.module.net(hits[None, :length], valid[:1, :length])
        num = alone.query_valid.shape[1]
        last = alone.layers[-1]
        mask = found["mask_score"][row]
        assert_close(mask[:num, :length], last.mask_logit[0].sigmoid().numpy(), **CLOSE)
        assert_close(
            found["object_score"][row, :num], last.object_logit[0].sigmoid().numpy(), **CLOSE
        )
        assert_close(found["pt"][row, :num], last.parameters[0, :, 0].exp().numpy(), **CLOSE)
        assert not mask[num:].any()
        assert not mask[:, length:].any()
        assert not any(found[name][row, num:].any() for name in found if name != "mask_score")


@pytest.mark.slow
def test_exported_jets_are_those_of_the_network(tmp_path: Path, simulated_cache: Path) -> None:
    folder = export_short_run("hypervae/train", HYPERVAE, tmp_path)
    assert description(folder)["worst_relative_difference"] < 1e-5
    assert description(folder)["classes"] == ["g", "q", "t"]
    run = load_run(folder)
    rng = np.random.default_rng(0)
    inputs = {
        "label": torch.tensor([2, 0, 1, 1, 2]),
        "pt": torch.tensor([500.0, 800.0, 600.0, 1000.0, 700.0]),
        "rapidity": torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5]),
        "latent": torch.from_numpy(rng.normal(size=(5, 16)).astype(np.float32)),
        "exponential": torch.from_numpy(rng.exponential(size=(5, 30)).astype(np.float32)),
        "noise": torch.from_numpy(rng.normal(size=(5, 30, 4)).astype(np.float32)),
    }
    found = answers(folder, inputs)
    with torch.no_grad():
        vectors, valid = Generator(run.module.net)(*inputs.values())
    assert (found["valid"] == valid.numpy()).all()
    assert_close(found["vectors"], vectors.numpy(), atol=1e-2, rtol=1e-4)  # GeV
    assert not found["vectors"][~found["valid"]].any()


@pytest.mark.parametrize("topology", ["categorical", "concrete"])
def test_a_generator_makes_the_jets_that_the_network_makes_of_the_same_draws(topology: str) -> None:
    net = make_net("slim", topology).eval()
    batch = draw_batch()
    names = Generator(net).input_names()
    inputs = Generator(net).inputs_like(batch)
    assert names[4] == {"categorical": "exponential", "concrete": "uniform"}[topology]
    assert all(
        torch.equal(a, b) for a, b in zip(inputs, Generator(net).inputs_like(batch), strict=True)
    )
    label, pt, y, latent, draws, noise = inputs
    assert latent.shape[1] == net.latent_dim
    jet = torch.stack([pt * y.cosh(), pt, 0 * pt, pt * y.sinh()], 1)
    draw = iter((latent, noise))
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr("torch.randn", lambda *_, **__: next(draw))
        patch.setattr(net.topology, "draw", lambda _: draws)
        expected = net.sample(net.frame_of(jet, label))[0]
        found = Generator(net)(*inputs)
    assert found.vectors.shape == (6, NUM_SLOTS, 4)
    assert torch.equal(found.vectors, expected.vectors)
    assert torch.equal(found.valid, expected.presence.valid)


def test_numbers_are_chosen_as_a_multinomial_draw_would() -> None:
    net = make_net().topology
    jet = torch.randn(50, 9)
    torch.manual_seed(1)
    expected = torch.multinomial(net.net(jet).softmax(-1), 1).squeeze(1) + 1
    torch.manual_seed(1)
    assert torch.equal(net.choose(jet, net.draw(jet)).valid.sum(1), expected)
