"""Queries stand where their seeds or their angles say."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.queries import DynamicQueries, LearnedQueries


class FirstFeature(nn.Module):
    """Score a token by its first feature."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :1]


def planted(scores: list[list[float]], num_queries: int, threshold: float) -> tuple:
    """Dynamic queries whose scores are given, on events of these lengths."""
    queries = DynamicQueries(4, num_queries, threshold)
    queries.score = FirstFeature()
    length = max(map(len, scores))
    tokens = torch.randn(len(scores), length, 4)
    valid = torch.arange(length) < torch.tensor([[len(row)] for row in scores])
    for event, row in enumerate(scores):
        tokens[event, : len(row), 0] = torch.tensor(row).logit()
    tokens[..., 0].masked_fill_(~valid, 100.0)  # padding that would win
    columns = torch.arange(length).float().expand(len(scores), -1).unsqueeze(-1)
    return queries, tokens, columns, valid


def test_dynamic_queries_are_the_planted_seeds_in_the_order_of_the_tokens() -> None:
    scores = [[0.9, 0.01, 0.3, 0.02, 0.8], [0.01, 0.7, 0.02]]
    queries, tokens, columns, valid = planted(scores, num_queries=8, threshold=0.1)
    found = queries(tokens, columns, valid)
    assert found.valid.tolist() == [[True, True, True], [True, False, False]]
    assert found.seed[0].tolist() == [0, 2, 4]
    assert found.seed[1, 0] == 1
    assert_close(found.place, found.seed)
    assert_close(found.columns[0, :, 0], torch.tensor([0.0, 2.0, 4.0]))
    assert_close(found.content[0], queries.project(tokens[0, [0, 2, 4]]))


def test_only_the_best_seeds_become_queries() -> None:
    queries, *event = planted([[0.5, 0.9, 0.3, 0.8]], num_queries=2, threshold=0.1)
    assert queries(*event).seed.tolist() == [[1, 3]]


def test_the_best_token_is_a_query_even_below_the_threshold() -> None:
    queries, *event = planted([[0.01, 0.03], [0.02]], num_queries=4, threshold=0.1)
    found = queries(*event)
    assert found.seed[0].tolist() == [1]
    assert found.valid.all()


def test_an_event_without_tokens_has_no_query() -> None:
    queries, *event = planted([[0.9, 0.8], []], num_queries=4, threshold=0.1)
    assert queries(*event).valid.tolist() == [[True, True], [False, False]]


def test_seed_scores_learn_at_every_real_token_and_no_other() -> None:
    queries = DynamicQueries(4)
    tokens = torch.randn(1, 3, 4, requires_grad=True)
    found = queries(tokens, torch.zeros(1, 3, 1), torch.tensor([[True, True, False]]))
    assert found.seed_logit[0, 2] == 0
    (gradient,) = torch.autograd.grad(found.seed_logit.sum(), tokens)
    assert gradient[0, :2].abs().sum(-1).gt(0).all()
    assert (gradient[0, 2] == 0).all()


def test_learned_queries_are_spread_over_the_circle() -> None:
    queries = LearnedQueries(4, num_queries=4)
    phi = torch.tensor([[-3.0, -1.0, 0.1, 3.0, 9.0], [0.5, 9.0, 9.0, 9.0, 9.0]])
    valid = torch.tensor([[True] * 4 + [False], [True] + [False] * 4])
    columns = torch.stack([torch.ones_like(phi), phi], -1)
    found = queries(torch.zeros(2, 5, 4), columns, valid, angle_column=1)
    angles = torch.tensor([-math.pi, -math.pi / 2, 0.0, math.pi / 2])
    assert_close(found.columns, torch.stack([torch.zeros(4), angles], -1).expand(2, -1, -1))
    assert found.place.tolist() == [[0, 1, 2, 3], [0, 0, 0, 0]]
    assert found.valid.all()
    assert found.seed is None


def test_learned_queries_without_an_angle_are_spread_over_the_tokens() -> None:
    queries = LearnedQueries(4, num_queries=3)
    found = queries(torch.zeros(1, 6, 4), torch.ones(1, 6, 2), torch.ones(1, 6).bool())
    assert found.place.tolist() == [[0, 2, 4]]
    assert (found.columns == 0).all()


@pytest.mark.parametrize("kind", [DynamicQueries, LearnedQueries])
def test_there_must_be_a_query(kind: type) -> None:
    with pytest.raises(ValueError, match="num_queries=0 must be at least 1"):
        kind(4, num_queries=0)


def test_threshold_is_a_probability() -> None:
    with pytest.raises(ValueError, match=r"threshold=1\.0"):
        DynamicQueries(4, threshold=1.0)
