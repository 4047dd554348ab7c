"""Command lines that start an experiment in a process of its own."""

import sys


def experiment_command(experiment: str, *args: str) -> list[str]:
    """Say how to start an experiment.

    Args:
        experiment: Name, such as ``trackml/hit_filter``, or the path of a script.
        *args: Its arguments, such as ``fit``.
    """
    if experiment.endswith(".py"):
        return [sys.executable, experiment, *args]
    return [sys.executable, "-m", "hepattn.cli", experiment, *args]
