"""Object queries: what asks the tokens of an event for objects."""

# B events, M queries, N tokens, D features, F columns

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.dense import Dense
from hepattn.nn.positional import query_angles
from hepattn.ops.sort import take


class Queries(NamedTuple):
    """The queries of a batch.

    Attributes:
        content: What they are (B, M, D).
        valid: True for real queries (B, M), real ones first.
        columns: Where they stand, as raw columns like those of a token (B, M, F).
        place: The same as a place among the tokens of their event (B, M) int64.
        seed: Token that each query was made of (B, M) int64; None for learned queries.
        seed_logit: Score of each token as a seed (B, N), zero at padded slots; None for learned
            queries.
    """

    content: Tensor
    valid: Tensor
    columns: Tensor
    place: Tensor
    seed: Tensor | None = None
    seed_logit: Tensor | None = None


class LearnedQueries(nn.Module):
    """As many learned vectors as there may be objects, the same in each event (arXiv:2005.12872).

    If the tokens are sorted by an angle, query i stands at -π + 2πi / M, its place is that of the
    first token from there on, and zero stands in all its other columns.

    Args:
        dim: Number of features D.
        num_queries: Number of queries M.

    Raises:
        ValueError: If there is no query.
    """

    no_weight_decay = ("content",)

    def __init__(self, dim: int, num_queries: int = 32) -> None:
        super().__init__()
        _check_num_queries(num_queries)
        self.num_queries = num_queries
        self.content = nn.Parameter(0.02 * torch.randn(num_queries, dim))

    def forward(
        self, tokens: Tensor, columns: Tensor, valid: Tensor, angle_column: int | None = None
    ) -> Queries:
        """Hand out the queries.

        Args:
            tokens: Tokens (B, N, D), in the order of the angle.
            columns: Their raw columns (B, N, F).
            valid: True for real tokens (B, N).
            angle_column: Column of the angle in radians; None if the order means nothing.
        """
        num_queries, num_events = self.num_queries, len(tokens)
        stands = columns.new_zeros(num_events, num_queries, columns.shape[-1])  # (B, M, F)
        index = torch.arange(num_queries, device=tokens.device)
        num_tokens = valid.sum(1, keepdim=True)  # (B, 1)
        place = index * num_tokens // num_queries  # (B, M)
        if angle_column is not None:
            angle = query_angles(num_queries, start=-torch.pi).to(columns)  # (M,)
            stands[..., angle_column] = angle
            beyond = columns[..., angle_column].masked_fill(~valid, torch.inf).contiguous()
            place = torch.searchsorted(beyond, angle.expand(num_events, -1).contiguous())
            place = torch.minimum(place, (num_tokens - 1).clamp(min=0))
        return Queries(
            content=self.content.expand(num_events, -1, -1).to(tokens.dtype),
            valid=valid.new_ones(num_events, num_queries),
            columns=stands,
            place=place,
        )


class DynamicQueries(nn.Module):
    """One query for each token that looks like the seed of an object (arXiv:2606.17631).

    A dense net scores the tokens. Those with the highest scores become queries, at most
    ``num_queries`` an event and none below the threshold, in the order of the tokens; their
    content is that of their token. Train the scores with ``seed_logit`` against whether a token
    is a seed, such as the first hit of a particle. If some real token is there, the best one
    becomes a query whatever its score, so that no batch is without.

    Args:
        dim: Number of features D.
        num_queries: Largest number of queries of an event.
        threshold: Smallest score, after the sigmoid, of a seed.

    Raises:
        ValueError: If there is no query or the threshold is not in [0, 1).
    """

    def __init__(self, dim: int, num_queries: int = 64, threshold: float = 0.1) -> None:
        super().__init__()
        _check_num_queries(num_queries)
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold={threshold} must be in [0, 1)")
        self.num_queries = num_queries
        self.threshold = threshold
        self.score = Dense(dim, 1)
        self.project = nn.Linear(dim, dim)

    def forward(
        self, tokens: Tensor, columns: Tensor, valid: Tensor, angle_column: int | None = None
    ) -> Queries:
        """Choose the seeds; arguments as in `LearnedQueries.forward`, the angle is not needed."""
        logit = self.score(tokens).squeeze(-1).masked_fill(~valid, 0.0)  # (B, N)
        score = logit.detach().float().sigmoid().masked_fill(~valid, -1.0)
        score = F.pad(score, (0, self.num_queries), value=-1.0)  # there may be fewer tokens
        best, seed = score.topk(self.num_queries, dim=1)  # (B, M)
        chosen = best >= self.threshold
        chosen[:, 0] = best[:, 0] >= 0
        seed = seed.masked_fill(~chosen, tokens.shape[1]).sort(1).values  # in order, others last
        if not torch.compiler.is_exporting():  # whose graph has no number that depends on scores
            seed = seed[:, : max(int(chosen.sum(1).max()), 1)]
        real = seed < tokens.shape[1]
        seed = seed.masked_fill(~real, 0)
        return Queries(
            content=self.project(take(tokens, seed)),
            valid=real,
            columns=take(columns, seed),
            place=seed,
            seed=seed,
            seed_logit=logit,
        )


def _check_num_queries(num_queries: int) -> None:
    if num_queries < 1:
        raise ValueError(f"num_queries={num_queries} must be at least 1")
