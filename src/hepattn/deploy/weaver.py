"""Weights that were trained elsewhere: by weaver, or by another run of ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hepattn.deploy import weaver_particle_net, weaver_particle_transformer
from hepattn.deploy.weaver_names import without_prefixes
from hepattn.nn.normalise import Normalise
from hepattn.training.configs import ConfigError
from hepattn.training.weights import read_weights

COUNTER = "num_batches_tracked"  # which batch norms of old files lack
HEAD = "head."


@dataclass(frozen=True)
class LoadedWeights:
    """What a network took from a file.

    Args:
        path: The file.
        loaded: Names of the network's tensors that come from it.
        new: Names of those that keep their values.
    """

    path: Path
    loaded: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        new = f"new are {', '.join(self.new)}" if self.new else "none is new"
        return f"{len(self.loaded)} tensors loaded from {self.path}; {new}"


def read_weaver(path: str | Path, *, fold: bool = False) -> dict[str, Tensor]:
    """Read a weight file of weaver's Particle Transformer or ParticleNet.

    Args:
        path: The file, as weaver saves it (``.pt``).
        fold: Whether weaver 0.4.17 or an older one wrote it. Their Particle Transformer mixed the
            heads' channels otherwise; files of both kinds look alike.

    Returns:
        The weights by our names.

    Raises:
        DataError: If the file cannot be read.
        ConfigError: If it holds the weights of another network.
    """
    return _convert(read_weights(Path(path)), Path(path), fold=fold)


def load_pretrained(
    net: nn.Module, path: str | Path, *, new_head: bool = False, fold: bool = False
) -> LoadedWeights:
    """Let a network start from trained weights.

    All weights must fit except those of ``net.head``, which starts anew where the number of
    classes differs. A checkpoint of ours must have been trained on the same feature list; a weight
    file of weaver holds none, so only the number of features is compared.

    Args:
        net: A network of ours.
        path: Checkpoint of a run (``.ckpt``) or weight file of weaver (``.pt``).
        new_head: Whether the head starts anew even if it fits.
        fold: See `read_weaver`.

    Raises:
        DataError: If the file cannot be read.
        ConfigError: If the weights do not fit the network.
    """
    path = Path(path)
    content = read_weights(path)
    ours = isinstance(content, Mapping) and "state_dict" in content
    if ours and fold:
        raise ConfigError(f"{path} is a checkpoint of ours; fold is for files of weaver")
    given = _of_checkpoint(content) if ours else _convert(content, path, fold=fold)
    own = net.state_dict()
    heads = [{key: x.shape for key, x in s.items() if key.startswith(HEAD)} for s in (own, given)]
    left = set(heads[0]) | set(heads[1]) if new_head or heads[0] != heads[1] else set()
    given = {key: value for key, value in given.items() if key not in left}
    _check_fit(net, given, left=left, has_features=ours, path=path)
    try:
        net.load_state_dict(given, strict=False)
    except ValueError as error:  # another feature list
        raise ConfigError(f"{path}: {error}") from error
    loaded = tuple(key for key in own if key in given)
    return LoadedWeights(path, loaded, tuple(key for key in own if key in left))


def _of_checkpoint(content: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of the network within a checkpoint, which holds the whole module."""
    state = content["state_dict"].items()
    return {key.removeprefix("net."): value for key, value in state if key.startswith("net.")}


def _convert(content: Any, path: Path, *, fold: bool) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path} holds no weights by name; give a .ckpt or weaver's .pt file")
    state = {without_prefixes(key): value for key, value in content.items()}
    is_transformer = "cls_token" in state and any(key.startswith("cls_blocks.") for key in state)
    is_particle_net = any(key.startswith("edge_convs.") for key in state)
    if not is_transformer and not is_particle_net:
        raise ConfigError(
            f"{path} holds neither weaver's Particle Transformer nor its ParticleNet, and no "
            f"checkpoint of ours; its keys are {_some(content)}"
        )
    if fold and not is_transformer:
        raise ConfigError(f"{path} holds a ParticleNet; fold is for the Particle Transformer")
    if is_particle_net:
        return weaver_particle_net.convert(state)
    if fold:
        state = weaver_particle_transformer.fold_permuted_heads(state)
    return weaver_particle_transformer.convert(state)


def _check_fit(
    net: nn.Module, given: dict[str, Any], *, left: set[str], has_features: bool, path: Path
) -> None:
    own = net.state_dict()
    optional = set(left)
    if not has_features:
        modules = net.named_modules()
        scalings = tuple(f"{name}." for name, m in modules if isinstance(m, Normalise))
        optional |= {key for key in own if key.startswith(scalings)}
    absent = [key for key in own if key not in given and key not in optional]
    absent = [key for key in absent if not key.endswith(COUNTER)]
    unknown = [key for key in given if key not in own]
    wrong = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(value.shape)}"
        for key, value in own.items()
        if isinstance(value, Tensor) and key in given and given[key].shape != value.shape
    ]
    faults = (
        f"{what} {_some(keys)}"
        for what, keys in (("lacks", absent), ("also holds", unknown), ("has shapes", wrong))
        if keys
    )
    if text := "; ".join(faults):
        raise ConfigError(
            f"{path} does not fit {type(net).__name__}: it {text}. Choose the network, its options "
            "and the feature list that the weights were trained with"
        )


def _some(keys: Any) -> str:
    keys = list(keys)
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
