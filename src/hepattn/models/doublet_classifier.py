"""One logit for each hit, from the doublets that it could share a track with."""

# B events, N hits, F features, M anchors, C candidates, K doublets of an anchor that attend,
# D features of a doublet, G gates, W features of a hit

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.dense import Dense
from hepattn.nn.doublet_messages import DoubletGraph, DoubletMessages
from hepattn.nn.doublets import DoubletEmbedding, DoubletFinder, Doublets
from hepattn.nn.encoder_layer import EncoderLayer
from hepattn.nn.normalise import Feature, Normalise
from hepattn.nn.positional import Coordinate
from hepattn.nn.rotary import Rotary, Rotation
from hepattn.ops.attention import Full, make_plan
from hepattn.ops.sort import group_order, sort_order, take

COORDINATES = (Coordinate("bend", scale=0.1), Coordinate("slope"))


class DoubletScores(NamedTuple):
    """What the network makes of some hits of each event, the anchors.

    Attributes:
        hit: Logits of the hits, each from its own doublets (B, N), zero where a hit is no anchor.
        chosen: True for the hits that are anchors (B, N).
        anchor: Place of each anchor among the hits (B, M).
        partner: Place of the other hit of its candidates (B, M, C).
        valid: True for real candidates of real anchors (B, M, C).
        screen: Logits of the candidates (B, M, C): are both hits of one particle?
        attended: Which candidates attend to each other (B, M, K).
        doublet: Logits of these, after they did (B, M, K).
        tokens: What the network knows of these (B, M, K, D).
        known: What it knows of the anchors (B, M, 2 W).
    """

    hit: Tensor
    chosen: Tensor
    anchor: Tensor
    partner: Tensor
    valid: Tensor
    screen: Tensor
    attended: Tensor
    doublet: Tensor
    tokens: Tensor
    known: Tensor


class DoubletClassifier(nn.Module):
    """Let the doublets of each hit attend to each other, then hits exchange messages along them.

    Of the candidates that the finder names, those attend that a small network, the screen, finds
    the likeliest.

    The hits of a track make doublets with a hit that agree in bend and in slope, and accidental
    doublets rarely do. So the doublets of one hit attend to those at the same bend and slope, by
    a rotary encoding: a triplet is two doublets that see each other. A doublet sees itself, so that
    attention shows how many others agree, and gates, not a softmax, add the doublets up. This is
    what `score` computes: each hit is classified for itself, so that training can look at a few
    hits of many events. Then `exchange` lets hits send messages along their doublets, both ways,
    and corrects the logits, which needs all the hits of a neighbourhood.

    Args:
        features: Columns of the input, in order: ``phi`` in radians, ``r`` and ``z`` in mm, and
            more.
        finder: Which doublets are candidates.
        num_attended: How many of a hit's candidates attend (K).
        screen_dim: Features of a candidate in the screen.
        dim: Features D of a doublet.
        depth: Number of layers of attention among the doublets of a hit.
        attention: Heads and backend of these layers.
        frequency: Highest frequency of the rotary encoding per unit of slope, and per ten of bend.
        base: Ratio between the highest and (nearly) the lowest frequency.
        width: Features W of a hit and of the sum of its doublets.
        num_gates: Number of gates G with which doublets are added up.
        num_rounds: Rounds of messages.

    Raises:
        ValueError: If a feature is missing, or the gates do not divide the width.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        finder: DoubletFinder = DoubletFinder(),  # noqa: B008 (frozen)
        num_attended: int = 16,
        screen_dim: int = 16,
        dim: int = 32,
        depth: int = 2,
        attention: AttentionOptions = AttentionOptions(  # noqa: B008 (frozen)
            num_heads=4, head_dim=16, position_init=12.0
        ),
        frequency: float = 150.0,
        base: float = 30.0,
        width: int = 64,
        num_gates: int = 8,
        num_rounds: int = 2,
    ) -> None:
        super().__init__()
        if width % num_gates:
            raise ValueError(f"num_gates={num_gates} must divide width={width}")
        self.finder = finder
        self.num_attended = min(num_attended, finder.num_doublets)
        self.num_gates = num_gates
        self.normalise = Normalise(features)
        self.columns = [self.normalise.index(name) for name in ("phi", "r", "z")]
        num_features = len(self.normalise.embedded)
        self.candidate = DoubletEmbedding(num_features, screen_dim)
        self.screen = Dense(screen_dim, 1)
        self.doublet = DoubletEmbedding(num_features, dim)
        self.mix = Dense(dim)
        self.rotary = Rotary(
            attention.features_per_head(dim), attention.value_heads, COORDINATES, frequency, base
        )
        self.layers = nn.ModuleList(
            EncoderLayer(Attention(dim, attention), Dense(dim), dim) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.same = nn.Linear(dim, 1)
        self.gate = nn.Linear(dim, num_gates)
        self.value = nn.Linear(dim, width)
        self.hit = nn.Linear(num_features, width)
        self.head = Dense(2 * width, 1)
        self.state = nn.Linear(2 * width + 1, width)
        self.rounds = nn.ModuleList(DoubletMessages(width, dim) for _ in range(num_rounds))
        self.correction = nn.Linear(width, 1)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Classify the hits.

        Args:
            x: Raw columns (B, N, F).
            valid: True for real hits (B, N), real ones first.

        Returns:
            Logits (B, N), zero at padded slots.
        """
        return self.exchange(self.score(x, valid, valid))

    def score(self, x: Tensor, valid: Tensor, chosen: Tensor) -> DoubletScores:
        """Classify some hits, each for itself, and their doublets, at a cost that grows with them.

        Args:
            x: Raw columns (B, N, F).
            valid: True for real hits (B, N), real ones first.
            chosen: True for the hits to classify (B, N), real ones.
        """
        x = x.masked_fill(~valid.unsqueeze(-1), 0.0)  # whatever padding holds, even NaN
        order = sort_order(x[..., self.columns[0]], valid)  # (B, N)
        x, is_anchor = take(x, order), chosen.gather(1, order)
        place = torch.arange(x.shape[1], device=x.device).expand_as(order)
        anchor = group_order(place, (~is_anchor).int())  # chosen ones first
        if not torch.compiler.is_exporting():
            anchor = anchor[:, : max(1, int(is_anchor.sum(1).max()))]  # (B, M)
        real = is_anchor.gather(1, anchor)  # (B, M)
        candidates = self.finder(*x[..., self.columns].unbind(-1), valid, anchor)
        hits = self.normalise(x, valid)  # (B, N, F')
        here = take(hits, anchor)  # (B, M, F')
        screen = self.screen(self.candidate(hits, here, candidates)).squeeze(-1)  # (B, M, C)
        ranked = screen.masked_fill(~candidates.valid, -math.inf)
        attended = ranked.topk(min(self.num_attended, ranked.shape[-1]), dim=-1).indices
        doublets = candidates.pick(attended)
        tokens = self._attend(self.doublet(hits, here, doublets), doublets)  # (B, M, K, D)
        known = torch.cat([self.hit(here), self._add_up(tokens, doublets.valid)], -1)
        anchor_before = order.gather(1, anchor)
        hit = _spread(self.head(known).squeeze(-1), anchor_before, real, valid.shape[1])
        partner = order.gather(1, candidates.partner.flatten(1)).view_as(candidates.partner)
        return DoubletScores(
            hit,
            chosen,
            anchor_before,
            partner,
            candidates.valid & real.unsqueeze(-1),
            screen,
            attended,
            self.same(tokens).squeeze(-1),
            tokens,
            known,
        )

    def exchange(self, scores: DoubletScores) -> Tensor:
        """Let the chosen hits exchange messages along their doublets and classify them again.

        Args:
            scores: What `score` makes of these hits. A hit near one that was not chosen lacks its
                messages.

        Returns:
            Logits (B, N), zero where a hit was not chosen.
        """
        anchor, num_hits = scores.anchor, scores.hit.shape[1]
        real = scores.chosen.gather(1, anchor)  # (B, M)
        place = torch.arange(anchor.shape[1], device=anchor.device).expand_as(anchor)
        nowhere = torch.full_like(scores.chosen, -1, dtype=torch.long)
        place = nowhere.scatter(1, anchor, place.masked_fill(~real, -1))  # (B, N)
        partner = scores.partner.gather(2, scores.attended)  # (B, M, K)
        partner = place.gather(1, partner.flatten(1)).view_as(partner)
        seen = scores.valid.gather(2, scores.attended) & (partner >= 0)
        graph = DoubletGraph(partner.clamp(min=0), seen, scores.tokens, scores.doublet)
        before = scores.hit.gather(1, anchor).unsqueeze(-1)  # (B, M, 1)
        state = self.state(torch.cat([scores.known, before], -1))  # (B, M, W)
        for exchange in self.rounds:
            state = exchange(state, graph)
        return _spread((before + self.correction(state)).squeeze(-1), anchor, real, num_hits)

    def _attend(self, tokens: Tensor, doublets: Doublets) -> Tensor:
        """Let the doublets of one anchor attend to each other, (B, M, K, D)."""
        tokens = (tokens + self.mix(tokens)).flatten(0, 1)  # (B * M, K, D)
        plan = make_plan(Full(), doublets.valid.flatten(0, 1))
        rotation = self._rotation(doublets)
        for layer in self.layers:
            tokens, _ = layer(tokens, plan, rotary=rotation)
        return self.norm(tokens).unflatten(0, doublets.valid.shape[:2])

    def _rotation(self, doublets: Doublets) -> Rotation:
        positions = torch.stack([doublets.bend.asinh(), doublets.slope], -1)  # (B, M, K, 2)
        return self.rotary(positions.flatten(0, 1))

    def _add_up(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Add up the doublets of each anchor, (B, M, W)."""
        gate = self.gate(tokens).sigmoid().where(valid.unsqueeze(-1), 0.0)  # (B, M, K, G)
        value = self.value(tokens).unflatten(-1, (self.num_gates, -1))
        return torch.einsum("bmkg,bmkgd->bmgd", gate, value).flatten(2) / 2


def _spread(logit: Tensor, anchor: Tensor, real: Tensor, num_hits: int) -> Tensor:
    """Bring logits (B, M) of anchors to their places among the hits (B, N)."""
    zeros = logit.new_zeros(logit.shape[0], num_hits)
    return zeros.scatter(1, anchor, logit.masked_fill(~real, 0.0))
