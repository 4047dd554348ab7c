import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hepattn.experiments
from hepattn import cli
from hepattn.training.cli import run_script

SCRIPT = '''"""Filter toys.

More about it.
"""
import sys

CONFIG = "sort.yaml"


def main():
    print("ran", sys.argv)
'''


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of experiments with one experiment and one script that is none."""
    folder = tmp_path / "experiments" / "toys"
    folder.mkdir(parents=True)
    (folder / "sort.py").write_text(SCRIPT)
    (folder / "sort.yaml").write_text("{}")
    (folder / "data.py").write_text("raise RuntimeError")
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "cli.py"))
    monkeypatch.setattr(sys, "argv", ["hepattn"])
    path = [str(folder.parent), *hepattn.experiments.__path__]
    monkeypatch.setattr(hepattn.experiments, "__path__", path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("hepattn.experiments.toys")]:
        del sys.modules[name]


def test_help_lists_experiments_and_tools(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "toys/sort" in text
    assert "Filter toys." in text
    assert "toys/data" not in text
    assert all(tool in text for tool in cli.TOOLS)


def test_the_config_of_an_experiment_may_have_another_name(
    toys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toys / "sort.py").write_text(SCRIPT.replace("sort.yaml", "bubble.yaml"))
    (toys / "bubble.yaml").write_text("{}")
    assert cli.main(["toys/sort", "fit"]) == 0
    expected = [str(toys / "sort.py"), "fit", "--config", str(toys / "bubble.yaml")]
    assert capsys.readouterr().out == f"ran {expected}\n"


def test_an_experiment_runs_with_its_own_config(
    toys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["toys/sort", "fit", "--config", "debug", "--trainer.max_epochs", "3"]) == 0
    debug = Path(hepattn.__file__).parents[2] / "configs" / "debug.yaml"
    own = ["--config", str(toys / "sort.yaml"), "--config", str(debug)]
    expected = [str(toys / "sort.py"), "fit", *own, "--trainer.max_epochs", "3"]
    assert capsys.readouterr().out == f"ran {expected}\n"


def test_another_config_replaces_the_shipped_one(
    toys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toys / "large.yaml").write_text("{}")
    cli.main(["toys/sort", "fit", "--config=large"])
    arguments = [str(toys / "sort.py"), "fit", f"--config={toys / 'large.yaml'}"]
    assert capsys.readouterr().out == f"ran {arguments}\n"


def test_a_misspelt_experiment_gets_a_suggestion(
    toys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["toys/sorted", "fit"]) == 2
    assert "did you mean 'toys/sort'?" in capsys.readouterr().err


def test_a_misspelt_config_gets_a_suggestion(
    toys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["toys/sort", "fit", "--config", "debgu"]) == 1
    assert "did you mean 'debug'?" in capsys.readouterr().err


def test_a_tool_gets_the_rest_of_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    class Tool:
        main = staticmethod(seen.append)

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: Tool)
    assert cli.main(["simulate-tracker", "out", "--num", "3"]) == 0
    assert seen == [["out", "--num", "3"]]


def test_help_needs_no_torch() -> None:
    code = "import sys, hepattn.cli as c; c.main(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


SORTING = """
from collections.abc import Callable, Sequence
from training.toy import LINKS, ToyData, ToyModule, ToyNet
from hepattn.nn.normalise import Feature
from hepattn.training.cli import run, run_script
from hepattn.training.optimizer import OptimizerCallable

class Base(ToyNet): ...

class Net(Base): ...

class Sorter(ToyModule):
    def __init__(
        self,
        net: Callable[[Sequence[Feature]], Base],
        features: tuple[Feature, ...],
        optimizer: OptimizerCallable,
    ) -> None:
        super().__init__(net, features, optimizer)

def main():
    run(Sorter, ToyData, config="sorting.yaml", links=LINKS)

if __name__ == "__main__":
    run_script(__file__)
"""
CONFIG = """
data: {features: [{name: x}]}
model:
  net: {class_path: sorting.Net}
  optimizer: {class_path: torch.optim.AdamW}
trainer: {max_epochs: 1, accelerator: cpu}
"""


@pytest.mark.slow
def test_the_classes_of_a_script_live_once(tmp_path: Path) -> None:
    """The config names a class of the script, whose base is the type that the module wants."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "sorting.py").write_text(SORTING)
    (folder / "sorting.yaml").write_text(CONFIG)
    command = [sys.executable, folder / "sorting.py", "fit", "--config", "sorting"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "sorting" / "ckpts" / "last.ckpt").exists()


def test_the_folder_of_a_script_leaves_the_search_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "looking.py"
    script.write_text("import sys\nfound = []\ndef main(): found.extend(sys.path)\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.chdir(tmp_path)
    run_script(str(script))
    looking = sys.modules.pop("looking")
    assert looking.found
    assert str(tmp_path) not in looking.found


def test_a_script_of_the_package_runs_under_its_module_name(
    toys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hepattn, "__file__", str(toys.parents[1] / "__init__.py"))
    run_script(str(toys / "sort.py"))
    assert "hepattn.experiments.toys.sort" in sys.modules
    assert capsys.readouterr().out.startswith("ran")
