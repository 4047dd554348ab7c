"""The ablation: every variant trains a step, runs are not repeated, figures are what they say."""

import json
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import Namespace
from torch import Tensor

from hepattn.data.trackml import HitBatch
from hepattn.experiments.trackml import ablation
from hepattn.experiments.trackml.ablation import COLUMNS, CONFIG, main, summarise
from hepattn.experiments.trackml.ablation_variants import (
    COORDINATES,
    VARIANTS,
    WEIGHTS_OF,
    describe,
    make_config,
)
from hepattn.experiments.trackml.attention_pattern import attention_pattern
from hepattn.experiments.trackml.data import TrackMLData
from hepattn.experiments.trackml.tracking import Tracking
from hepattn.losses.classification import BinaryCrossEntropy
from hepattn.losses.set_prediction import SetPredictionLoss
from hepattn.models.mask_former import MaskFormer
from hepattn.nn.attention_maps import record_attention
from hepattn.nn.normalise import Feature
from hepattn.simulate.tracker import TrackerConfig
from hepattn.training.parser import Parser

pytestmark = pytest.mark.slow

SHIPPED = yaml.safe_load(CONFIG.read_text())
SMALL = {"encoder.dim": 16, "encoder.depth": 1, "decoder.depth": 2}
OPTIONS = ["--seeds", "0", "--epochs", "1", "--num_simulated", "6", "--data.batch_size", "2"]
OPTIONS += ["--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
OPTIONS += ["--model.net.init_args.encoder.init_args.dim=16"]
OPTIONS += ["--model.net.init_args.decoder.init_args.depth=2"]


@pytest.fixture(scope="module")
def features() -> tuple[Feature, ...]:
    parser = Parser()
    parser.add_argument("--features", type=tuple[Feature, ...])
    shipped = parser.parse_object({"features": SHIPPED["data"]["features"]})
    return parser.instantiate(shipped).features


@pytest.fixture(scope="module")
def batch(features: tuple[Feature, ...], simulated_cache: Path) -> HitBatch:
    simulation = TrackerConfig(50)
    data = TrackMLData(features, simulation=simulation, num_simulated=6, batch_size=2)
    data.prepare_data()
    return next(iter(data.train_dataloader()))


def parse(changes: dict[str, Any]) -> Namespace:
    """The parsed options of network and loss, behind those of the shipped config."""
    parser = make_parser()
    own, shipped = (
        {
            "net": model.get("net", {}).get("init_args", {}),
            "loss": model.get("loss", {}).get("init_args", {}),
        }
        for model in (make_config(changes | SMALL)["model"], SHIPPED["model"])
    )
    return parser.parse_args([f"--config={json.dumps(tree)}" for tree in (shipped, own)])


@cache
def make_parser() -> Parser:
    parser = Parser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(MaskFormer, "net", skip={"features"}, instantiate=False)
    parser.add_class_arguments(SetPredictionLoss, "loss")
    return parser


def build(options: Namespace, features: Sequence[Feature]) -> Tracking:
    """The experiment's module with a small network."""
    torch.manual_seed(0)
    built = make_parser().instantiate(options)
    net = partial(MaskFormer, **built.net)
    return Tracking(features, net, built.loss, BinaryCrossEntropy(), partial(torch.optim.SGD, lr=1))


def holds(found: Any, expected: Any) -> bool:
    """Whether a tree of options has all that another one has."""
    if isinstance(expected, dict):
        return all(holds(found[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return all(holds(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    return found == expected


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_changes_what_it_says_and_trains_a_step(
    name: str, features: tuple[Feature, ...], batch: HitBatch
) -> None:
    options = parse(VARIANTS[name])
    for key, value in VARIANTS[name].items():
        room, _, rest = key.partition(".")
        path = key if room == "loss" else f"net.{room}.init_args.{rest}" if rest else f"net.{room}"
        found = options[path]
        assert holds(found.as_dict() if isinstance(found, Namespace) else found, value)
    module = build(options, features)
    if name in WEIGHTS_OF:
        lender = build(parse(VARIANTS[WEIGHTS_OF[name]]), features)
        lender.load_state_dict(module.state_dict())
        module = lender
    sum(module.losses(batch, module(batch)).values()).backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


def test_encodings_of_phi_add_to_the_coordinates_that_are_shipped() -> None:
    shipped = SHIPPED["model"]["net"]["init_args"]["position"]["init_args"]["coordinates"]
    expected = [{"scale": 1.0} | c for c in shipped if c["name"] != "phi"]
    assert COORDINATES[1:] == expected


def naive_pattern(net: MaskFormer, batch: HitBatch, sees: Callable) -> dict[str, np.ndarray]:
    """Loop over queries; ``sees`` gives the hits (M, N) that the queries of an event may see."""
    with record_attention(net) as recorded:
        found = net(batch.hits, batch.valid)
    num_layers, threshold = len(net.decoder.layers), math.log(0.1 / 0.9)
    sums = {name: [[] for _ in range(num_layers)] for name in ("selected", "empty", "distance")}
    for event, real in enumerate(batch.valid):
        phi = batch.hits[event, real, net.sort_column]
        order = phi.argsort()
        num_queries = int(found.query_valid[event].sum())
        seeds = found.seed[event, :num_queries]
        for index in range(num_layers):
            logit = found.layers[index].mask_logit[event, :num_queries, real]
            visible = sees(logit, order.argsort(), seeds)
            maps = recorded.get(f"decoder.layers.{index}.cross_attention")
            for query in range(num_queries):
                mine = [n for n in range(len(phi)) if visible[query, n]]
                selected = sum(bool(logit[query, n] >= threshold) for n in mine)
                sums["selected"][index].append(selected)
                sums["empty"][index].append(selected == 0)
                weights = {n: 1 / len(mine) for n in mine}
                if maps is not None:
                    row = maps[event, :, query].mean(0)
                    weights = {int(n): float(row[place]) for place, n in enumerate(order)}
                apart = {n: abs(float(phi[n] - phi[seeds[query]])) for n in weights}
                if weights:
                    mean = sum(
                        w * min(apart[n], 2 * math.pi - apart[n]) for n, w in weights.items()
                    )
                    sums["distance"][index].append(mean)
    return {name: np.array([np.mean(layer) for layer in v]) for name, v in sums.items()}


def see_all(logit: Tensor, rank: Tensor, seeds: Tensor) -> Tensor:
    return torch.ones_like(logit) > 0


def see_own(logit: Tensor, rank: Tensor, seeds: Tensor) -> Tensor:
    return logit == logit.max(0).values


def see_near(logit: Tensor, rank: Tensor, seeds: Tensor) -> Tensor:
    apart = (rank - rank[seeds].unsqueeze(1)).abs()
    return torch.minimum(apart, len(rank) - apart) <= 16


SEES = {"baseline": see_all, "kmeans": see_own, "local_32": see_near}


@pytest.mark.parametrize("name", SEES)
def test_attention_pattern_equals_a_loop_over_queries(
    name: str, features: tuple[Feature, ...], batch: HitBatch
) -> None:
    net = build(parse(VARIANTS[name]), features).net.eval()
    with torch.no_grad():
        expected = naive_pattern(net, batch, SEES[name])
    found = attention_pattern(net, [batch, batch])
    assert found.keys() == expected.keys()
    for figure, values in expected.items():
        np.testing.assert_allclose(found[figure], values, rtol=1e-4)
    assert not any(module._forward_hooks for module in net.modules())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, simulated_cache: Path) -> Path:
    """The folder of an ablation of one run."""
    out = tmp_path_factory.mktemp("ablation")
    main([*OPTIONS, "--out", str(out), "--variants", "baseline"])
    return out


def test_an_ablation_writes_its_figures_and_a_table(finished: Path) -> None:
    (figures,) = json.loads((finished / "ablation.json").read_text())["variants"].values()
    figures = figures["seeds"]["0"]
    assert figures.keys() == COLUMNS.keys()
    assert 0 <= figures["efficiency"] <= 1
    assert figures["seconds"] > 0
    assert len(figures["selected"]) == 2
    table = [x for x in (finished / "ablation.md").read_text().splitlines() if x.startswith("|")]
    assert [line.count("|") for line in table] == [len(COLUMNS) + 3] * 3
    assert f"{figures['loss']:.3f}" in table[-1]


def test_what_is_finished_is_not_repeated(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "run", None)
    before = (finished / "ablation.json").read_text()
    main([*OPTIONS, "--out", str(finished), "--variants", "baseline"])
    assert (finished / "ablation.json").read_text() == before


def test_another_setting_needs_another_folder(finished: Path) -> None:
    with pytest.raises(SystemExit, match=r"baseline_seed0.* other options; choose another --out"):
        main([*OPTIONS, "--epochs", "2", "--out", str(finished), "--variants", "baseline"])


def test_another_config_needs_another_folder(tmp_path: Path) -> None:
    (tmp_path / CONFIG.name).write_text("seed_everything: 1\n")
    with pytest.raises(SystemExit, match=r"tracking\.yaml differs .* choose another --out"):
        main([*OPTIONS, "--out", str(tmp_path), "--variants", "baseline"])


def test_another_backend_takes_the_weights_of_a_variant_and_must_give_its_loss(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WEIGHTS_OF, "other", "baseline")
    # flex itself would compile for half a minute
    monkeypatch.setitem(VARIANTS, "other", {"encoder.attention.backend": "sdpa"})
    main([*OPTIONS, "--out", str(finished), "--variants", "other"])
    found, lender = (
        json.loads((finished / f"{name}_seed0" / "result.json").read_text())["figures"]
        for name in ("other", "baseline")
    )
    assert found["seconds"] is None
    assert found["loss"] == pytest.approx(lender["loss"], rel=1e-4)
    assert found["distance"] == pytest.approx(lender["distance"], rel=1e-4)
    (finished / "other_seed0" / "result.json").unlink()
    monkeypatch.setitem(VARIANTS, "other", {"encoder.window": 2})
    with pytest.raises(RuntimeError, match="other: loss="):
        main([*OPTIONS, "--out", str(finished), "--variants", "other"])


def test_borrowed_weights_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="flex has the weights of baseline_seed0"):
        main([*OPTIONS, "--out", str(tmp_path), "--variants", "flex"])


def test_figures_are_averaged_over_the_seeds() -> None:
    one = dict.fromkeys(COLUMNS, 1.0) | {"selected": [1.0, 2.0], "fake_rate": None}
    two = dict.fromkeys(COLUMNS, 3.0) | {"selected": [3.0, 6.0], "fake_rate": 0.5}
    summary = summarise([one, two])
    assert summary["loss"] == (2.0, pytest.approx(math.sqrt(2)))
    np.testing.assert_allclose(summary["selected"][0], [2.0, 4.0])
    assert math.isnan(summary["fake_rate"][0])  # of no tracks there is none
    assert math.isnan(summarise([one])["loss"][1])


def test_a_change_is_described_by_its_key_and_class() -> None:
    assert describe(VARIANTS["off_diagonal_penalty"]) == (
        "`decoder.mask_bias: OffDiagonalPenalty(strength=0.1, free=16)`, `decoder.wrap: true`"
    )
    assert describe(VARIANTS["baseline"]) == ""
