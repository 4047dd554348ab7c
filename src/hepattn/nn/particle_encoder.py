"""The trunk of ParT: particles see each other with a pairwise bias, a class token sees them all.

Source: arXiv:2202.03772.
"""

# B events, N particles, T real particles of all events, D features, H heads

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hepattn.nn.attention import Attention
from hepattn.nn.norm import make_norm
from hepattn.nn.packing import Packing, make_packing
from hepattn.nn.pair_bias import PairBias, PairInputs, PairOptions
from hepattn.nn.particle_block import BlockOptions, ClassBlock, ParticleBlock
from hepattn.ops.attention import Full, make_packed_plan, make_plan

# Real particles of the events that go through the blocks together, on the CPU: where attention sees
# padding, and where it sees none. Fewer mean more calls, more mean larger tensors and more padding.
GROUP_PARTICLES = 768
PACKED_PARTICLES = 4096


class _Group(NamedTuple):
    """Events that go through the blocks together.

    Attributes:
        events: Their numbers in the batch (b); None if they are the batch.
        x: Their particles (T, D).
        packing: Where these stand.
        for_bias: What the pairwise bias needs.
    """

    events: Tensor | None
    x: Tensor
    packing: Packing
    for_bias: PairInputs


class ParticleEncoder(nn.Module):
    """Summarise the particles of each event in one vector.

    Args:
        dim: Number of features D.
        depth: Blocks in which particles see each other.
        num_class_blocks: Blocks in which the class token sees the particles; they drop nothing.
        block: What the blocks share.
        pairs: What the pairwise bias is made of; None for attention without one.
        num_biased_blocks: How many of the first blocks have the bias; all by default.
        attention: Builds the attention layer of a block from the number of features, if not by
            `Attention`. It is called as that is, with packed tokens, plan, ``bias`` and
            ``packing``, and returns an update of the tokens and anything else.

    Raises:
        ValueError: If a number of blocks is out of range.
    """

    no_weight_decay = ("class_token",)

    def __init__(
        self,
        dim: int,
        depth: int = 8,
        num_class_blocks: int = 2,
        block: BlockOptions = BlockOptions(),  # noqa: B008 (frozen)
        pairs: PairOptions | None = PairOptions(),  # noqa: B008 (frozen)
        num_biased_blocks: int | None = None,
        attention: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if depth < 1 or num_class_blocks < 1:
            raise ValueError(f"depth={depth}, num_class_blocks={num_class_blocks} must be positive")
        if num_biased_blocks is not None and (pairs is None or not 0 < num_biased_blocks <= depth):
            raise ValueError(
                f"num_biased_blocks={num_biased_blocks} must be 1 to depth={depth}, with pairs; "
                "for no bias at all set pairs to None"
            )
        self.num_biased_blocks = depth if num_biased_blocks is None else num_biased_blocks
        self.pair_bias = None if pairs is None else PairBias(block.attention.num_heads, pairs)
        self.blocks = nn.ModuleList(ParticleBlock(dim, block, attention) for _ in range(depth))
        has_norm = block.style == "prenorm"
        self.particle_norm = make_norm(block.norm, dim) if has_norm else nn.Identity()
        self.class_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=0.02))
        class_options = block.without_dropout()
        self.class_blocks = nn.ModuleList(
            ClassBlock(dim, class_options) for _ in range(num_class_blocks)
        )
        self.norm = make_norm(block.norm, dim)
        self._initialise()

    def forward(
        self,
        x: Tensor,
        vectors: Tensor,
        valid: Tensor,
        packing: Packing,
        extra: Tensor | None = None,
        paired: Tensor | None = None,
    ) -> Tensor:
        """Summarise.

        Args:
            x: Particles (T, D), as ``packing`` packs them.
            vectors: Four-vectors (E, px, py, pz) in GeV (B, N, 4).
            valid: True for real particles (B, N), real ones first.
            packing: Where the particles stand, from `make_packing`.
            extra: Further features of each pair (B, N, N, features), if the options ask for them.
            paired: True for the particles whose pairs have a bias (B, N); all by default.

        Returns:
            (B, D); of the class token alone for an event without particles.
        """
        is_packed = self._is_packed(x, packing)
        groups = self._group(x, PairInputs(vectors, valid, extra, paired), packing, is_packed)
        biases = [None] * len(groups)
        if self.pair_bias is not None:
            parts = [group.for_bias for group in groups]
            biases = self.pair_bias.of_groups(parts, packed=is_packed)
        summarise = partial(self._summarise, is_packed=is_packed)
        tokens = [summarise(*each) for each in zip(groups, biases, strict=True)]
        if groups[0].events is None:
            return self.norm(tokens[0])
        order = torch.cat([group.events for group in groups])  # (B)
        return self.norm(torch.cat(tokens).index_select(0, order.argsort()))

    def _summarise(self, group: "_Group", bias: Tensor | None, *, is_packed: bool) -> Tensor:
        """Make the class tokens (b, D) of a group's events."""
        x, packing, valid = group.x, group.packing, group.for_bias.valid
        if is_packed:
            plan = make_packed_plan(Full(), valid.sum(1).tolist())
            packing = Packing(None, 1, len(x))
        else:
            plan = make_plan(Full(), valid)
        biased_plan = replace(plan, bias_masks=True)
        for number, block in enumerate(self.blocks):
            if bias is not None and number < self.num_biased_blocks:
                x = block(x, biased_plan, packing, bias)
            else:
                x = block(x, plan, packing, None)
        x = self.particle_norm(x)
        is_token = valid.new_ones(valid.shape[0], 1)
        plan = make_plan(Full(), torch.cat([is_token, valid], 1), is_token)
        token = self.class_token.expand(valid.shape[0], -1)  # (b, D)
        for block in self.class_blocks:
            token = block(token, x, plan, group.packing)
        return token

    def _is_packed(self, x: Tensor, packing: Packing) -> bool:
        """Tell whether events attend by themselves, those of equal length together.

        That is fastest on the CPU, without gradients, where every block has the bias: others would
        need a mask of all particles. In training blocks drop whole events, which are then rows.
        """
        is_biased = self.pair_bias is not None and self.num_biased_blocks == len(self.blocks)
        if packing.index is None or not is_biased or self.training or torch.is_grad_enabled():
            return False
        layers = [block.attention for block in self.blocks]
        return self._is_free(x) and all(
            isinstance(layer, Attention) and layer.options.backend in ("auto", "sdpa")
            for layer in layers
        )

    def _is_free(self, x: Tensor) -> bool:
        """Tell whether events may be arranged otherwise: on the CPU, if nobody watches."""
        is_watched = any(module._forward_pre_hooks for module in self.modules())
        is_graph = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        return x.device.type == "cpu" and not (is_graph or is_watched)

    def _group(
        self, x: Tensor, inputs: PairInputs, packing: Packing, is_packed: bool
    ) -> list["_Group"]:
        """Put events of similar length together, in order of length.

        On the CPU that spares pairs with padding. Who watches the attention layers gets all events
        at once, in their order.
        """
        vectors, valid, extra, paired = inputs
        num_groups = 0
        if packing.index is not None and self._is_free(x):
            particles = PACKED_PARTICLES if is_packed else GROUP_PARTICLES
            num_groups = min(len(x) // particles, len(valid))
        if num_groups < 2 and not is_packed:
            return [_Group(None, x, packing, inputs)]
        row = (valid.flatten().cumsum(0) - 1).view_as(valid)  # (B, N), of x
        lengths = valid.sum(1)  # (B)
        groups = []
        for events in lengths.argsort(descending=True).tensor_split(max(num_groups, 1)):
            longest = max(int(lengths[events[0]]), 1)
            kept = valid[events, :longest]  # (b, n)
            part = x.index_select(0, row[events, :longest][kept])
            inputs = PairInputs(
                vectors[events, :longest],
                kept,
                None if extra is None else extra[events, :longest, :longest],
                None if paired is None else paired[events, :longest],
            )
            groups.append(_Group(events, part, make_packing(kept), inputs))
        return groups

    def _initialise(self) -> None:
        """Start with weights alike forward and backward, and smaller updates in later blocks."""
        initialise(self)
        with torch.no_grad():
            for number, block in enumerate(self.blocks, 1):
                block.contract.weight.div_((2 * number) ** 0.5)
                if hasattr(block.attention, "out"):
                    block.attention.out.weight.div_((2 * number) ** 0.5)


def initialise(module: nn.Module) -> None:
    """Start linear maps with Glorot's uniform weights, keys apart from values, and without bias."""
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        parts = layer.weight.chunk(2) if name.endswith("key_value") else (layer.weight,)
        for part in parts:
            nn.init.xavier_uniform_(part)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
