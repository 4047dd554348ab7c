"""Figures of one event of a test."""

# B events, M queries, N hits, L decoder layers

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hepattn.data.trackml import HitBatch, event_number, make_targets
from hepattn.data.trackml.table import find_rows
from hepattn.experiments.trackml.data import TrackMLData
from hepattn.experiments.trackml.tracking_plots import plot_attention, plot_tracks
from hepattn.models.mask_former import MaskFormer
from hepattn.nn.attention_maps import record_attention


def draw_event(batch: HitBatch, track: Tensor, data: TrackMLData) -> Figure:
    """Draw particles, hits and tracks of the first event, with the hits that a filter dropped.

    Args:
        batch: Events with truth.
        track: Track of each hit (B, N), -1 for none.
        data: Where the events come from.
    """
    numbers = [event_number(name) for name in data.source.names]
    event = data.source.read(numbers.index(int(batch.event[0])))
    targets = make_targets(event, data.selection)
    hits = {name: column[targets.selected] for name, column in event.hits.items()}
    real = batch.valid[0].cpu()
    rows = find_rows(hits["hit_id"], batch.hit_id[0].cpu()[real].numpy())
    kept = np.zeros(len(hits["hit_id"]), dtype=bool)
    kept[rows] = True
    track_of_hit = np.full(len(kept), -1)
    track_of_hit[rows] = track[0].cpu()[real].numpy()
    position = np.stack([hits[name] for name in "xyz"], 1).astype(float)
    return plot_tracks(position, targets.particle_index[targets.selected], kept, track_of_hit)


def draw_attention(batch: HitBatch, names: Sequence[str], net: MaskFormer) -> Figure | None:
    """Draw what the queries of the first event attend to, averaged over the heads.

    Args:
        batch: One event.
        names: Names of the columns of its hits.
        net: The network.

    Returns:
        None for steps of k-means, which have no weights, and for hits without ``phi``.
    """
    with record_attention(net.decoder, "cross_attention") as recorded:
        found = net(batch.hits, batch.valid)
    if not recorded or "phi" not in names:
        return None
    maps = torch.stack([weights[0].mean(0) for weights in recorded.values()]).cpu()  # (L, M, N)
    phi = batch.hits[0, :, names.index("phi")].cpu()[batch.valid[0].cpu()]
    if net.sort_column is not None:  # the maps are of sorted hits
        phi = phi.sort().values
    weights = maps[:, found.query_valid[0].cpu()][:, :, : len(phi)]
    return plot_attention(weights.numpy(), phi.numpy())
