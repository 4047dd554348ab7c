"""What a user of the tracking wants of its network: the tracks, without what training needs."""

# B events, M queries, N hits

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.experiments.trackml.tracks import track_estimates
from hepattn.models.mask_former import MaskFormer


class FoundTracks(NamedTuple):
    """Tracks that may be there, and their hits; all zero at padded hits and unused queries.

    Attributes:
        object_score: Probability that the query has found a track (B, M).
        mask_score: Probability that a hit belongs to the query's track (B, M, N).
        pt: Transverse momentum of the track in GeV (B, M). None, as those below, if the network
            does not estimate it.
        eta: Pseudorapidity (B, M).
        phi: Azimuth in rad (B, M).
        z0: Place along the beam in mm (B, M).
    """

    object_score: Tensor
    mask_score: Tensor
    pt: Tensor | None = None
    eta: Tensor | None = None
    phi: Tensor | None = None
    z0: Tensor | None = None


class TrackFinder(nn.Module):
    """Answer with the last word of a `MaskFormer`, for as many queries in any batch.

    Args:
        net: The network.
    """

    def __init__(self, net: MaskFormer) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, valid: Tensor) -> FoundTracks:
        """Find the tracks.

        Args:
            x: Raw columns of the hits (B, N, F).
            valid: True for real hits (B, N), real ones first.
        """
        found = self.net(x, valid)
        answer, real = found.layers[-1], found.query_valid  # (B, M' of this batch)
        # The network leaves out queries that no event of the batch needs.
        unused = self.net.queries.num_queries - real.shape[1]
        mask = answer.mask_logit.float().sigmoid().masked_fill(~valid.unsqueeze(1), 0.0)
        mask = mask.masked_fill(~real.unsqueeze(2), 0.0)
        columns = [answer.object_logit.float().sigmoid()]
        if answer.parameters is not None:
            columns += track_estimates(answer.parameters.float()).unbind(-1)[:4]
        score, *estimates = (F.pad(c.masked_fill(~real, 0.0), (0, unused)) for c in columns)
        return FoundTracks(score, F.pad(mask, (0, 0, 0, unused)), *estimates)  # (B, M, N)
