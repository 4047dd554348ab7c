"""What the queries of a tracking network see and attend to."""

# B events, M queries, N hits, L decoder layers

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hepattn.data.trackml import HitBatch
from hepattn.models.mask_former import MaskFormer
from hepattn.nn.attention_maps import record_attention
from hepattn.ops.attention import Plan


@torch.no_grad()
def attention_pattern(net: MaskFormer, batches: Iterable[HitBatch]) -> dict[str, list[float]]:
    """Measure what the queries see and attend to in each decoder layer.

    Args:
        net: The network, with hits sorted by φ.
        batches: The events.

    Returns:
        Means over the queries, of each layer (L,): ``selected``, hits that a query's last mask
        claims among those it may see; ``empty``, whether there is none; ``distance`` of the hits
        from the query in φ, in rad, weighted by the attention, of queries that attend to any.
    """
    names = ("selected", "empty", "distance")
    values: list[dict[str, list[Tensor]]] = [{n: [] for n in names} for _ in net.decoder.layers]
    steps = [layer.cross_attention for layer in net.decoder.layers]
    calls: dict[nn.Module, tuple[Any, Any]] = {}
    hooks = [
        module.register_forward_hook(lambda m, args, out: calls.update({m: (args, out)}))
        for module in (net.queries, net.decoder, *steps)
    ]
    for batch in batches:
        with record_attention(net, "cross_attention") as weights:
            net(batch.hits, batch.valid)
        ((_, columns, *_), queries), (_, answers) = calls[net.queries], calls[net.decoder]
        phi, stands = (x[..., net.sort_column] for x in (columns, queries.columns))
        difference = phi.unsqueeze(1) - stands.unsqueeze(2)  # (B, M, N)
        distance = (torch.remainder(difference + torch.pi, 2 * torch.pi) - torch.pi).abs()
        for index, step in enumerate(steps):
            (plan,) = (a for a in calls[step][0] if isinstance(a, Plan))
            visible = plan.visible()
            visible = batch.valid[:, None, None] if visible is None else visible
            visible = visible.squeeze(1).expand_as(distance)
            claims = visible & (answers[index].mask_logit >= net.decoder.threshold_logit)
            selected = claims.sum(2)[queries.valid].float()
            # a step of k-means has no weights and averages what it sees
            attention = weights.get(f"decoder.layers.{index}.cross_attention", visible.unsqueeze(1))
            attention = attention.float().mean(1)  # (B, M, N)
            total = attention.sum(2)
            attends = queries.valid & (total > 0)
            values[index]["selected"].append(selected)
            values[index]["empty"].append((selected == 0).float())
            values[index]["distance"].append(
                (attention * distance).sum(2)[attends] / total[attends]
            )
    for hook in hooks:
        hook.remove()
    return {name: [float(torch.cat(layer[name]).mean()) for layer in values] for name in names}
