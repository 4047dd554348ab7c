"""Density-ratio losses: their lowest point is the true ratio."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.losses.density_ratio import (
    KLIEP,
    LSIF,
    Bregman,
    DensityRatioLoss,
    Exponential,
    Logistic,
    Savage,
    Square,
    SquaredError,
    Tangent,
)

DENSITY_RATIO_LOSSES: dict[str, type[DensityRatioLoss]] = {
    "bce": Logistic,
    "logistic": Logistic,
    "exp": Exponential,
    "savage": Savage,
    "tangent": Tangent,
    "bregman": Bregman,
    "mse": SquaredError,
    "square": Square,
    "lsif": LSIF,
    "kliep": KLIEP,
}
NAMES = pytest.mark.parametrize("name", DENSITY_RATIO_LOSSES)
RATIOS = torch.tensor([0.02, 0.3, 0.9, 1.0, 2.0, 5.0, 30.0], dtype=torch.float64)


def divergence(ratio: float) -> tuple[float, float]:
    """Costs of the curvature e^2r, which falls as 1/r from r = 1/2 on, by integrals from 0."""

    def curvature(r: float) -> float:
        return math.exp(2 * r) if r < 0.5 else math.e / 2 / r

    first = quad(curvature, 0, ratio, points=[min(0.5, ratio)])[0]
    second = quad(lambda r: r * curvature(r), 0, ratio, points=[min(0.5, ratio)])[0]
    return -0.5 - first, -0.25 + second


def textbook(name: str, f: float) -> tuple[float, float]:
    """Costs in the numerator and in the denominator, by their formulas."""
    p, ratio = 1 / (1 + math.exp(-f)), math.log(1 + math.exp(f))
    return {
        "bce": (-math.log(p), -math.log(1 - p)),
        "logistic": (math.log(1 + math.exp(-f)), math.log(1 + math.exp(f))),
        "exp": (math.exp(-f), math.exp(f)),
        "savage": ((1 + math.exp(f)) ** -2, (1 + math.exp(-f)) ** -2),
        "tangent": ((2 * math.atan(f) - 1) ** 2, (2 * math.atan(-f) - 1) ** 2),
        "bregman": divergence(ratio),
        "mse": ((f - 1) ** 2, f**2),
        "square": ((1 - f) ** 2, (1 + f) ** 2),
        "lsif": (-ratio, ratio**2 / 2),
        "kliep": (-math.log(ratio), ratio),
    }[name]


def lowest(loss: DensityRatioLoss, ratio: Tensor) -> Tensor:
    """Output at which r · numerator + denominator is lowest, by halving where its slope turns."""
    low, high = torch.full_like(ratio, -20), torch.full_like(ratio, 40)
    for _ in range(60):
        middle = ((low + high) / 2).requires_grad_()
        numerator, denominator = loss.costs(middle)
        (slope,) = torch.autograd.grad((ratio * numerator + denominator).sum(), middle)
        low = torch.where(slope < 0, middle.detach(), low)
        high = torch.where(slope < 0, high, middle.detach())
    return low


def test_bregman_begins_as_the_divergence_of_its_exponential() -> None:
    ratio = torch.linspace(0.01, 0.49, 9, dtype=torch.float64)
    numerator, denominator = Bregman().costs(ratio.expm1().log())
    assert_close(numerator, -(2 * ratio).exp() / 2)
    assert_close(denominator, (2 * ratio).exp() * (2 * ratio - 1) / 4)


@NAMES
@pytest.mark.parametrize("f", [-8.0, -2.0, -0.7, 0.3, 2.5])
def test_costs_are_those_of_the_formulas(name: str, f: float) -> None:
    answer = DENSITY_RATIO_LOSSES[name]().costs(torch.tensor(f, dtype=torch.float64))
    assert [float(x) for x in answer] == pytest.approx(textbook(name, f), rel=1e-6)


@NAMES
def test_lowest_point_is_the_true_ratio(name: str) -> None:
    loss = DENSITY_RATIO_LOSSES[name]()
    assert_close(loss.log_ratio(lowest(loss, RATIOS)), RATIOS.log(), rtol=1e-5, atol=1e-5)


@NAMES
@pytest.mark.parametrize("f", [-200.0, -90.0, -30.0, 30.0, 90.0, 200.0])
def test_huge_outputs_have_finite_losses_ratios_and_gradients(name: str, f: float) -> None:
    loss = DENSITY_RATIO_LOSSES[name](w_lambda=0.1, ess_lambda=0.1)
    output = torch.tensor([f, f, 0.0], requires_grad=True)
    answer = loss(output, torch.tensor([1, 0, 1]), torch.ones(3))
    answer.backward()
    assert answer.isfinite()
    assert output.grad.isfinite().all()
    ratio = loss.log_ratio(output)
    assert ratio.isfinite().all()
    assert (ratio[0] - loss.log_ratio(torch.tensor(0.1))).sign() == math.copysign(1, f)


@pytest.mark.parametrize(
    ("name", "factor"), [("bce", 1), ("logistic", 1), ("exp", 2), ("savage", 1)]
)
def test_exponential_links_are_exact_for_huge_outputs(name: str, factor: int) -> None:
    f = torch.tensor([-200.0, 200.0])
    assert torch.equal(DENSITY_RATIO_LOSSES[name]().log_ratio(f), factor * f)


@pytest.mark.parametrize("name", ["kliep", "bregman"])
def test_logarithm_of_softplus_is_that_of_float64(name: str) -> None:
    f = torch.linspace(-30, 30, 241)
    expected = F.softplus(f.double(), threshold=100).log()
    answer = DENSITY_RATIO_LOSSES[name]().log_ratio(f)
    assert_close(answer.double(), expected, rtol=1e-6, atol=1e-6)
    assert DENSITY_RATIO_LOSSES[name]().log_ratio(torch.tensor(-200.0)) == -200


@pytest.mark.parametrize("weights", ["none", "positive", "signed"])
@NAMES
def test_ratio_is_found_on_samples(name: str, weights: str) -> None:
    """Descent in a histogram: one output for each of four bins of 40,000 events."""
    share = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.3, 0.2, 0.4]])  # denominator, numerator
    label = torch.arange(40_000) % 2
    bins = torch.multinomial(share, 20_000, replacement=True).T.flatten()
    weight = torch.ones(40_000)
    if weights != "none":
        weight = torch.rand(40_000) + 0.5
    if weights == "signed":
        weight = torch.where(torch.rand(40_000) < 0.05, -weight, weight)
    options = {"allow_negative_weights": True} if weights == "signed" else {}
    loss = DENSITY_RATIO_LOSSES[name](**options)
    f = torch.full((4,), 0.5, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [f], max_iter=60, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        answer = loss(f[bins], label, weight)
        answer.backward()
        return answer

    optimizer.step(closure)
    yields = torch.zeros(2, 4).index_put_((label, bins), weight, accumulate=True)
    ratio = loss.log_ratio(f.detach()).float()
    assert_close(ratio, (yields[1] / yields[0]).log(), rtol=0, atol=2e-3)
    assert_close(ratio, (share[1] / share[0]).log(), rtol=0, atol=0.08)


@NAMES
def test_bounded_losses_take_negative_weights_and_others_refuse(name: str) -> None:
    cls = DENSITY_RATIO_LOSSES[name]
    label, weight = torch.tensor([1, 0]), torch.tensor([-1.0, -1.0])
    worst = [
        float(cls(allow_negative_weights=True)(torch.tensor([-f, f]), label, weight))
        for f in (1e2, 1e4)
    ]
    assert cls.bounded_below == (worst[1] > 2 * worst[0] - 1)
    if cls.bounded_below:
        assert cls()(torch.tensor([-1e4, 1e4]), label, weight) == worst[1]
    else:
        with pytest.raises(ValueError, match=r"2 of 2 events have negative weights"):
            cls()(torch.zeros(2), label, weight)
        assert cls().eval()(torch.zeros(2), label, weight).isfinite()


def test_a_third_label_is_refused() -> None:
    with pytest.raises(ValueError, match="labels 0 and 1, not for 2"):
        Logistic()(torch.zeros(3), torch.tensor([0, 1, 2]), torch.ones(3))


@pytest.mark.parametrize("name", ["bce", "lsif", "square"])
@pytest.mark.parametrize("normalise", ["weights", "count"])
def test_regularisers_see_each_event_that_counts_alike(name: str, normalise: str) -> None:
    f = torch.tensor([0.3, -0.8, 0.5, torch.nan, 0.1])
    label, weight = torch.tensor([1, 0, 0, 1, 1]), torch.tensor([1.0, 3.0, 0.5, 0.0, 2.0])
    cls, keep = DENSITY_RATIO_LOSSES[name], [0, 1, 2, 4]
    plain = cls(normalise=normalise)
    ratios = plain.log_ratio(f[keep]).exp().tolist()
    pull = sum(math.log(r) ** 2 for r in ratios) / 4
    one_over_ess = sum(r**2 for r in ratios) / sum(ratios) ** 2
    loss = cls(w_lambda=0.3, ess_lambda=0.7, normalise=normalise)
    expected = plain(f, label, weight) + 0.3 * pull + 0.7 * one_over_ess
    assert_close(loss(f, label, weight), expected)


def test_regularisers_have_the_gradients_of_differences() -> None:
    f = torch.randn(5, dtype=torch.float64, requires_grad=True)
    label, weight = torch.tensor([1, 0, 0, 1, -1]), torch.rand(5, dtype=torch.float64)
    loss = Logistic(w_lambda=0.3, ess_lambda=0.7)
    assert torch.autograd.gradcheck(lambda x: loss(x, label, weight), f)


def test_batch_without_weight_has_no_loss_and_no_regulariser() -> None:
    f = torch.tensor([1.0, torch.nan], requires_grad=True)
    loss = Logistic(w_lambda=0.3, ess_lambda=0.7)
    answer = loss(f, torch.tensor([1, -1]), torch.tensor([0.0, 1.0]))
    answer.backward()
    assert loss.skipped
    assert answer == 0
    assert (f.grad == 0).all()


@pytest.mark.parametrize("normalise", ["weights", "count"])
def test_share_of_the_numerator_makes_yields_densities(normalise: str) -> None:
    f, label, weight = torch.randn(6), torch.tensor([1, 0, 0, 1, 0, 0]), torch.rand(6)
    answer = Logistic(numerator_share=0.25, normalise=normalise)(f, label, weight)
    scaled = weight / torch.where(label == 1, 0.25, 0.75)
    assert_close(answer, Logistic(normalise=normalise)(f, label, scaled))


def test_steep_costs_go_on_smoothly_where_they_turn() -> None:
    """Exponential costs at an output of 10, Bregman's at a ratio of 1/2."""
    turn = math.log(math.expm1(0.5))
    for cost, where in (
        (lambda f: Exponential().costs(f)[1], 10.0),
        (lambda f: Bregman().costs(f)[0], turn),
        (lambda f: Bregman().costs(f)[1], turn),
    ):
        f = torch.tensor([where - 1e-7, where + 1e-7], dtype=torch.float64).requires_grad_()
        value = cost(f)
        (slope,) = torch.autograd.grad(value.sum(), f)
        assert_close(value[0], value[1], rtol=1e-6, atol=1e-6)
        assert_close(slope[0], slope[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Savage(w_lambda=-1.0), "w_lambda=-1.0"),
        (lambda: Tangent(ess_lambda=math.inf), "ess_lambda=inf"),
        (lambda: Logistic(numerator_share=1.0), "numerator_share=1.0"),
        (
            lambda: Logistic()(torch.zeros(3, 1), torch.zeros(3).long(), torch.ones(3)),
            r"f has shape \(3, 1\)",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
