"""Eight-bit layers against integer sums, calibration, training, files and the tool."""

# P rows, K inputs, D outputs

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.deploy.activation_ranges import (
    RangeObserver,
    make_dynamic,
    make_static,
    measure_ranges,
    train_quantised,
)
from hepattn.deploy.int8 import (
    activation_range,
    exact_product,
    has_onednn,
    pack,
    packed_product,
    quantise_activation,
    quantise_rows,
    quantise_weight,
)
from hepattn.deploy.quantise import main
from hepattn.deploy.quantised_file import load_quantised, save_quantised, size_in_bytes
from hepattn.deploy.quantised_layers import (
    FakeQuantised,
    Int8Dynamic,
    Int8Static,
    called_layers,
    replace_layers,
    to_int8_dynamic,
    to_int8_weight,
)
from hepattn.training.load import load_run


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Linear(32, 64)
        self.contract = nn.Linear(64, 32, bias=False)
        self.small = nn.Linear(32, 3)
        self.read = nn.Linear(32, 32)  # its weight is used, but not its forward

    def forward(self, x: Tensor) -> Tensor:
        x = self.contract(nn.functional.gelu(self.expand(x))) @ self.read.weight
        return self.small(x)


@pytest.fixture
def net() -> Net:
    return Net().eval()


def integer_reference(x: Tensor, zero: int, weight: Tensor) -> Tensor:
    """Sums of products in numpy's 32-bit integers."""
    products = (x.numpy().astype(np.int32) - zero) @ weight.numpy().astype(np.int32).T
    return torch.from_numpy(products).double()


def static_layer(linear: nn.Linear, x: Tensor) -> Int8Static:
    observer = RangeObserver()
    observer.update(x)
    return FakeQuantised(linear, *observer.range()).convert()


def test_weights_round_to_the_nearest_of_their_outputs_own_scale() -> None:
    weight = torch.randn(5, 33) * torch.tensor([1e-3, 1, 10, 0, 1e4])[:, None]
    integers, scale = quantise_weight(weight)
    wide = weight.double() / scale.double()[:, None]
    assert float((integers - wide).abs().max()) <= 0.5 + 1e-4
    peak = integers.abs().amax(1)
    assert peak.tolist() == [127, 127, 127, 0, 127]


def test_activations_round_to_the_nearest_step_and_stop_at_the_ends() -> None:
    scale, zero = activation_range(torch.tensor(-1.0), torch.tensor(3.0))
    x = torch.linspace(-2, 5, 501)
    integers = quantise_activation(x, scale, zero)
    wanted = (x.double() / float(scale) + float(zero) + 0.5).floor().clamp(0, 127)
    assert int((integers != wanted).sum()) < 5  # where float32 meets a half
    assert quantise_activation(torch.zeros(()), scale, zero) == zero


def test_rows_have_their_own_range() -> None:
    x = torch.randn(6, 40) * torch.logspace(-3, 3, 6)[:, None]
    integers, scale = quantise_rows(x)
    assert float(((integers.float() - 64) * scale - x).abs().div(scale).max()) <= 0.5 + 1e-3
    assert int(integers.float().sub(64).abs().amax()) == 63


@pytest.mark.parametrize("shape", [(7, 33, 20), (64, 512, 40), (5, 2000, 3)])
@pytest.mark.parametrize("extreme", [False, True])
def test_products_are_those_of_32_bit_integers(shape: tuple[int, int, int], extreme: bool) -> None:
    P, K, D = shape
    x = torch.randint(0, 128, (P, K), dtype=torch.uint8)
    weight = torch.randint(-127, 128, (D, K), dtype=torch.int8)
    if extreme:
        x, weight = x.fill_(127), weight.fill_(-127)
    scale, zero, ones = torch.ones(()), torch.tensor(19.0), torch.ones(D)
    wanted = integer_reference(x, 19, weight).float()
    assert torch.equal(exact_product(x, scale, zero, weight, ones), wanted)
    if has_onednn():
        assert torch.equal(packed_product(x, scale, zero, pack(weight), ones), wanted)


@pytest.mark.parametrize("packed", [True, False])
def test_a_static_layer_is_the_scaled_integer_product(packed: bool) -> None:
    linear, x = nn.Linear(48, 40), torch.randn(3, 5, 48)
    layer = static_layer(linear, x)
    if not packed:
        layer.packed = None
    rows = quantise_activation(x.flatten(0, 1), layer.input_scale, layer.input_zero)
    total = integer_reference(rows, int(layer.input_zero), layer.weight_int8)
    scale = layer.input_scale.double() * layer.weight_scale.double()
    wanted = total * scale + linear.bias.double()
    assert_close(layer(x).double(), wanted.view(3, 5, 40).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [to_int8_dynamic, to_int8_weight])
def test_layers_are_close_to_the_ones_that_they_were(make: type) -> None:
    linear, x = nn.Linear(128, 64, bias=False), torch.randn(200, 128)
    difference = (make(linear)(x) - linear(x)).norm() / linear(x).norm()
    assert difference < 0.02


def test_a_dynamic_answer_depends_on_no_other_event() -> None:
    layer, x = to_int8_dynamic(nn.Linear(32, 32)), torch.randn(4, 6, 32)
    louder = torch.cat([x[:1], 1e3 * x[1:]])
    assert torch.equal(layer(x)[0], layer(louder)[0])


@pytest.mark.parametrize("make", [to_int8_dynamic, to_int8_weight])
def test_nothing_in_gives_nothing_out(make: type) -> None:
    assert make(nn.Linear(32, 40))(torch.empty(2, 0, 32)).shape == (2, 0, 40)


def test_a_copied_layer_answers_alike() -> None:
    linear, x = nn.Linear(32, 40), torch.randn(5, 32)
    layer = static_layer(linear, x)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_layers_that_are_small_or_never_called_stay(net: Net) -> None:
    x = torch.randn(4, 32)
    assert list(called_layers(net, [(x,)])) == ["expand", "contract"]
    with pytest.raises(ValueError, match="min_features=100"):
        called_layers(net, [(x,)], min_features=100)


def test_a_layer_in_two_places_is_replaced_in_both() -> None:
    shared = nn.Linear(32, 32)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    replace_layers(net, ["0"], lambda _, layer: to_int8_dynamic(layer))
    assert net[0] is net[2]
    assert isinstance(net[2], Int8Dynamic)


def test_ranges_hold_all_batches_or_all_but_their_tails() -> None:
    batches = [torch.arange(-10_000.0, 10_000.0), torch.tensor([2e6, 0.0]).repeat(10_000)]
    spans = {}
    for rule in ("minmax", "percentile"):
        observer = RangeObserver(rule)
        for batch in batches:
            observer.update(batch)
        scale, zero = observer.range()
        spans[rule] = (float(-zero * scale), float((127 - zero) * scale))
    assert spans["minmax"][1] == pytest.approx(2e6, rel=0.01)
    assert spans["percentile"][1] == pytest.approx(1e6, rel=0.02)


def test_a_range_of_nothing_or_of_nan_is_refused() -> None:
    observer = RangeObserver()
    with pytest.raises(ValueError, match="at least one batch"):
        observer.range()
    observer.update(torch.tensor([1.0, torch.nan]))
    with pytest.raises(ValueError, match="healthy"):
        observer.range()


def test_fake_rounding_is_that_of_the_integers_and_lets_gradients_through() -> None:
    linear, x = nn.Linear(32, 40), torch.randn(50, 32)
    layer = FakeQuantised(linear, *activation_range(torch.tensor(-1.0), torch.tensor(1.0)))
    x.requires_grad_()
    out = layer(x)
    assert_close(out, layer.convert()(x), rtol=1e-4, atol=1e-4)
    out.sum().backward()
    inside = (x.abs() < 0.97).detach()
    outside = (x.abs() > 1.03).detach()
    expected = quantise_weight(linear.weight)
    weight = (expected[0] * expected[1][:, None]).sum(0).expand_as(x)
    assert_close(x.grad[inside], weight[inside], rtol=1e-4, atol=1e-4)
    assert bool((x.grad[outside] == 0).all())
    assert linear.weight.grad is not None


class Regression(nn.Module):
    """Learn another network's answers, as a module of a run would."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.Linear(32, 32))
        # one loud input makes the steps of all others coarse
        self.x = torch.cat([20 * torch.randn(64, 1), torch.randn(64, 31)], 1)
        self.goal = copy.deepcopy(self.net).eval()(self.x).detach()

    def forward(self, batch: Tensor) -> Tensor:
        return self.net(batch)

    def losses(self, batch: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        return {"square": (outputs - self.goal).square().mean()}


def test_training_with_rounding_recovers_what_rounding_cost() -> None:
    module = Regression().eval()
    ranges = measure_ranges(module.net, ["0", "2"], [(module.x,)])
    plain = copy.deepcopy(module)
    make_static(plain.net, ranges)
    before = float(plain.losses(plain.x, plain(plain.x))["square"])
    statistics = module.net[1].running_mean.clone()
    losses = train_quantised(module, ranges, [module.x], num_steps=60, lr=1e-3)
    after = float(module.losses(module.x, module(module.x))["square"])
    assert len(losses) == 60
    assert after < 0.8 * before
    assert isinstance(module.net[2], Int8Static)
    assert not module.training
    assert torch.equal(module.net[1].running_mean, statistics)


def test_training_without_batches_is_refused() -> None:
    module = Regression().eval()
    with pytest.raises(ValueError, match="no training batches"):
        train_quantised(module, measure_ranges(module.net, ["0"], [(module.x,)]), [])


@pytest.mark.parametrize("method", ["dynamic", "weight-only", "static"])
def test_a_file_of_weights_restores_the_answers(net: Net, method: str, tmp_path: Path) -> None:
    x = torch.randn(8, 32)
    fresh, names = copy.deepcopy(net), ["expand", "contract"]
    if method == "static":
        make_static(net, measure_ranges(net, names, [(x,)]))
    elif method == "dynamic":
        make_dynamic(net, names)
    else:
        replace_layers(net, names, lambda _, layer: to_int8_weight(layer))
    path = tmp_path / "new" / "weights.safetensors"
    save_quantised(net, path)
    load_quantised(fresh, path)
    assert torch.equal(fresh(x), net(x))
    assert size_in_bytes(net) < 0.5 * size_in_bytes(Net())
    with pytest.raises(FileExistsError, match="remove it"):
        save_quantised(net, path)
    with pytest.raises(ValueError, match="does not fit"):
        load_quantised(nn.Sequential(nn.Linear(2, 2)), path)


def test_weights_that_are_loaded_later_count(net: Net) -> None:
    x = torch.randn(8, 32)
    make_dynamic(net, ["expand"])
    other = Net().eval()
    make_dynamic(other, ["expand"])
    net.load_state_dict(other.state_dict())
    assert torch.equal(net(x), other(x))


def test_the_tool_reports_and_writes_every_method(
    tiny_run: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--num_steps", "3", "--min_features", "8", "--num_rounds", "1"]
    main([str(tiny_run), *options])
    assert "largest difference" in capsys.readouterr().out
    folder = tiny_run / "deploy" / "quantise"
    report = json.loads((folder / "report.json").read_text())
    assert list(report["networks"]) == ["float32", "dynamic", "weight-only", "static", "qat"]
    base = report["networks"]["float32"]
    assert base["difference"] == 0
    for name, row in report["networks"].items():
        assert 0 <= row["accuracy"] <= 1
        assert row["milliseconds"] > 0
        if name == "float32":
            continue
        assert 0 < row["difference"] < 0.1
        assert row["megabytes"] < base["megabytes"]
        loaded = load_run(tiny_run)
        load_quantised(loaded.module.net, folder / row["file"])
        batch = SimpleNamespace(**next(iter(loaded.test_batches()))._asdict())
        assert bool(loaded.module(batch).isfinite().all())


def test_a_network_without_wide_layers_ends_the_tool_with_one_line(
    tiny_run: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main([str(tiny_run), "--min_features", "999"])
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the network calls no linear")
