"""Counts against formulas, times that add up, and the tool."""

import csv
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hepattn.deploy.layer_profile import LayerProfile, NetworkProfile, profile_network
from hepattn.deploy.profile import main, profile_run
from hepattn.deploy.profile_report import profile_content
from hepattn.deploy.quantised_layers import to_int8_dynamic
from hepattn.deploy.roofline import Roofline, measure_roofline
from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.ops.attention import Full, Window, make_plan
from hepattn.training.load import load_run

LIMITS = Roofline(flops_per_second=40e9, bytes_per_second=8e9)


class Slow(nn.Module):
    """A layer whose time is known to be the larger part."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(60):
            x = x + 1e-3 * x.sin()
        return x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.rest = nn.Sequential(Slow(), nn.Linear(32, 8, bias=False))
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x).relu())


def layers_of(profile: NetworkProfile) -> dict[str, LayerProfile]:
    return {layer.name: layer for layer in profile.layers}


@pytest.fixture(scope="module")
def profile() -> NetworkProfile:
    return profile_network(Net(), [torch.randn(50, 16)], num_rounds=3, clock="cpu")


def test_operations_of_linear_layers_follow_the_formula(profile: NetworkProfile) -> None:
    layers = layers_of(profile)
    assert layers["first"].forward.flops == 2 * 50 * 16 * 32
    assert layers["first"].backward.flops == 2 * 50 * 16 * 32  # the input needs no gradient
    assert layers["rest.1"].forward.flops == 2 * 50 * 32 * 8
    assert layers["rest.1"].backward.flops == 2 * 2 * 50 * 32 * 8
    assert layers["rest.0"].forward.flops == 0


def test_bytes_are_those_of_inputs_and_outputs(profile: NetworkProfile) -> None:
    layers = layers_of(profile)
    moved = 4 * (50 * 32 + 32 * 8 + 50 * 8)
    assert layers["rest.1"].forward.moved == moved
    assert layers["rest.1"].forward.allocated == 4 * 50 * 8
    assert layers[""].forward.moved == 2 * 4 * 50 * 32  # the relu between the layers


def test_only_layers_that_ran_are_listed(profile: NetworkProfile) -> None:
    assert list(layers_of(profile)) == ["", "first", "rest", "rest.0", "rest.1"]


def test_times_of_layers_exclude_the_layers_inside(profile: NetworkProfile) -> None:
    layers = layers_of(profile)
    for direction in ("forward_seconds", "backward_seconds"):
        seconds = {name: getattr(layer, direction) for name, layer in layers.items()}
        assert seconds["rest.0"] > 0.5 * sum(seconds.values())
        assert seconds["rest"] < 0.2 * seconds["rest.0"]


def test_shares_add_up_to_the_whole(profile: NetworkProfile) -> None:
    content = profile_content(profile, LIMITS)
    assert sum(row["share"] for row in content["layers"]) == pytest.approx(1)
    watched = content["forward_watched_ms"]
    assert 0.3 < watched / content["forward_ms"] < 3  # of few rounds on a shared machine


def test_a_network_is_not_changed_by_its_profile() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {name: x.clone() for name, x in net.state_dict().items()}
    profile_network(net, [torch.randn(6, 4)], num_rounds=1)
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(layer._forward_hooks for layer in net.modules())


class Attend(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(8, AttentionOptions(num_heads=2, backend="sdpa"))
        self.pattern = Full()

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return self.attention(x, make_plan(self.pattern, valid))[0]


def test_attention_counts_both_of_its_products() -> None:
    inputs = [torch.randn(3, 5, 8), torch.ones(3, 5, dtype=torch.bool)]
    profile = profile_network(Attend(), inputs, num_rounds=1)
    own = layers_of(profile)["attention"]
    assert own.forward.flops == 2 * 2 * 3 * 5 * 5 * 8
    assert own.backward.flops == 5 * 2 * 3 * 5 * 5 * 8


def test_a_layer_with_uncounted_operations_gets_no_verdict() -> None:
    options = AttentionOptions(num_heads=2, backend="local")
    net = Attend()
    net.attention = Attention(8, options)
    net.pattern = Window(2)
    inputs = [torch.randn(3, 8, 8), torch.ones(3, 8, dtype=torch.bool)]
    profile = profile_network(net, inputs, backward=False, num_rounds=1)
    assert profile.unknown == {"hepattn.local_attention": 1}
    rows = {row["layer"]: row for row in profile_content(profile, LIMITS)["layers"]}
    assert rows["attention"]["forward_bound"] is None
    assert rows["attention.query"]["forward_bound"] == "memory"


def test_integer_layers_count_their_product() -> None:
    layer = nn.Sequential(to_int8_dynamic(nn.Linear(32, 40)))
    profile = profile_network(layer, [torch.randn(9, 32)], backward=False, num_rounds=1)
    own = layers_of(profile)["0"]
    assert own.forward.flops == 2 * 9 * 32 * 40
    assert own.backward_seconds is None
    assert profile.unknown == {}


def test_a_roofline_says_which_limit_is_met() -> None:
    assert LIMITS.ridge == 5
    assert LIMITS.bound(flops=6e9, moved=1e9) == "compute"
    assert LIMITS.bound(flops=4e9, moved=1e9) == "memory"
    assert LIMITS.seconds(flops=4e9, moved=1e9) == pytest.approx(1 / 8)
    assert LIMITS.seconds(flops=40e9, moved=1e9) == pytest.approx(1)


def test_measured_limits_are_those_of_a_computer() -> None:
    limits = measure_roofline(size=128, num_megabytes=4, num_rounds=2)
    assert 1e8 < limits.flops_per_second < 1e14
    assert 1e8 < limits.bytes_per_second < 1e13


def test_the_tool_writes_numbers_figures_and_traces(tiny_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "profile"
    against = ["sdpa", "bfloat16"]
    content = profile_run(load_run(tiny_run), folder, against, num_rounds=1, roofline=LIMITS)
    assert json.loads((folder / "profile.json").read_text()) == content
    assert list(content["forward_ms"]) == ["base", *against]
    rows = list(csv.DictReader((folder / "layers.csv").read_text().splitlines()))
    assert {row["network"] for row in rows} == {"base", *against}
    for name in ("base", *against):
        layers = {row["layer"] for row in rows if row["network"] == name}
        assert {"embed", "layers.0.query", "head"} <= layers
    assert {path.name for path in folder.glob("*.png")} == {"layers.png", "roofline.png"}
    trace = json.loads((folder / "trace_base.json").read_text())
    names = {event.get("name") for event in trace["traceEvents"]}
    assert {"layer layers.0", "layer head"} <= names


def test_the_command_line_names_what_it_does_not_know(
    tiny_run: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main([str(tiny_run), "--against", "magic"])
    assert "magic" in capsys.readouterr().err
