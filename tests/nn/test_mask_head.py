"""Queries answer which tokens are theirs."""

import torch
from torch.testing import assert_close

from hepattn.nn.attention import AttentionOptions
from hepattn.nn.mask_head import MaskHead, PositionScore
from hepattn.nn.positional import Coordinate
from hepattn.nn.rotary import Rotary, rotate


def test_mask_logits_are_scaled_products_of_each_query_with_each_token() -> None:
    head = MaskHead(8)
    queries, tokens = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    answer = head(queries, tokens)
    for event in range(2):
        for query in range(3):
            for token in range(5):
                product = head.mask(queries[event, query]) @ tokens[event, token]
                assert_close(answer.mask_logit[event, query, token], product / 8**0.5)
    assert_close(answer.object_logit, head.object(queries)[..., 0])
    assert answer.iou_logit is None
    assert answer.parameters is None


def test_quality_and_parameters_are_estimated_where_asked() -> None:
    answer = MaskHead(8, num_parameters=5, iou=True)(torch.randn(2, 3, 8), torch.randn(2, 4, 8))
    assert answer.iou_logit.shape == (2, 3)
    assert answer.parameters.shape == (2, 3, 5)


COORDINATES = (Coordinate("phi", kind="harmonic"),)


def test_position_scores_are_the_mean_of_the_heads_attention_scores() -> None:
    score = PositionScore(8, AttentionOptions(2))
    queries, tokens = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    rotary = Rotary(4, 2, COORDINATES)
    rotations = [rotary(torch.randn(1, length, 1)) for length in (3, 5)]
    out = score(queries, tokens, *rotations)
    expected = torch.zeros(3, 5)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        q, k = (
            rotate(layer(x)[:, None, :, part], rotation)[0, 0]
            for layer, x, rotation in zip(
                (score.query, score.key), (queries, tokens), rotations, strict=True
            )
        )
        expected += q @ k.T / 4**0.5 / 2
    assert_close(out[0], expected + score.offset)


def test_training_begins_by_claiming_the_tokens_at_the_place_of_the_query() -> None:
    score = PositionScore(8, AttentionOptions(2, position_init=20.0))
    rotation = Rotary(4, 2, COORDINATES)(torch.linspace(-3.0, 3.0, 7).view(1, 7, 1))
    out = score(torch.zeros(1, 7, 8), torch.zeros(1, 7, 8), rotation, rotation)[0]
    assert_close(out.diagonal(), torch.full((7,), 10.0))
    assert (out[~torch.eye(7).bool()] < 9.0).all()
