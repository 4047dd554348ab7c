"""Feature lists by name: ``kin``, ``kinpid``, ``kinpidplus`` and ``full``."""

from pathlib import Path

from jsonargparse import ArgumentParser

from hepattn.nn.normalise import Feature
from hepattn.training.configs import ConfigError, did_you_mean

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
    if not isinstance(features, str):
        return tuple(features)
    shipped = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    path = shipped.get(features, Path(features))
    if not path.is_file():
        hint = did_you_mean(features, list(shipped)) or f"; shipped lists are {', '.join(shipped)}"
        raise ConfigError(f"data.features: there is no list or file {features!r}{hint}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--features", type=tuple[Feature, ...])
    try:
        parsed = parser.parse_string(f"features:\n{path.read_text()}")
    except Exception as error:
        raise ConfigError(f"{path} holds no list of features: {error}") from error
    return parser.instantiate(parsed).features
