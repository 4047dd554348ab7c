"""Assignment against all permutations, whatever is padded and whoever solves it."""

import sys
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hepattn.ops.assignment import Solver, assign, submit

SIZES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=4)
Problem = tuple[Tensor, Tensor, Tensor]


def problems(sizes: list[tuple[int, int]], padding: int = 0) -> Problem:
    """Return costs (G, M, P) with costs in the padding that would win, and the sizes."""
    num_queries, num_targets = torch.tensor(sizes).T
    width, height = int(num_queries.max()) + padding, int(num_targets.max()) + padding
    cost = torch.full((len(sizes), width, height), -1e6)
    for row, (queries, targets) in zip(cost, sizes, strict=True):
        row[:queries, :targets] = torch.randint(-4, 5, (queries, targets))  # with ties
    return cost, num_queries, num_targets


def smallest_sum(cost: Tensor) -> float:
    """Try every way to pair the queries and targets of one problem (M, P)."""
    if cost.shape[0] < cost.shape[1]:
        cost = cost.T
    ways = permutations(range(cost.shape[0]), cost.shape[1])
    return min(float(cost[list(way), range(cost.shape[1])].sum()) for way in ways)


@pytest.fixture(params=["scipy", "lapx"])
def solver(request: pytest.FixtureRequest) -> Solver:
    if request.param == "lapx":
        pytest.importorskip("lap", reason="needs the extra eval")
    return request.param


FIXTURE = HealthCheck.function_scoped_fixture  # a solver has no state


@settings(deadline=None, derandomize=True, max_examples=50, suppress_health_check=[FIXTURE])
@given(sizes=SIZES, padding=st.integers(0, 2), seed=st.integers(0, 999))
def test_pairs_are_those_of_the_smallest_cost(
    sizes: list[tuple[int, int]], padding: int, seed: int, solver: Solver
) -> None:
    torch.manual_seed(seed)
    cost, num_queries, num_targets = problems(sizes, padding)
    answer = assign(cost, num_queries, num_targets, solver)
    assert answer.shape == (len(sizes), cost.shape[2])
    for row, problem, (queries, targets) in zip(answer, cost, sizes, strict=True):
        target = (row >= 0).nonzero().squeeze(1)
        query = row[target]
        assert len(target) == len(query.unique()) == min(queries, targets)
        assert (target < targets).all()
        assert (query < queries).all()
        assert problem[query, target].sum() == smallest_sum(problem[:queries, :targets])


def test_padding_changes_nothing() -> None:
    sizes = [(7, 4), (3, 5), (6, 6)]
    cost, num_queries, num_targets = problems(sizes)
    cost = cost + torch.rand_like(cost)  # without ties
    padded = torch.full((3, 10, 9), torch.nan)
    padded[:, :7, :6] = cost
    for row, (queries, targets) in zip(padded, sizes, strict=True):
        row[queries:] = torch.nan
        row[:, targets:] = torch.inf
    answer = assign(padded, num_queries, num_targets)
    assert (answer[:, 6:] == -1).all()
    assert torch.equal(answer[:, :6], assign(cost, num_queries, num_targets))


def test_targets_beyond_the_queries_get_none() -> None:
    cost = torch.tensor([[[3.0, 1.0, 2.0], [5.0, 9.0, 4.0]]])  # two queries, three targets
    answer = assign(cost, torch.tensor([2]), torch.tensor([3]))
    assert answer.tolist() == [[-1, 0, 1]]


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_number_of_threads_does_not_matter(num_threads: int) -> None:
    arguments = problems([(30, 20), (25, 25), (0, 3), (12, 30)])
    assert torch.equal(assign(*arguments, num_threads=num_threads), assign(*arguments))


def test_solvers_agree_on_the_cost_of_large_problems() -> None:
    pytest.importorskip("lap", reason="needs the extra eval")
    cost = torch.rand(3, 80, 60)
    sizes = torch.full((3,), 80), torch.tensor([60, 40, 1])
    sums = []
    for solver in ("scipy", "lapx"):
        query = assign(cost, *sizes, solver).clamp(min=0)  # (G, P)
        paired = cost.gather(1, query.unsqueeze(1)).squeeze(1)  # (G, P)
        sums.append((paired * (torch.arange(60) < sizes[1].unsqueeze(1))).sum(1))
    torch.testing.assert_close(*sums)


def test_costs_may_change_after_they_were_submitted() -> None:
    cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], requires_grad=True)
    two = torch.tensor([2])
    pending = submit(cost, two, two)
    cost.detach().mul_(-1)
    assert pending.result().tolist() == [[0, 1]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_costs_of_other_precision_are_solved(dtype: torch.dtype) -> None:
    small = torch.tensor([[[1.0, 1.0 + 1e-12], [1.0, 1.0]]], dtype=dtype)
    two = torch.tensor([2])
    answer = assign(small, two, two)
    assert sorted(answer[0].tolist()) == [0, 1]
    if dtype == torch.float64:
        assert answer.tolist() == [[0, 1]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_costs_on_a_gpu_are_answered_there() -> None:
    cost, num_queries, num_targets = problems([(30, 20), (25, 25), (0, 3), (12, 30)])
    answer = assign(cost.cuda(), num_queries.cuda(), num_targets.cuda())
    assert answer.is_cuda
    assert torch.equal(answer.cpu(), assign(cost, num_queries, num_targets))


def test_no_problems_have_no_answers() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert assign(torch.zeros(0, 3, 2), none, none).shape == (0, 2)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_cost_that_is_not_finite_is_refused_by_its_place(bad: float, solver: Solver) -> None:
    cost, num_queries, num_targets = problems([(2, 2), (4, 3), (3, 2)])
    cost[1, 3, 2] = cost[2, 0, 0] = bad
    with pytest.raises(
        FloatingPointError, match=rf"problem 1 of 3.*{bad}.*query 3 and target 2.*look"
    ):
        assign(cost, num_queries, num_targets, solver)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, n: assign(c, n + 9, n), r"num_queries=\[11, 11\] must be between 0 and 3"),
        (lambda c, n: assign(c, n, n - 3), r"num_targets=\[-1, -1\] must be between 0 and 2"),
        (lambda c, n: assign(c, n[:1], n), r"num_queries has the shape \(1,\)"),
        (lambda c, n: assign(c, n, n, "auction"), "solver='auction' must be"),
        (lambda c, n: assign(c, n, n, num_threads=0), "num_threads=0 must be positive"),
    ],
)
def test_contradictions_are_refused(call: Callable[..., object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 3, 2), torch.tensor([2, 2]))


def test_missing_solver_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lap", None)
    one = torch.tensor([1])
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'hepattn\[eval\]'"):
        assign(torch.zeros(1, 1, 1), one, one, "lapx")
