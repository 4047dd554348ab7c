"""What a network gets to see of a batch of jets."""

# B jets, N particles, F features

from typing import NamedTuple

from torch import Tensor


class JetBatch(NamedTuple):
    """A padded batch of jets.

    Attributes:
        particles: Raw feature columns of the particles (B, N, F) in float32, in the order of the
            feature list, real ones first and by falling pt; zero at padded slots.
        vectors: Four-vectors (E, px, py, pz) in GeV (B, N, 4); zero at padded slots.
        valid: True for real particles (B, N).
        label: Number of the class (B), -1 where the source has none.
        weight: Weight of the jet in the loss (B).
        index: Row of the jet in the source (B).
    """

    particles: Tensor
    vectors: Tensor
    valid: Tensor
    label: Tensor
    weight: Tensor
    index: Tensor
