"""A transformer block for the start of a network, which may do without residual or norm."""

# T real tokens of all events, D features

import torch
from torch import Tensor, nn

from hepattn.nn.packing import Packing
from hepattn.nn.particle_block import BlockOptions, ParticleBlock


class FirstBlock(ParticleBlock):
    """The same as `ParticleBlock` but for the residual of attention and the norm before it.

    Without the residual a token is what it gathers from all tokens of its event, itself among them.

    Args:
        dim: Number of features D.
        options: What the blocks of a network share.
        has_residual: Whether attention's update is added to the tokens; else it replaces them.
        has_norm: Whether a norm comes before attention.

    Raises:
        ValueError: If nothing would be left of an event whose attention is dropped.
    """

    def __init__(
        self,
        dim: int,
        options: BlockOptions = BlockOptions(),  # noqa: B008 (frozen)
        *,
        has_residual: bool = True,
        has_norm: bool = True,
    ) -> None:
        super().__init__(dim, options)
        if not has_residual and options.drop_path > 0:
            raise ValueError(
                f"drop_path={options.drop_path} would drop all that is known of an event where the "
                "first block has no residual; set drop_path to 0 or keep the residual"
            )
        self.has_residual = has_residual
        if not has_norm:
            self.attention_norm = nn.Identity()

    def add_update(self, x: Tensor, update: Tensor, packing: Packing) -> Tensor:
        """Add attention's update (T, D) to the tokens (T, D), or put it in their place."""
        return super().add_update(x if self.has_residual else torch.zeros_like(x), update, packing)
