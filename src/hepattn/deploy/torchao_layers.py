"""The int8 layers of torchao, compared with ours; they want ``torch.compile`` to be fast."""

import importlib.util
import logging
from collections.abc import Sequence

from torch import nn

TORCHAO_METHODS = ("torchao-dynamic", "torchao-weight-only")
TORCHAO = importlib.util.find_spec("torchao") is not None


def make_torchao(network: nn.Module, method: str, names: Sequence[str]) -> None:
    """Let torchao quantise some layers of a network.

    Args:
        network: The network; it is changed.
        method: One of `TORCHAO_METHODS`.
        names: Names of the layers.

    Raises:
        ImportError: If torchao is not installed.
    """
    if not TORCHAO:
        raise ImportError(f"{method} needs torchao: pip install 'hepattn[deploy]'")
    logging.getLogger("torchao").setLevel(logging.ERROR)  # kernels for other devices
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    dynamic = method == "torchao-dynamic"
    config = Int8DynamicActivationInt8WeightConfig() if dynamic else Int8WeightOnlyConfig()
    chosen = set(names)
    quantize_(network, config, filter_fn=lambda layer, name: name in chosen)
