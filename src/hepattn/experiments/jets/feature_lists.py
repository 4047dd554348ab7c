"""Feature lists by name: ``kin``, ``kinpid``, ``kinpidplus`` and ``full``."""

from pathlib import Path

from hepattn.nn.normalise import Feature
from hepattn.training.shipped import read_shipped

FOLDER = Path(__file__).parent / "features"
FeatureList = str | tuple[Feature, ...]


def feature_list(features: FeatureList) -> tuple[Feature, ...]:
    """Give the features that a name stands for.

    Args:
        features: Name of a list that ships with the experiment, path of a YAML file with a list,
            or the features themselves.

    Raises:
        ConfigError: If there is no such list, or it holds no features.
    """
    if isinstance(features, str):
        return read_shipped(features, tuple[Feature, ...], FOLDER, "data.features")
    return tuple(features)
