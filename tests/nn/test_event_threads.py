"""Events that go through a network in several threads get the answers of one call."""

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.event_threads import MIN_EVENTS, call_in_threads

N, NUM_EVENTS = 12, 5 * MIN_EVENTS


class SumOfTokens(nn.Module):
    """Sums what a layer makes of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return (self.layer(x) * valid.unsqueeze(-1)).sum(1)


class NotedSum(SumOfTokens):
    """Notes how it was called: thread, events, threads of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int, int]] = []

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        name = threading.current_thread().name
        self.calls.append((name, len(x), torch.get_num_threads()))
        if x.isnan().any():
            raise FloatingPointError("a token is NaN")
        return super().forward(x, valid)


@pytest.fixture(autouse=True)
def num_threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


@pytest.fixture
def network() -> NotedSum:
    return NotedSum().eval()


def events(num: int) -> tuple[Tensor, Tensor]:
    valid = torch.arange(N) < torch.randint(N + 1, (num, 1))
    return torch.randn(num, N, 3).masked_fill(~valid.unsqueeze(-1), 0.0), valid


def in_threads(network: NotedSum, inputs: tuple[Tensor, Tensor]) -> bool:
    """Call the network; tell whether threads did it."""
    network.calls.clear()
    call_in_threads(network, inputs, inputs[1])
    return len(network.calls) > 1


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_threads_share_the_events_and_answer_in_their_order(
    network: NotedSum, context: type
) -> None:
    inputs = events(NUM_EVENTS)
    with context():
        out = call_in_threads(network, inputs, inputs[1])
        assert out.is_inference() == torch.is_inference_mode_enabled()
        expected = network(*inputs)
    assert_close(out, expected)
    assert not out.requires_grad
    *shares, _ = network.calls
    assert len(shares) == 2
    assert sum(size for _, size, _ in shares) == NUM_EVENTS
    assert all(name.startswith("events") and threads == 1 for name, _, threads in shares)


def test_threads_get_about_the_same_work(network: NotedSum) -> None:
    valid = torch.arange(N) < torch.cat([torch.full((32, 1), N), torch.ones(96, 1)])
    with torch.no_grad():
        call_in_threads(network, (torch.randn(128, N, 3), valid), valid)
    long, short = sorted(size for _, size, _ in network.calls)
    assert long < 32 < 96 < short


@pytest.mark.parametrize("num", [0, 1, 2 * MIN_EVENTS - 1])
def test_few_events_are_one_call(network: NotedSum, num: int) -> None:
    inputs = events(num)
    with torch.no_grad():
        assert not in_threads(network, inputs)
        assert call_in_threads(network, inputs, inputs[1]).shape == (num, 4)


def test_events_without_tokens_are_shared_too(network: NotedSum) -> None:
    x, valid = torch.zeros(NUM_EVENTS, N, 3), torch.zeros(NUM_EVENTS, N, dtype=torch.bool)
    with torch.no_grad():
        assert_close(call_in_threads(network, (x, valid), valid), torch.zeros(NUM_EVENTS, 4))
    assert len(network.calls) == 2


def test_the_number_of_threads_stays_after_a_success_and_a_failure(
    network: NotedSum, num_threads: int
) -> None:
    x, valid = events(NUM_EVENTS)
    with torch.no_grad():
        call_in_threads(network, (x, valid), valid)
        assert torch.get_num_threads() == num_threads
        x[7] = torch.nan
        with pytest.raises(FloatingPointError, match="a token is NaN"):
            call_in_threads(network, (x, valid), valid)
    assert torch.get_num_threads() == num_threads
    seen: list[int] = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [num_threads]


def test_more_threads_than_shares_are_threads_of_the_operators(network: NotedSum) -> None:
    torch.set_num_threads(5)
    inputs = events(2 * MIN_EVENTS)
    with torch.no_grad():
        assert in_threads(network, inputs)
    assert [threads for *_, threads in network.calls] == [2, 2]
    assert torch.get_num_threads() == 5


def test_what_threads_could_change_is_one_call(network: NotedSum) -> None:
    inputs = events(NUM_EVENTS)
    assert not in_threads(network, inputs)  # gradients
    with torch.no_grad():
        assert in_threads(network, inputs)
        with torch.autocast("cpu"):
            assert not in_threads(network, inputs)
        network.layer.train()
        assert not in_threads(network, inputs)
        network.eval()
        handle = network.layer.register_forward_hook(lambda *_: None)
        assert not in_threads(network, inputs)
        handle.remove()
        torch.set_num_threads(1)
        assert not in_threads(network, inputs)
        torch.set_num_threads(2)
        network.layer.compile(backend="eager")
        assert not in_threads(network, inputs)


def test_graphs_contain_no_threads() -> None:
    network, inputs = SumOfTokens().eval(), events(NUM_EVENTS)
    with torch.no_grad():
        compiled = torch.compile(
            lambda *x: call_in_threads(network, x, x[1]), backend="eager", fullgraph=True
        )
        assert_close(compiled(*inputs), network(*inputs))
