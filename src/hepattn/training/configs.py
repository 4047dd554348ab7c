"""Where a config named on the command line lives. Imports no torch, so that help is fast."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import hepattn

CONFIG_OPTIONS = ("--config", "-c")
EVALUATIONS = ("validate", "test", "predict")


class ConfigError(ValueError):
    """A config that cannot be found or that contradicts itself."""


def overlay_directory() -> Path:
    """The folder of the shipped overlays, in an installed package or in a checkout."""
    package = Path(hepattn.__file__).parent
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parents[1] / "configs"


def overlays() -> dict[str, Path]:
    """Every shipped overlay by name."""
    return {path.stem: path for path in sorted(overlay_directory().glob("*.yaml"))}


def is_overlay(path: Path) -> bool:
    """Whether a config is one of the shipped overlays rather than an experiment's own."""
    return path.resolve().parent == overlay_directory().resolve()


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A hint for a misspelt name, empty if nothing comes close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def resolve_config(name: str, folder: Path | None = None) -> Path:
    """Find a config by path or name.

    The working directory comes first, then the folder of the experiment, then the overlays. A
    name without a suffix means ``name.yaml``.

    Args:
        name: What the user wrote.
        folder: Folder of the experiment's script.

    Raises:
        ConfigError: If there is no such file.
    """
    file_names = [name] if Path(name).suffix or "/" in name else []
    if Path(name).suffix not in {".yaml", ".yml"}:
        file_names.append(f"{name}.yaml")
    folders = [Path(), *([folder] if folder else []), overlay_directory()]
    for place in folders:
        for file_name in file_names:
            if (place / file_name).is_file():
                return (place / file_name).absolute()
    beside = [path.name for path in sorted(folder.glob("*.yaml"))] if folder else []
    known = [*beside, *overlays()]
    raise ConfigError(
        f"no config {name!r} in the working directory"
        + (f", in {folder}" if folder else "")
        + f" or among the overlays ({', '.join(overlays())})"
        + did_you_mean(name, known)
    )


def resolve_config_arguments(
    args: Sequence[str], folder: Path | None = None
) -> tuple[list[str], list[Path]]:
    """Replace every config named in command line arguments by its path.

    Configs written out as YAML in the argument itself stay as they are.

    Args:
        args: Command line arguments.
        folder: Folder of the experiment's script.

    Returns:
        The arguments with absolute paths, and these paths in order.
    """
    resolved: list[str] = []
    paths: list[Path] = []
    expects_value = False
    for arg in args:
        option, equals, value = arg.partition("=")
        if expects_value:
            prefix, name = "", arg
        elif equals and option in CONFIG_OPTIONS:
            prefix, name = f"{option}=", value
        else:
            expects_value = arg in CONFIG_OPTIONS
            resolved.append(arg)
            continue
        expects_value = False
        if not name.lstrip().startswith("{") and ": " not in name and "\n" not in name:
            paths.append(resolve_config(name, folder))
            name = str(paths[-1])
        resolved.append(prefix + name)
    return resolved, paths


def add_run_config(args: Sequence[str], paths: Sequence[Path], default_name: str) -> list[str]:
    """Let an evaluation begin with the config that its run was trained with.

    It comes behind the experiment's own config and before overlays and options, which change it.

    Args:
        args: Command line arguments with configs as paths.
        paths: These paths.
        default_name: Name of the run where the arguments name none.

    Returns:
        The arguments, with one more config if the run has one.
    """
    run = Path(
        _last_value(args, "--run.root", "runs"), _last_value(args, "--run.name", default_name)
    )
    config = run / "config.yaml"
    if not args or args[0] not in EVALUATIONS or not config.is_file():
        return list(args)
    own = {str(path) for path in paths if not is_overlay(path)}
    places = [i for i, arg in enumerate(args) if arg.rpartition("=")[2] in own]
    after = (max(places) if places else 0) + 1
    return [*args[:after], "--config", str(config.absolute()), *args[after:]]


def _last_value(args: Sequence[str], option: str, default: str) -> str:
    value = default
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        name, equals, given = arg.partition("=")
        if name == option:
            value = given if equals else following
    return value


def add_shipped_config(args: Sequence[str], shipped: Path, subcommands: Sequence[str]) -> list[str]:
    """Put the experiment's own config first unless the user names one.

    Args:
        args: Command line arguments of the experiment.
        shipped: The config that ships with it.
        subcommands: Names of the subcommands, after which the option goes.
    """
    resolved, paths = resolve_config_arguments(args, shipped.parent)
    places = [i for i, arg in enumerate(resolved) if arg in subcommands]
    if not places or any(not is_overlay(path) for path in paths):
        return resolved
    after = places[0] + 1
    return [*resolved[:after], "--config", str(shipped), *resolved[after:]]
