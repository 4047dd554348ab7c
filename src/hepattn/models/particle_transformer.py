"""Particle Transformer: which particle started this jet (arXiv:2202.03772)."""

# B jets, N particles, T real particles of all jets, F features, D hidden features

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.normalise import Feature, Normalise
from hepattn.nn.packing import make_packing
from hepattn.nn.pair_bias import PairOptions
from hepattn.nn.particle_block import BlockOptions
from hepattn.nn.particle_encoder import ParticleEncoder, initialise


class ParticleTransformer(nn.Module):
    """Embed the particles, let them see each other, let a class token see them, classify.

    The defaults are the published ones. Real particles alone are computed, whatever the padding;
    so the batch normalisations of training know no padding, and each pair of particles counts once.

    Args:
        features: Columns of the input, in order.
        num_classes: Classes of jets.
        embedding: Features of the layers of the embedding; the last is the number D of all blocks.
        depth: Blocks in which particles see each other.
        num_class_blocks: Blocks in which the class token sees the particles.
        block: What the blocks share.
        pairs: What the pairwise bias is made of; None for attention without one.
        num_biased_blocks: How many of the first blocks have the bias; all by default.
        attention: Builds the attention layer of a block, see `ParticleEncoder`.
        trim: In training, lengths that jets are cut to, as a range of quantiles of the batch's
            lengths: one is drawn for each batch, and longer jets lose particles at random. The
            published recipe is (0.9, 1.02), where more than 1 stands for all. None by default.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        num_classes: int,
        embedding: Sequence[int] = (128, 512, 128),
        depth: int = 8,
        num_class_blocks: int = 2,
        block: BlockOptions = BlockOptions(),  # noqa: B008 (frozen)
        pairs: PairOptions | None = PairOptions(),  # noqa: B008 (frozen)
        num_biased_blocks: int | None = None,
        attention: Callable[[int], nn.Module] | None = None,
        trim: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        if trim is not None and not 0 < trim[0] <= trim[1]:
            raise ValueError(f"trim={trim} must be two quantiles above 0 in ascending order")
        self.trim = trim
        self.normalise = Normalise(features)
        num_inputs, dim = len(self.normalise.embedded), embedding[-1]
        self.input_norm = MaskedBatchNorm(num_inputs)
        layers: list[nn.Module] = []
        for dim_in, dim_out in pairwise((num_inputs, *embedding)):
            layers += [nn.LayerNorm(dim_in), nn.Linear(dim_in, dim_out), nn.GELU()]
        self.embedding = nn.Sequential(*layers)
        self.encoder = ParticleEncoder(
            dim, depth, num_class_blocks, block, pairs, num_biased_blocks, attention
        )
        self.head = nn.Linear(dim, num_classes)
        initialise(self.embedding)
        initialise(self.head)

    def forward(
        self, x: Tensor, vectors: Tensor, valid: Tensor, extra: Tensor | None = None
    ) -> Tensor:
        """Classify the jets.

        Args:
            x: Raw columns (B, N, F).
            vectors: Four-vectors (E, px, py, pz) in GeV (B, N, 4).
            valid: True for real particles (B, N), real ones first.
            extra: Further features of each pair (B, N, N, features), if ``pairs`` asks for them.

        Returns:
            Logits (B, classes).
        """
        if not torch.compiler.is_exporting():
            x, vectors, valid, extra = self._trim(x, vectors, valid, extra)
        packing = make_packing(valid)
        tokens = self.embedding(self.input_norm(packing.pack(self.normalise(x, valid))))  # (T, D)
        return self.head(self.encoder(tokens, vectors, valid, packing, extra))

    def _trim(
        self, x: Tensor, vectors: Tensor, valid: Tensor, extra: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Leave out slots that no jet needs, and in training perhaps particles of long jets."""
        lengths = valid.sum(1)  # (B)
        longest = max(int(lengths.max()), 1)
        if self.training and self.trim is not None:
            low, high = self.trim
            quantile = min(low + (high - low) * torch.rand(()).item(), 1.0)
            longest = max(int(lengths.float().quantile(quantile)), 1)
            score = torch.rand(valid.shape, device=valid.device).masked_fill(~valid, 2.0)
            kept = score.argsort(1)[:, :longest].sort(1).values  # (B, longest)
            # The kept ones keep their order; padding has the last places.
            x, vectors = (t.take_along_dim(kept.unsqueeze(-1), 1) for t in (x, vectors))
            valid = valid.take_along_dim(kept, 1)
            if extra is not None:
                extra = extra.take_along_dim(kept[:, :, None, None], 1)
                extra = extra.take_along_dim(kept[:, None, :, None], 2)
            return x, vectors, valid, extra
        cut = None if extra is None else extra[:, :longest, :longest]
        return x[:, :longest], vectors[:, :longest], valid[:, :longest], cut
