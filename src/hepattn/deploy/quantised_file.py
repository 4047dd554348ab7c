"""Files of quantised weights: safetensors, which hold numbers and text and run nothing."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hepattn.deploy.quantised_layers import Int8Dynamic, Int8Static, Int8Weight, replace_layers

FORMAT = "hepattn int8 1"
KINDS: dict[str, type[Int8Weight]] = {
    kind.__name__: kind for kind in (Int8Weight, Int8Dynamic, Int8Static)
}


def save_quantised(network: nn.Module, path: Path) -> None:
    """Write the weights of a network with quantised layers.

    Args:
        network: The network.
        path: File to write, ``.safetensors``; its folder is made.

    Raises:
        FileExistsError: If the file exists.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it or choose another name")
    state = network.state_dict()
    tensors = {name: x.contiguous().clone() for name, x in state.items() if _is_tensor(x)}
    description = {
        "format": FORMAT,
        "layers": json.dumps(quantised_layers(network)),
        "extra": json.dumps({name: x for name, x in state.items() if not _is_tensor(x)}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    save_file(tensors, unfinished, description)
    unfinished.replace(path)


def load_quantised(network: nn.Module, path: Path) -> None:
    """Load quantised weights into the network that they were made of.

    Args:
        network: The network with ordinary layers, as its config builds it; it is changed.
        path: File that `save_quantised` wrote.

    Raises:
        ValueError: If the file is of another format, or does not fit the network.
    """
    with safe_open(path, framework="pt") as file:
        description = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    if description.get("format") != FORMAT:
        raise ValueError(f"{path} is no file of quantised weights; make it with hepattn quantise")
    layers = json.loads(description["layers"])
    missing = set(layers) - {name for name, _ in network.named_modules()}
    if missing:
        raise ValueError(f"{path} does not fit the network: it has no layers {sorted(missing)}")
    replace_layers(network, list(layers), lambda name, _: _build(name, layers[name], tensors))
    try:
        network.load_state_dict(tensors | json.loads(description["extra"]))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the network: {error}") from error


def quantised_layers(network: nn.Module) -> dict[str, str]:
    """Names and kinds of the quantised layers of a network."""
    return {
        name: type(layer).__name__
        for name, layer in network.named_modules()
        if isinstance(layer, Int8Weight)
    }


def size_in_bytes(network: nn.Module) -> int:
    """Bytes of the weights as they are stored."""
    return sum(_num_bytes(x) for x in network.state_dict().values() if _is_tensor(x))


def _build(name: str, kind: str, tensors: dict[str, Tensor]) -> Int8Weight:
    prefix = f"{name}."
    names = ["weight_int8", "weight_scale", "bias"]
    if kind == Int8Static.__name__:
        names += ["input_scale", "input_zero"]
    return KINDS[kind](*(tensors.get(prefix + part) for part in names))


def _num_bytes(x: Tensor) -> int:
    if not hasattr(x, "__tensor_flatten__"):
        return x.nbytes
    return sum(getattr(x, name).nbytes for name in x.__tensor_flatten__()[0])  # torchao's


def _is_tensor(x: object) -> bool:
    return isinstance(x, torch.Tensor)
