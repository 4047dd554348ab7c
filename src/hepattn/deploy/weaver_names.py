"""From weaver's names of weights to ours."""

import re
from collections.abc import Sequence

from hepattn.training.configs import ConfigError

PREFIXES = ("module.", "mod.")  # of distributed training, and of weaver's wrapper of a network


def without_prefixes(key: str) -> str:
    """Take away what distributed training and weaver put before the name of a weight."""
    while key.startswith(PREFIXES):
        key = key.partition(".")[2]
    return key


def rename(key: str, names: Sequence[tuple[str, str]], variants: str) -> str:
    """Translate the name of a weight.

    Args:
        key: Name by weaver.
        names: Patterns of weaver's names, and ours with the groups of the pattern in them.
        variants: What the message says of networks that have other weights.

    Raises:
        ConfigError: If no pattern fits.
    """
    for theirs, ours in names:
        if match := re.fullmatch(theirs, key):
            return match.expand(ours)
    raise ConfigError(f"{key!r} is no weight of {variants}")
