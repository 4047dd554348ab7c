"""Queries answer which tokens are theirs."""

import torch
from torch.testing import assert_close

from hepattn.nn.mask_head import MaskHead


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
