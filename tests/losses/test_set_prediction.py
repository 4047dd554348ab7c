"""The set prediction loss against a loop over layers, events and pairs."""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.losses.set_prediction import SetPredictionLoss, Terms
from hepattn.nn.mask_head import Detections

WEIGHTS = Terms(object=2.0, dice=1.5, focal=3.0, bce=0.5, iou=0.7, regression=0.3)
COSTS = Terms(object=0.8, dice=1.2, focal=2.0, bce=0.6, regression=0.4, seed=0.5)
NO_OBJECT = 0.2
# of an event: queries, targets, tokens; in the last one more targets than queries
SIZES = [(6, 4, 12), (4, 2, 9), (3, 0, 5), (0, 2, 6), (2, 4, 10)]


class Batch(NamedTuple):
    layers: list[Detections]
    query_valid: Tensor
    token_target: Tensor
    target_valid: Tensor
    token_valid: Tensor
    parameters: Tensor
    seed: Tensor


def prefix(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)


@pytest.fixture
def batch() -> Batch:
    """Five ragged events in three layers; the second target of the first has no tokens."""
    queries, targets, tokens = map(list, zip(*SIZES, strict=True))
    M, P, N = max(queries), max(targets), max(tokens)
    token_target = torch.full((5, N), -1)
    for row, (_, num_targets, num_tokens) in zip(token_target, SIZES, strict=True):
        row[:num_tokens] = torch.randint(-1, num_targets, (num_tokens,))
        row[:num_targets] = torch.arange(num_targets)
    token_target[0][token_target[0] == 1] = -1
    layers = [
        Detections(
            torch.randn(5, M), 2 * torch.randn(5, M, N), torch.randn(5, M), torch.randn(5, M, 3)
        )
        for _ in range(3)
    ]
    parameters = 2 * torch.randn(5, P, 3)
    valid = prefix(queries), prefix(targets), prefix(tokens)
    seed = torch.randint(N, (5, M)) % torch.tensor(tokens).clamp(min=1).unsqueeze(1)
    return Batch(layers, valid[0], token_target, valid[1], valid[2], parameters, seed)


def cross_entropy(p: float, label: bool) -> float:
    return -math.log(p if label else 1 - p)


def smooth_l1(x: Tensor, y: Tensor) -> float:
    distances = [abs(a - b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return sum(d**2 / 2 if d < 1 else d - 0.5 for d in distances) / len(distances)


def pair_losses(logit: Tensor, tokens: set[int], num_tokens: int) -> dict[str, float]:
    """Compute the mask losses of one query and one target, and their overlap."""
    p = logit.double().sigmoid().tolist()[:num_tokens]
    entropies = [cross_entropy(p[n], n in tokens) for n in range(num_tokens)]
    shared = sum(p[n] for n in tokens)
    found = {n for n in range(num_tokens) if p[n] >= 0.5}
    return {
        "bce": sum(entropies) / num_tokens,
        "focal": sum(e * (1 - math.exp(-e)) ** 2 for e in entropies) / num_tokens,
        "dice": 1 - (2 * shared + 1) / (sum(p) + len(tokens) + 1),
        "overlap": len(found & tokens) / len(found | tokens),
    }


def loop_layer(layer: Detections, batch: Batch) -> tuple[dict[str, float], list[dict[int, int]]]:
    """Match and compare event by event; return the unweighted terms and the matches."""
    pairs: dict[str, list[float]] = {
        name: [] for name in ("dice", "focal", "bce", "iou", "regression")
    }
    objects, weights, matches = 0.0, 0.0, []
    for b, (num_queries, num_targets, num_tokens) in enumerate(SIZES):
        truth = batch.token_target[b, :num_tokens].tolist()
        targets = [t for t in range(num_targets) if t in truth]
        tokens = {t: {n for n, own in enumerate(truth) if own == t} for t in targets}
        probability = layer.object_logit[b].double().sigmoid().tolist()
        answers: dict[tuple[int, int], dict[str, float]] = {}
        cost = torch.zeros(num_queries, len(targets)).double()
        for q in range(num_queries):
            for i, t in enumerate(targets):
                answer = pair_losses(layer.mask_logit[b, q], tokens[t], num_tokens)
                answer["regression"] = smooth_l1(layer.parameters[b, q], batch.parameters[b, t])
                p = 1 / (1 + math.exp(-layer.iou_logit[b, q]))
                overlap = answer["overlap"]
                answer["iou"] = -overlap * math.log(p) - (1 - overlap) * math.log(1 - p)
                answers[q, t] = answer
                cost[q, i] = -COSTS.object * probability[q]
                for name in ("dice", "focal", "bce", "regression"):
                    cost[q, i] += getattr(COSTS, name) * answer[name]
                cost[q, i] -= COSTS.seed * (int(batch.seed[b, q]) in tokens[t])
        match = {
            targets[i]: int(q) for q, i in zip(*linear_sum_assignment(cost.numpy()), strict=True)
        }
        matches.append(match)
        for t, q in match.items():
            for name, values in pairs.items():
                values.append(answers[q, t][name])
        for q in range(num_queries):
            weight = 1 if q in match.values() else NO_OBJECT
            objects += weight * cross_entropy(probability[q], q in match.values())
            weights += weight
    terms = {name: sum(values) / len(values) for name, values in pairs.items()}
    return {"object": objects / weights, **terms}, matches


def test_every_term_is_that_of_a_loop_over_events(batch: Batch) -> None:
    losses, query = SetPredictionLoss(WEIGHTS, COSTS, NO_OBJECT)(*batch)
    layers = [loop_layer(layer, batch) for layer in batch.layers]
    assert set(losses) == set(asdict(WEIGHTS)) - {"seed"}
    for name, loss in losses.items():
        mean = sum(terms[name] for terms, _ in layers) / 3
        assert_close(loss, torch.tensor(getattr(WEIGHTS, name) * mean))
    for row, match in zip(query.tolist(), layers[-1][1], strict=True):
        assert {t: q for t, q in enumerate(row) if q >= 0} == match


def test_garbage_in_padding_changes_nothing(batch: Batch) -> None:
    loss = SetPredictionLoss(WEIGHTS, COSTS, NO_OBJECT)
    queries, tokens = batch.query_valid, batch.token_valid
    logits = queries.unsqueeze(2) & tokens.unsqueeze(1)  # (B, M, N)
    layers = [
        Detections(
            layer.object_logit.masked_fill(~queries, 1e9),
            layer.mask_logit.masked_fill(~logits, -1e9),
            layer.iou_logit.masked_fill(~queries, 1e9),
            layer.parameters.masked_fill(~queries.unsqueeze(2), 1e9),
        )
        for layer in batch.layers
    ]
    garbage = Batch(
        layers,
        queries,
        batch.token_target.masked_fill(~tokens, 1),
        batch.target_valid,
        tokens,
        batch.parameters.masked_fill(~batch.target_valid.unsqueeze(2), 1e9),
        batch.seed.masked_fill(~queries, 0),
    )
    losses, query = loss(*batch)
    others, other = loss(*garbage)
    assert_close(others, losses, rtol=0, atol=0)
    assert torch.equal(other, query)


def test_matches_are_real_queries_of_targets_with_tokens(batch: Batch) -> None:
    layers = [  # padded queries that would be the best, a target without tokens that fits best
        layer._replace(
            object_logit=layer.object_logit.masked_fill(~batch.query_valid, 1e9),
            mask_logit=layer.mask_logit.masked_fill(torch.arange(6).view(1, 6, 1) == 5, -1e9),
        )
        for layer in batch.layers
    ]
    _, query = SetPredictionLoss()(layers, *batch[1:])
    for row, real in zip(query, batch.query_valid, strict=True):
        assert (row < real.sum()).all()
        assert len(row[row >= 0].unique()) == (row >= 0).sum()
    assert (query >= 0).sum(1).tolist() == [3, 2, 0, 0, 2]
    assert query[0, 1] == -1


def test_adding_padding_changes_nothing(batch: Batch) -> None:
    loss = SetPredictionLoss(WEIGHTS, COSTS, NO_OBJECT)
    more = Batch(
        [
            Detections(
                F.pad(layer.object_logit, (0, 2)),
                F.pad(layer.mask_logit, (0, 3, 0, 2)),
                F.pad(layer.iou_logit, (0, 2)),
                F.pad(layer.parameters, (0, 0, 0, 2)),
            )
            for layer in batch.layers
        ],
        F.pad(batch.query_valid, (0, 2)),
        F.pad(batch.token_target, (0, 3)),
        F.pad(batch.target_valid, (0, 1)),
        F.pad(batch.token_valid, (0, 3)),
        F.pad(batch.parameters, (0, 0, 0, 1)),
        F.pad(batch.seed, (0, 2)),
    )
    losses, query = loss(*batch)
    others, other = loss(*more)
    assert_close(others, losses)
    assert torch.equal(other, F.pad(query, (0, 1), value=-1))


def test_perfect_answer_costs_nothing_and_the_order_of_queries_is_free() -> None:
    target = torch.tensor([[0, 0, 1, -1, 1]])
    truth = target.unsqueeze(1) == torch.tensor([1, 5, 0]).view(1, 3, 1)
    layer = Detections(torch.tensor([[40.0, -40.0, 40.0]]), torch.where(truth, 40.0, -40.0))
    real = torch.ones(1, 5).bool()
    losses, query = SetPredictionLoss()([layer], real[:, :3], target, real[:, :2], real)
    assert query.tolist() == [[2, 0]]
    assert_close(losses, {name: torch.tensor(0.0) for name in ("object", "dice", "bce")})


def test_golden_values_of_undecided_queries() -> None:
    """All probabilities are one half: every cross-entropy is log 2."""
    layer = Detections(torch.zeros(1, 2), torch.zeros(1, 2, 4))
    real = torch.ones(1, 4).bool()
    target = torch.tensor([[0, 0, -1, -1]])
    losses, _ = SetPredictionLoss()([layer, layer], real[:, :2], target, real[:, :1], real)
    expected = {"object": math.log(2), "dice": 1 - 3 / 5, "bce": math.log(2)}
    assert_close(losses, {name: torch.tensor(value) for name, value in expected.items()})


@pytest.mark.parametrize("missing", ["query_valid", "target_valid", "token_valid"])
def test_batch_without_pairs_has_finite_losses_of_the_graph(missing: str, batch: Batch) -> None:
    layers = [Detections(*(x.requires_grad_() for x in layer)) for layer in batch.layers]
    none = batch._replace(layers=layers, **{missing: torch.zeros_like(getattr(batch, missing))})
    losses, query = SetPredictionLoss(WEIGHTS, COSTS)(*none)
    assert (query == -1).all()
    assert all(loss == 0 for name, loss in losses.items() if name != "object")
    assert (losses["object"] == 0) == (missing == "query_valid")
    sum(losses.values()).backward()
    for layer in layers:
        for answer in layer:
            assert answer.grad.isfinite().all()


def test_every_layer_learns_from_its_own_matching(batch: Batch) -> None:
    layers = [Detections(*(x.requires_grad_() for x in layer)) for layer in batch.layers]
    losses, _ = SetPredictionLoss(WEIGHTS, COSTS, NO_OBJECT)(layers, *batch[1:])
    sum(losses.values()).backward()
    together = [layer.mask_logit.grad.clone() for layer in layers]
    for layer, gradient in zip(layers, together, strict=True):
        layer.mask_logit.grad = None
        losses, _ = SetPredictionLoss(WEIGHTS, COSTS, NO_OBJECT)([layer], *batch[1:])
        sum(losses.values()).backward()
        assert gradient.any()
        assert_close(gradient, layer.mask_logit.grad / 3)


def test_autocast_computes_in_float32(batch: Batch) -> None:
    loss = SetPredictionLoss(WEIGHTS, COSTS, NO_OBJECT)
    with torch.autocast("cpu", torch.bfloat16):
        losses, query = loss(*batch)
    others, other = loss(*batch)
    assert_close(losses, others, rtol=0, atol=0)
    assert torch.equal(query, other)


def test_predictions_that_are_not_finite_are_refused(batch: Batch) -> None:
    batch.layers[1].mask_logit[4, 1, 3] = torch.nan  # layer 1, event 4 of 5
    with pytest.raises(FloatingPointError, match="problem 4 of 5 has the cost nan for query 1"):
        SetPredictionLoss()(*batch)


def test_terms_without_weight_need_nothing_and_are_not_there(batch: Batch) -> None:
    layers = [layer._replace(iou_logit=None, parameters=None) for layer in batch.layers]
    losses, _ = SetPredictionLoss(Terms(object=0.0, focal=1.0))(layers, *batch[1:-2])
    assert set(losses) == {"dice", "focal", "bce"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: Terms(dice=-1.0), "dice=-1.0 must be finite and not negative"),
        (lambda b: Terms(bce=math.nan), "bce=nan must be"),
        (lambda b: Terms(object=0, dice=0, bce=0), "all weights are 0"),
        (lambda b: SetPredictionLoss(costs=Terms(iou=1.0)), "costs.iou=1.0 must be 0"),
        (lambda b: SetPredictionLoss(Terms(seed=1.0)), "weights.seed=1.0 must be 0"),
        (
            lambda b: SetPredictionLoss(costs=Terms(seed=1.0))(*b[:-1]),
            "needs queries that were made of tokens",
        ),
        (lambda b: SetPredictionLoss(no_object_weight=-1.0), "no_object_weight=-1.0"),
        (lambda b: SetPredictionLoss()([], *b[1:]), "layers is empty"),
        (
            lambda b: SetPredictionLoss(Terms(iou=0.5))(
                [b.layers[0]._replace(iou_logit=None)], *b[1:]
            ),
            "weights.iou=0.5 needs iou_logit",
        ),
        (
            lambda b: SetPredictionLoss(Terms(regression=0.5))(*b[:-2]),
            "regression=0.5 needs parameters of the targets",
        ),
        (
            lambda b: SetPredictionLoss(costs=Terms(regression=0.5))(
                [b.layers[0]._replace(parameters=None)], *b[1:]
            ),
            "regression=0.5 needs parameters of every layer",
        ),
    ],
)
def test_contradictions_are_refused(
    call: Callable[[Batch], object], message: str, batch: Batch
) -> None:
    with pytest.raises(ValueError, match=message):
        call(batch)
