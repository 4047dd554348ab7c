"""The ``hepattn`` command: lists and runs the experiments and tools.

Nothing heavy is imported before it is known what to run.
"""

import argparse
import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from hepattn.training.configs import ConfigError, add_shipped_config, did_you_mean

SUBCOMMANDS = ("fit", "validate", "test", "predict")
TOOLS = {
    "simulate-tracker": ("hepattn.simulate.tracker", "simulate events of a silicon tracker"),
    "prep-trackml": ("hepattn.data.trackml", "convert TrackML files to a fast store"),
    "simulate-jets": ("hepattn.simulate.jets", "simulate jets of ten classes"),
    "simulate-events": ("hepattn.simulate.events", "simulate events with known answers"),
    "simulate-xec": ("hepattn.simulate.xec", "simulate photons in a liquid-xenon calorimeter"),
    "summarise-events": (
        "hepattn.experiments.events.summary",
        "write statistics of event columns over the training events",
    ),
    "download": ("hepattn.data.download", "fetch a published jet data set"),
    "summarise-jets": ("hepattn.experiments.jets.summary", "compare the tests of several taggers"),
    "generate-jets": (
        "hepattn.experiments.hypervae.generate",
        "write jets that a run of hypervae generates",
    ),
    "evaluate-jets": (
        "hepattn.experiments.hypervae.evaluate",
        "compare generated jets with true ones",
    ),
    "export": ("hepattn.deploy.export", "write a run's network as ONNX, checked"),
    "weights": ("hepattn.deploy.weights", "write a run's weights as a folder for a model hub"),
    "attention-maps": ("hepattn.deploy.attention_maps", "draw what a run's network attends to"),
    "representation": (
        "hepattn.deploy.representation",
        "draw what the head of a run's network reads",
    ),
    "calibrate": ("hepattn.deploy.calibrate", "rescale a run's logits to true probabilities"),
    "quantise": ("hepattn.deploy.quantise", "make a run's network int8 and compare"),
    "profile": ("hepattn.deploy.profile", "time a run's network layer by layer"),
    "estimate": ("hepattn.training.estimate", "say how long a training takes, and what memory"),
    "check-resume": (
        "hepattn.training.check_resume",
        "kill a training again and again, and compare it with one that was left alone",
    ),
    "score-trackml": ("hepattn.experiments.trackml.score", "score a submission as the challenge"),
}


def experiments() -> dict[str, Path]:
    """Every experiment by name: the scripts that say which config they begin with."""
    folder = Path(__file__).parent / "experiments"
    scripts = sorted(folder.glob("*/*.py"))
    return {f"{s.parent.name}/{s.stem}": s for s in scripts if shipped_config(s)}


def shipped_config(script: Path) -> Path | None:
    """The config that a script names in its constant ``CONFIG``, without running the script."""
    for statement in ast.parse(script.read_text()).body:
        match statement:
            case ast.Assign([ast.Name("CONFIG")], ast.Constant(str(name))):
                return script.with_name(name)
    return None


def summary(script: Path) -> str:
    """First line of the documentation of a script, without running it."""
    text = ast.get_docstring(ast.parse(script.read_text())) or ""
    return text.partition("\n")[0]


def overview() -> str:
    """What the command can run, as text."""
    found = experiments()
    width = max(map(len, [*found, *TOOLS]))
    lines = ["experiments:"]
    lines += [f"  {name:{width}}  {summary(script)}" for name, script in found.items()]
    lines += ["", "tools:"]
    lines += [f"  {name:{width}}  {text}" for name, (_, text) in TOOLS.items()]
    lines += [
        "",
        f"An experiment takes {', '.join(SUBCOMMANDS)}; it uses its own config unless --config",
        "names another, and --config NAME adds an overlay such as debug, cpu or comet.",
        "hepattn NAME fit --help lists all options.",
    ]
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        args: Command line arguments, by default those of the process.

    Returns:
        Exit code.
    """
    args = list(sys.argv[1:] if args is None else args)
    parser = argparse.ArgumentParser(
        prog="hepattn",
        usage="hepattn NAME [arguments]",
        description="Attention models for high-energy physics.",
        epilog=overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if not args or args[0] in {"-h", "--help"}:
        parser.print_help()
        return 0
    name, *rest = args
    found = experiments()
    if name in TOOLS:
        importlib.import_module(TOOLS[name][0]).main(rest)
        return 0
    if name not in found:
        hint = did_you_mean(name, [*found, *TOOLS])
        print(
            f"error: {name!r} is no experiment and no tool{hint or '; see hepattn --help'}",
            file=sys.stderr,
        )
        return 2
    script = found[name]
    try:
        rest = add_shipped_config(rest, shipped_config(script), SUBCOMMANDS)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # the processes of a distributed run start this command line again, as a script
    sys.argv = [str(script), *rest]
    importlib.import_module(f"hepattn.experiments.{name.replace('/', '.')}").main()
    return 0


if __name__ == "__main__":
    __spec__ = None  # further processes then run the script that main() puts into sys.argv
    sys.exit(main())
