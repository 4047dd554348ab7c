"""Particle Transformer with attention that is linear in the number of particles (LinParT)."""

# N particles, R mixtures

from collections.abc import Sequence

from torch import nn

from hepattn.models.particle_transformer import ParticleTransformer
from hepattn.nn.low_rank_attention import LowRankAttention, TokenMixing
from hepattn.nn.normalise import Feature
from hepattn.nn.pair_bias import PairOptions
from hepattn.nn.particle_block import BlockOptions


class LinearParticleTransformer(ParticleTransformer):
    """A `ParticleTransformer` whose particles attend to a few learned mixtures of all particles.

    Known variants are a compression of 4 without pairs, which is linear in N throughout, and one of
    8 with the pairwise bias mixed like the keys. The order of the particles matters; the class
    blocks attend to the particles themselves (Linformer, arXiv:2006.04768).

    Args:
        features: Columns of the input, in order.
        num_classes: Classes of jets.
        compression: Particles per mixture: R is ``max_particles / compression``, rounded up.
        shared: Whether all blocks share their mixtures.
        max_particles: Most particles of a jet; more are refused. An ONNX file takes batches
            of N up to this, padding included, and fails for larger ones.
        embedding: As in `ParticleTransformer`.
        depth: As in `ParticleTransformer`.
        num_class_blocks: As in `ParticleTransformer`.
        block: As in `ParticleTransformer`.
        pairs: What the pairwise bias is made of; None for attention without one.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        num_classes: int,
        compression: int = 4,
        shared: bool = False,
        max_particles: int = 128,
        embedding: Sequence[int] = (128, 512, 128),
        depth: int = 8,
        num_class_blocks: int = 2,
        block: BlockOptions = BlockOptions(),  # noqa: B008 (frozen)
        pairs: PairOptions | None = None,
    ) -> None:
        if not 1 <= compression <= max_particles:
            raise ValueError(f"compression={compression} must be 1 to {max_particles=}")
        if block.qkv_norm is not None:
            raise ValueError(f"qkv_norm={block.qkv_norm} is not for low-rank attention")
        rank = -(-max_particles // compression)
        common = TokenMixing(rank, max_particles) if shared else None

        def attention(dim: int) -> nn.Module:
            mixing = common or TokenMixing(rank, max_particles)
            return LowRankAttention(dim, mixing, block.attention)

        super().__init__(
            features,
            num_classes,
            embedding,
            depth,
            num_class_blocks,
            block,
            pairs,
            attention=attention,
        )
