"""Distance correlation against its definition in numpy and against closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from hepattn.losses.distance_correlation import Decorrelation, distance_correlation


def naive(a: Tensor, b: Tensor, weight: Tensor) -> float:
    """Squared distance correlation from the full matrices of distances, in float64."""
    share = weight.double().numpy() / weight.double().sum().item()

    def centred(x: Tensor) -> np.ndarray:
        x = x.detach().double().numpy()
        distance = np.abs(x[:, None] - x)
        mean = distance @ share
        return distance - mean[:, None] - mean + share @ mean

    A, B, both = centred(a), centred(b), np.outer(share, share)
    return (both * A * B).sum() / math.sqrt((both * A * A).sum() * (both * B * B).sum())


def sample(num: int) -> tuple[Tensor, Tensor, Tensor]:
    a = 80 + 15 * torch.randn(num)  # a mass in GeV
    return a, (a - 80).square() / 200 + torch.randn(num), torch.rand(num) + 0.1


@pytest.mark.parametrize(
    ("num", "block_size"),
    [(2, None), (7, 1), (7, 3), (300, None), (300, 64), (1100, None)],
)
def test_it_is_that_of_the_full_matrices(num: int, block_size: int | None) -> None:
    a, b, weight = sample(num)
    answer = distance_correlation(a, b, weight, block_size=block_size)
    assert float(answer) == pytest.approx(naive(a, b, weight), rel=1e-4)


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_power_is_that_of_the_squared_correlation(power: float) -> None:
    a, b, weight = sample(50)
    answer = distance_correlation(a, b, weight, power)
    assert float(answer) == pytest.approx(naive(a, b, weight) ** power, rel=1e-4)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("block_size", [None, 3])
def test_gradients_are_those_of_differences(power: float, block_size: int | None) -> None:
    a, b, weight = (x.double() for x in sample(8))
    weight[2] = 0
    a.requires_grad_()
    b.requires_grad_()

    def both(x: Tensor, y: Tensor) -> Tensor:
        return distance_correlation(x, y, weight, power, block_size)

    assert torch.autograd.gradcheck(both, (a, b))
    assert torch.autograd.gradcheck(lambda y: both(a.detach(), y), b)
    assert torch.autograd.gradcheck(lambda x: both(x, b.detach()), a)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_linear_dependence_is_one(sign: float) -> None:
    a, _, weight = sample(40)
    assert_close(distance_correlation(a, 3 + sign * 0.2 * a, weight), torch.tensor(1.0))


def test_two_values_know_each_other_as_a_table_says() -> None:
    """For two binary variables it is the square of their linear correlation."""
    share = torch.tensor([0.4, 0.1, 0.2, 0.3])
    a, b = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    covariance = 0.3 - 0.5 * 0.4
    expected = covariance**2 / (0.5 * 0.5 * 0.4 * 0.6)
    assert_close(distance_correlation(a, b, share), torch.tensor(expected))


def test_independent_grid_has_none() -> None:
    a, b = torch.randn(6).repeat(5), torch.randn(5).repeat_interleave(6)
    weight = (torch.rand(6)[None] * torch.rand(5)[:, None]).flatten()
    b.requires_grad_()
    answer = distance_correlation(a, b, weight, power=0.5)
    answer.backward()
    assert answer < 2e-3
    assert b.grad.isfinite().all()


def test_normal_variables_follow_their_closed_form() -> None:
    """Of a normal pair of correlation ρ, Székely et al. (2007), theorem 7."""
    rho = 0.7
    a, noise = torch.randn(2, 4000)
    b = rho * a + math.sqrt(1 - rho**2) * noise

    top = rho * math.asin(rho) + math.sqrt(1 - rho**2)
    top += -rho * math.asin(rho / 2) - math.sqrt(4 - rho**2) + 1
    expected = top / (1 + math.pi / 3 - math.sqrt(3))
    answer = distance_correlation(a, b, torch.ones(4000))
    assert float(answer) == pytest.approx(expected, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(3, 40),
    st.floats(-1e3, 1e3),
    st.floats(0.01, 1e3),
    st.floats(0.01, 100),
    st.integers(0, 2**31),
)
def test_shift_scale_order_and_total_weight_do_not_matter(
    num: int, shift: float, scale: float, total: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, num, generator=generator, dtype=torch.float64)
    weight = torch.rand(num, generator=generator, dtype=torch.float64)
    order = torch.randperm(num, generator=generator)
    answer = distance_correlation(a, b, weight)
    assert 0 <= answer <= 1 + 1e-9
    other = distance_correlation(
        (shift + scale * b)[order], -a[order], total * weight[order], block_size=num // 2
    )
    assert_close(other, answer, rtol=1e-6, atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=12), st.integers(0, 2**31))
def test_a_weight_is_a_number_of_copies(copies: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, len(copies), generator=generator, dtype=torch.float64)
    weight = torch.tensor(copies)
    rows = torch.arange(len(copies)).repeat_interleave(weight)
    repeated = distance_correlation(a[rows], b[rows], torch.ones(len(rows)))
    assert_close(distance_correlation(a, b, weight.double()), repeated)


@pytest.mark.parametrize(
    "b",
    [
        torch.full((6,), 0.1),
        torch.full((6,), 1e8).addcmul(torch.rand(6), torch.tensor(8.0)),
        torch.full((6,), torch.nan),
        torch.tensor([1.0, torch.nan, torch.inf, torch.nan, torch.nan, torch.nan]),
    ],
)
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_constant_or_unknown_output_has_no_correlation(b: Tensor, power: float) -> None:
    b = b.clone().requires_grad_()
    answer = distance_correlation(torch.randn(6), b, torch.ones(6), power)
    answer.backward()
    assert answer == 0
    assert (b.grad == 0).all()


def test_events_that_are_not_finite_or_have_no_weight_do_not_count() -> None:
    a, b, weight = sample(30)
    a[3], b[5], weight[7], b[7] = torch.nan, torch.inf, 0, 1e30
    b.requires_grad_()
    answer = distance_correlation(a, b, weight)
    answer.backward()
    keep = [i for i in range(30) if i not in (3, 5, 7)]
    assert float(answer.detach()) == pytest.approx(naive(a[keep], b[keep], weight[keep]), rel=1e-4)
    assert (b.grad[[3, 5, 7]] == 0).all()
    assert b.grad.isfinite().all()


def test_no_event_has_no_correlation() -> None:
    a, b, _ = sample(4)
    assert distance_correlation(a, b, torch.zeros(4)) == 0


def test_nothing_waits_for_the_device() -> None:
    with FakeTensorMode():  # raises where a number is read
        logit, auxiliary, *rest = batch(3, 2)
        logit = torch.randn(12, 3, requires_grad=True)
        Decorrelation(["mass", "pt"], weighted=True)(logit, auxiliary, *rest).backward()
        assert logit.grad.shape == (12, 3)


def test_autocast_computes_in_float32() -> None:
    a, b, weight = sample(60)
    with torch.autocast("cpu", torch.bfloat16):
        inside = distance_correlation(a, b, weight)
    assert_close(inside, distance_correlation(a, b, weight), rtol=0, atol=0)


Event = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def batch(num_outputs: int, num_variables: int) -> Event:
    label = torch.tensor([0, 1, 2, 0, 2, -1, 0, 0, 2, 0, 1, 2])
    weight = torch.rand(12) - 0.3
    weight[9] = 0
    logit, auxiliary = torch.randn(12, num_outputs), torch.randn(12, num_variables)
    return logit, auxiliary, label, weight, label != 1


KEEP = [0, 2, 3, 4, 6, 7, 8, 11]


@pytest.mark.parametrize("weighted", [False, True])
def test_penalty_sums_over_variables_and_logits_of_background(weighted: bool) -> None:
    term = Decorrelation(["mass", "pt"], strength=2.5, weighted=weighted)
    logit, auxiliary, label, weight, background = batch(3, 2)
    share = weight.abs() if weighted else torch.ones(12)
    expected = [
        sum(naive(auxiliary[KEEP, v], logit[KEEP, o], share[KEEP]) for o in range(3))
        for v in range(2)
    ]
    rubbish = logit.clone()
    rubbish[~background] = torch.nan
    inputs = (rubbish, auxiliary, label, weight, background)
    assert term.correlations(*inputs).tolist() == pytest.approx(expected, rel=1e-4)
    assert float(term(*inputs)) == pytest.approx(2.5 * sum(expected), rel=1e-4)


def test_entropy_of_several_classes_is_decorrelated_as_one_number() -> None:
    logit, *rest = batch(3, 1)
    p = logit.softmax(1)
    entropy = -(p * p.log()).sum(1)
    answer = Decorrelation(["mass"], reduction="entropy")(logit, *rest)
    expected = naive(rest[0][KEEP, 0], entropy[KEEP], torch.ones(8))
    assert float(answer) == pytest.approx(expected, rel=1e-4)


def test_descent_makes_a_score_independent() -> None:
    mass, noise = torch.randn(2, 200)
    slope, term = torch.tensor(1.0, requires_grad=True), Decorrelation(["mass"])
    label, weight = torch.zeros(200).long(), torch.ones(200)

    def penalty() -> Tensor:
        score = slope * mass + noise
        return term(score[:, None], mass[:, None], label, weight, label == 0)

    before = float(penalty().detach())
    for _ in range(30):
        (gradient,) = torch.autograd.grad(penalty(), slope)
        with torch.no_grad():
            slope -= gradient
    assert penalty() < before / 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Decorrelation([]), r"variables=\[\]"),
        (lambda: Decorrelation(["m", "m"]), "each once"),
        (lambda: Decorrelation(["m"], strength=-1.0), "strength=-1.0"),
        (lambda: Decorrelation(["m"], power=0.0), "power=0.0"),
        (lambda: Decorrelation(["m"], reduction="sum"), "reduction='sum'"),
        (lambda: Decorrelation(["m"], block_size=0), "block_size=0"),
        (lambda: Decorrelation(["m"])(*batch(1, 2)), "auxiliary has 2 columns"),
        (lambda: Decorrelation(["m"], reduction="entropy")(*batch(1, 1)), "for several classes"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_batch_without_events_has_no_correlation() -> None:
    a, b, weight = (torch.zeros(0, requires_grad=i == 0) for i in range(3))
    answer = distance_correlation(a, b, weight)
    answer.backward()
    assert answer == 0
