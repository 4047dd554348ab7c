"""Weights of weaver's ParticleNet by our names."""

from collections.abc import Mapping

from torch import Tensor

from hepattn.deploy.weaver_names import rename, without_prefixes

NAMES = (
    (r"bn_fts\.(.*)", r"norm.\1"),
    (r"edge_convs\.(\d+)\.convs\.(\d+)\.weight", r"convolutions.\1.maps.\2.weight"),
    (r"edge_convs\.(\d+)\.bns\.(\d+)\.(.*)", r"convolutions.\1.norms.\2.\3"),
    (r"edge_convs\.(\d+)\.sc\.weight", r"convolutions.\1.shortcut.weight"),
    (r"edge_convs\.(\d+)\.sc_bn\.(.*)", r"convolutions.\1.shortcut_norm.\2"),
    (r"fc\.0\.0\.(weight|bias)", r"dense.\1"),
    (r"fc\.1\.(weight|bias)", r"head.\1"),
)
VARIANTS = (
    "a ParticleNet without fusion and with one hidden layer at its end; other variants have no "
    "equivalent here"
)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a ParticleNet without fusion and with one hidden layer at its end.

    Convolutions of width one become linear maps. The scaling of the inputs is not among the
    weights: weaver does it when it reads the data.

    Args:
        state: Weights by weaver's names, with or without ``module.`` and ``mod.`` before them.

    Returns:
        All of them by the names of `hepattn.models.particle_net.ParticleNet`.

    Raises:
        ConfigError: If there is a name that such a network does not have.
    """
    return {
        rename(without_prefixes(key), NAMES, VARIANTS): _as_linear(value)
        for key, value in state.items()
    }


def _as_linear(weight: Tensor) -> Tensor:
    return weight.flatten(1) if weight.dim() > 2 else weight
