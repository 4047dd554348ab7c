"""Look at what attention layers attend to."""

# B events, H heads, M queries, N keys

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hepattn.nn.attention import Attention


@contextmanager
def record_attention(network: nn.Module, layers: str = "") -> Iterator[dict[str, Tensor]]:
    """Collect the attention weights of every forward of a network.

    They are computed beside the forward, for every pair of tokens, whatever the backend; so look
    at small events. The answer of the network does not change.

    Args:
        network: Any module with `Attention` layers in it; a compiled one runs without its graph.
        layers: Part of the names of the layers to watch; all by default.

    Yields:
        Filled by each forward: the weights (B, H, M, N), in the order in which the layer got its
        tokens, by the name of the layer, such as ``encoder.layers.0.attention``.
    """
    recorded: dict[str, Tensor] = {}

    def watch(name: str, layer: Attention) -> Any:
        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            recorded[name] = layer.weights(*args, **kwargs).detach()

        return layer.register_forward_pre_hook(record, with_kwargs=True)

    handles = [
        watch(name, module)
        for name, module in network.named_modules()
        if isinstance(module, Attention) and layers in name
    ]
    try:
        with torch.compiler.set_stance("force_eager"):  # graphs know nothing of hooks
            yield recorded
    finally:
        for handle in handles:
            handle.remove()
