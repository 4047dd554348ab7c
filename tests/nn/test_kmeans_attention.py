"""A step of k-means moves each query to the mean of its tokens."""

import torch
from torch.testing import assert_close

from hepattn.nn.kmeans_attention import KMeansAttention
from hepattn.ops.attention import Full, make_plan


def test_a_query_gets_the_mean_of_the_tokens_of_its_cluster() -> None:
    layer = KMeansAttention(6)
    tokens = torch.randn(1, 5, 6)
    valid, query_valid = torch.ones(1, 5).bool(), torch.ones(1, 3).bool()
    cluster = torch.tensor([0, 2, 2, 0, 2])  # of each token
    mask = (cluster == torch.arange(3)[:, None]).unsqueeze(0)
    plan = make_plan(Full(), valid, query_valid).restrict(mask)
    out = layer(plan, tokens)
    values = layer.value(tokens[0])
    for query in (0, 2):
        assert_close(out[0, query], layer.out(values[cluster == query].mean(0)))
    assert_close(out[0, 1], layer.out.bias)
