"""Options that stand in a YAML file of their own, under a name or at a path."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from hepattn.training.configs import ConfigError, did_you_mean


def read_shipped(name: str, kind: type, folder: Path, option: str) -> Any:
    """Read what a name stands for.

    Args:
        name: Name of a file in the folder without its ending, or the path of a YAML file.
        kind: Type of what the file holds, as jsonargparse understands it.
        folder: Where the files are that ship with an experiment.
        option: What messages call the option that has the name.

    Raises:
        ConfigError: If there is no such file, or it holds something else.
    """
    shipped = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    path = shipped.get(name, Path(name))
    if not path.is_file():
        hint = did_you_mean(name, list(shipped)) or f"; those shipped are {', '.join(shipped)}"
        raise ConfigError(f"{option}: there is no list or file {name!r}{hint}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--content", type=kind)
    try:
        content = yaml.safe_load(path.read_text()) or {}  # what is empty lacks something
        return parser.instantiate(parser.parse_object({"content": content})).content
    except (yaml.YAMLError, ArgumentError, ValueError) as error:  # the last of constructors
        raise ConfigError(f"{path} does not fit {option}: {error}") from error
