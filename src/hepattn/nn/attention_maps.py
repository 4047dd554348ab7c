"""Look at what attention layers attend to."""

# B events, H heads, M queries, N keys

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hepattn.nn.attention import Attention
from hepattn.nn.low_rank_attention import LowRankAttention
from hepattn.ops.attention import Plan

Quantity = Literal["weights", "weights without bias", "visible"]


@contextmanager
def record_attention(
    network: nn.Module, layers: str = "", quantity: Quantity = "weights"
) -> Iterator[dict[str, Tensor]]:
    """Collect the attention weights of every forward of a network.

    They are computed beside the forward, for every pair of tokens, whatever the backend; so look
    at small events. The answer of the network does not change.

    Args:
        network: Any module with `Attention` or `LowRankAttention` layers in it; a compiled one runs
            without its graph.
        layers: Part of the names of the layers to watch; all by default.
        quantity: What to collect: the weights; those that the scores would give without the score
            biases, of layers that got one; or whether each query sees each key
            (B, 1, M, N), also of queries that are padding.

    Yields:
        Filled by each forward: the weights (B, H, M, N), in the order in which the layer got its
        tokens, by the name of the layer, such as ``encoder.layers.0.attention``. The keys of a
        `LowRankAttention` are its mixtures.
    """
    recorded: dict[str, Tensor] = {}

    def watch(name: str, layer: Attention | LowRankAttention) -> Any:
        signature = inspect.signature(layer.forward)

        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = signature.bind(*args, **kwargs).arguments
            if quantity == "visible":
                plan = given["plan"]
                is_mixed = isinstance(layer, LowRankAttention)
                recorded[name] = layer.visible(plan) if is_mixed else _visible(plan)
                return
            if quantity == "weights without bias":
                biases = [given.pop(key, None) for key in ("bias", "offset_bias")]
                if all(bias is None for bias in biases):
                    return
            recorded[name] = layer.weights(**given).detach()

        return layer.register_forward_pre_hook(record, with_kwargs=True)

    handles = [
        watch(name, module)
        for name, module in network.named_modules()
        if isinstance(module, Attention | LowRankAttention) and layers in name
    ]
    try:
        with torch.compiler.set_stance("force_eager"):  # graphs know nothing of hooks
            yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _visible(plan: Plan) -> Tensor:
    """True where a query sees a key, (B, 1, M, N)."""
    B, N = plan.key_valid.shape
    M = plan.query_valid.shape[1]
    seen = plan.visible()
    if seen is None:
        return torch.ones(B, 1, M, N, dtype=torch.bool, device=plan.key_valid.device)
    return seen.expand(B, 1, M, N)
