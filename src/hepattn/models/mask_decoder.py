"""The mask decoder: queries that find objects among the tokens of an event."""

# B events, M queries, N tokens, D features, H heads

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from hepattn.nn.attention import AttentionOptions
from hepattn.nn.dense import Dense
from hepattn.nn.mask_decoder_layer import MaskDecoderLayer, Stands
from hepattn.nn.mask_head import Detections, MaskHead
from hepattn.nn.norm import NormName, make_norm
from hepattn.nn.positional import Coordinate
from hepattn.nn.queries import Queries
from hepattn.nn.rotary import Rotation
from hepattn.ops.attention import Full, Pattern, Plan, Window, make_plan
from hepattn.ops.attention.sdpa import add_offset_bias

CrossAttention = Literal["mask", "full", "kmeans"]


class MaskDecoder(nn.Module):
    """A stack of decoder layers; before the first and after each the queries answer.

    In a layer the queries attend to the tokens, pass a dense net and attend to each other. What a
    query sees of the tokens is decided by its last answer (``mask``: the tokens that it claims,
    arXiv:2112.01527, or all of them if it claims none; ``kmeans``: those that it claims more than
    any other query, arXiv:2207.04044) and by the window around its centre (local
    cross-attention, arXiv:2606.17631), or by nothing (``full``).

    Args:
        dim: Number of features D.
        depth: Number of layers.
        attention: Heads, gates and backend of the attention layers.
        dense: Builds the dense net of a layer from the number of features.
        norm: Which norm, before each branch.
        cross_attention: What decides, beside the window, which tokens a query sees.
        mask_threshold: Score, after the sigmoid, from which a token is claimed.
        window: Width of the window of cross-attention in tokens, which must then be sorted; every
            query sees every token by default.
        wrap: Whether places are cyclic in each event's own number of tokens.
        centre: Where the window of a query stands: at the query's own ``place``, or at its
            ``rank``, query i of m at token i * n // m.
        update_tokens: Whether the tokens attend to the queries that see them after each layer.
        encode_position: Whether the encodings of positions are added to queries and keys of the
            attention. A rotary encoding is there in any case.
        rotary: Builds a rotary encoding, such as `HelixRotary`, from a head's features and the
            number of key heads; all layers share it. None by default.
        offset_bias: Builds a bias of the scores of cross-attention from the number of heads, as a
            function of the tokens between a query's centre and a token, such as `ALiBi`.
        mask_bias: The same, called with one head, added to the mask logits, such as
            `OffDiagonalPenalty`.
        mask_by_position: Whether mask logits also hold the scores of heads that know where queries
            and tokens stand, by the rotary encoding, see `PositionScore`.
        num_parameters: How many parameters of its object a query estimates.
        iou_head: Whether a query estimates how good its mask is.

    Raises:
        ValueError: If options contradict each other, or a layer refuses its options.
    """

    def __init__(
        self,
        dim: int,
        depth: int = 4,
        attention: AttentionOptions = AttentionOptions(),  # noqa: B008 (frozen)
        dense: Callable[[int], nn.Module] = Dense,
        norm: NormName = "LayerNorm",
        cross_attention: CrossAttention = "mask",
        mask_threshold: float = 0.1,
        window: int | None = None,
        wrap: bool = False,
        centre: Literal["place", "rank"] = "place",
        update_tokens: bool = False,
        encode_position: bool = True,
        rotary: Callable[[int, int], nn.Module] | None = None,
        offset_bias: Callable[[int], nn.Module] | None = None,
        mask_bias: Callable[[int], nn.Module] | None = None,
        mask_by_position: bool = False,
        num_parameters: int = 0,
        iou_head: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        if not 0 < mask_threshold < 1:
            raise ValueError(f"mask_threshold={mask_threshold} must be in (0, 1)")
        if wrap and window is None and offset_bias is None and mask_bias is None:
            raise ValueError(
                "wrap=True needs a window, an offset_bias or a mask_bias; without them places do "
                "not matter"
            )
        if attention.position_init is not None and rotary is None:
            raise ValueError(
                f"position_init={attention.position_init} needs a rotary encoding of positions"
            )
        if centre == "rank" and window is None and offset_bias is None and mask_bias is None:
            raise ValueError(
                "centre='rank' needs a window, an offset_bias or a mask_bias; without them centres "
                "do not matter"
            )
        if mask_by_position and rotary is None:
            raise ValueError("mask_by_position=True needs a rotary encoding of positions")
        if cross_attention == "kmeans" and offset_bias is not None:
            raise ValueError("offset_bias has no effect on the means of cross_attention='kmeans'")
        self.cross_attention = cross_attention
        self.num_parameters = num_parameters
        self.iou_head = iou_head
        self.threshold_logit = math.log(mask_threshold / (1 - mask_threshold))
        self.pattern: Pattern = Full(wrap) if window is None else Window(window, wrap)
        self.centre = centre
        self.encode_position = encode_position
        self.layers = nn.ModuleList(
            MaskDecoderLayer(
                dim, attention, dense, norm, cross_attention == "kmeans", update_tokens
            )
            for _ in range(depth)
        )
        self.norm = make_norm(norm, dim)
        self.token_norm = make_norm(norm, dim) if update_tokens else None
        self.head = MaskHead(dim, num_parameters, iou_head, attention if mask_by_position else None)
        self.offset_bias = None if offset_bias is None else offset_bias(attention.num_heads)
        self.mask_bias = None if mask_bias is None else mask_bias(1)
        self.rotary = None
        if rotary is not None:
            self.rotary = rotary(attention.features_per_head(dim), attention.value_heads)
            if not self.rotary.coordinates:
                raise ValueError("the rotary encoding of a decoder needs coordinates")

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """The coordinates whose raw columns ``coordinates`` of `forward` must hold, in order."""
        return () if self.rotary is None else self.rotary.coordinates

    def forward(
        self,
        queries: Queries,
        tokens: Tensor,
        valid: Tensor,
        positions: tuple[Tensor | None, Tensor | None] = (None, None),
        coordinates: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> list[Detections]:
        """Find the objects.

        Args:
            queries: The queries of the batch.
            tokens: Tokens (B, N, D), normalised; sorted, where there is a window or a bias.
            valid: True for real tokens (B, N), real ones first.
            positions: Encodings of where the queries (B, M, D) and the tokens (B, N, D) stand.
            coordinates: Raw coordinates of the queries (B, M, C) and the tokens (B, N, C) for the
                rotary encoding.

        Returns:
            The answers of the queries as they came, and after each layer. Those of padded queries
            and about padded tokens mean nothing.
        """
        x = queries.content  # (B, M, D)
        stands = [
            Stands(
                position if self.encode_position else None,
                None if self.rotary is None else self.rotary(coordinate),
            )
            for position, coordinate in zip(positions, coordinates, strict=True)
        ]
        centres = queries.place if self.centre == "place" else None
        plan = make_plan(self.pattern, valid, queries.valid, centres=centres)
        self_plan = make_plan(Full(), queries.valid)
        back_plan = None if self.token_norm is None else make_plan(Full(), queries.valid, valid)
        offset_bias = None if self.offset_bias is None else self.offset_bias(plan.max_offset)
        allowed = None if self.cross_attention == "full" else _allowed(plan)
        mask_bias = self._mask_bias(plan)
        rotations = [stand.rotary for stand in stands]
        context = tokens if self.token_norm is None else self.token_norm(tokens)
        answers = [self._answer(x, context, rotations, mask_bias)]
        for layer in self.layers:
            cross_plan = plan
            if allowed is not None:
                cross_plan = plan.restrict(self._seen(answers[-1].mask_logit, allowed))
            x = layer(x, context, cross_plan, self_plan, *stands, offset_bias=offset_bias)
            if back_plan is not None:
                mutual = back_plan
                if (visible := cross_plan.visible()) is not None:
                    visible = visible.squeeze(1).expand(-1, x.shape[1], -1).mT  # (B, N, M)
                    known = queries.valid.unsqueeze(1)  # (B, 1, M)
                    mutual = back_plan.restrict(_unless_nothing(visible, known))
                tokens = layer.update_tokens(tokens, x, mutual, *stands)
                context = self.token_norm(tokens)
            answers.append(self._answer(x, context, rotations, mask_bias))
        return answers

    def _answer(
        self,
        queries: Tensor,
        context: Tensor,
        rotations: list[Rotation | None],
        mask_bias: Tensor | None,
    ) -> Detections:
        answer = self.head(self.norm(queries), context, *rotations)
        if mask_bias is None:
            return answer
        return answer._replace(mask_logit=answer.mask_logit + mask_bias)

    def _mask_bias(self, plan: Plan) -> Tensor | None:
        """What is added to the mask logits of every answer, (B or 1, M, N) or None."""
        if self.mask_bias is None:
            return None
        reach = max(plan.key_valid.shape[1] - 1, 0)  # masks are not bound by a window
        return add_offset_bias(None, self.mask_bias(reach), plan).squeeze(1)

    def _seen(self, mask_logit: Tensor, allowed: Tensor) -> Tensor:
        """Find the tokens that each query sees of those that it may see (B, M, N)."""
        logit = mask_logit.detach()
        if self.cross_attention == "mask":
            return _unless_nothing(logit >= self.threshold_logit, allowed)
        nearest = logit.masked_fill(~allowed, -torch.inf).argmax(1, keepdim=True)  # (B, 1, N)
        return torch.zeros_like(allowed).scatter_(1, nearest, True)


def _allowed(plan: Plan) -> Tensor:
    """True for the tokens that each real query may see (B, M, N)."""
    real = plan.query_valid.unsqueeze(-1).expand(-1, -1, plan.key_valid.shape[1])  # (B, M, N)
    visible = plan.visible()  # (B or 1, 1, M or 1, N)
    return real if visible is None else real & visible.squeeze(1)


def _unless_nothing(chosen: Tensor, allowed: Tensor) -> Tensor:
    """Let a row that chose nothing of what it may see (B, M, N) see all of it."""
    return chosen | ~(chosen & allowed).any(-1, keepdim=True)
