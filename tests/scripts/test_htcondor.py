"""The HTCondor submit file, read as condor_submit reads it."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from hepattn import cli

SUBMIT = Path(__file__).parents[2] / "scripts" / "htcondor" / "train.sub"


def submitted(**defined: str) -> dict[str, str]:
    """Commands of the submit file with all macros replaced.

    What the file itself defines wins over the command line, which HTCondor reads first.
    """
    for line in SUBMIT.read_text().splitlines():
        if match := re.match(r"(\w+)\s*=\s*(.*)", line):
            defined[match[1]] = match[2]
    defined["Cluster"] = "7"

    def expand(text: str) -> str:
        replaced = re.sub(
            r"\$\((\w+)(?::([^)]*))?\)",
            lambda m: expand(defined.get(m[1], m[2] or "")),
            text,
        )
        assert "$(" not in replaced, text
        return replaced

    return {name: expand(value) for name, value in defined.items()}


def words(arguments: str) -> list[str]:
    """Split arguments in HTCondor's new syntax: in double quotes, single quotes within."""
    assert arguments[0] == arguments[-1] == '"'
    return shlex.split(arguments[1:-1])


@pytest.mark.parametrize(
    ("defined", "experiment", "expected"),
    [
        ({}, "trackml/hit_filter", {"accelerator": "gpu"}),
        (
            {"experiment": "events/classify", "options": "--config cpu --trainer.max_epochs 3"},
            "events/classify",
            {"accelerator": "cpu", "max_epochs": 3},
        ),
    ],
)
def test_the_arguments_are_a_command_line_that_parses(
    defined: dict[str, str],
    experiment: str,
    expected: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = submitted(**defined)
    assert commands["executable"] == "/usr/bin/env"
    command, *arguments = words(commands["arguments"])
    assert (command, arguments[0]) == ("hepattn", experiment)
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--print_config"])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["run"]["save_every_n_steps"] == 1000
    assert config["trainer"].items() >= (expected | {"enable_progress_bar": False}).items()


def test_options_may_hold_quotes() -> None:
    commands = submitted(options="--data.split '[0.8, 0.1, 0.1]'")
    assert "[0.8, 0.1, 0.1]" in words(commands["arguments"])


def test_a_job_that_failed_by_the_users_fault_is_not_started_again() -> None:
    rule = submitted()["on_exit_remove"]
    assert rule == "(ExitBySignal == False) && (ExitCode <= 2)"
