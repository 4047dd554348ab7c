"""What goes wrong around a training ends in one clear error, and what was saved stays whole."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data.jets.make_jets import draw_jets, write_root
from experiments.test_configs import ON_CPU, SMALL
from hepattn import cli
from hepattn.training.weights import read_weights

pytestmark = pytest.mark.slow

# one of each room
EXPERIMENTS = ("trackml/hit_filter", "jets/tag", "events/classify", "hypervae/train", "xec/mae")
CONFIGS = {"jets/tag": ["--config", "pfn"], "events/classify": ["--config", "mlp"]}
BOMB = "a-file-that-code-in-a-checkpoint-would-make"


def options(name: str, root: Path) -> list[str]:
    """Options of a small training, or of its continuation, in the folder ``root``."""
    room = name.partition("/")[0]
    own = ["--run.root", str(root), "--run.name", "run", "--trainer.logger", "false"]
    return [*CONFIGS.get(name, []), *SMALL[room], *ON_CPU, *own]


def train(name: str, root: Path, epochs: int, *more: str) -> int:
    """Train until so many epochs are done, and return the exit code."""
    length = ["--trainer.max_epochs", str(epochs), "--trainer.limit_train_batches", "2"]
    try:
        return cli.main([name, "fit", *options(name, root), *length, *more])
    except SystemExit as stop:
        return stop.code


@pytest.fixture(scope="module", params=EXPERIMENTS)
def trained(
    request: pytest.FixtureRequest,
    simulated_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path]:
    """Name of an experiment and the folder of its run."""
    root = tmp_path_factory.mktemp("faults")
    assert train(request.param, root, 1) == 0
    return request.param, root


@pytest.fixture
def last(trained: tuple[str, Path]) -> Path:
    """The newest state of the run, which is mended afterwards."""
    file = trained[1] / "run" / "ckpts" / "last.ckpt"
    whole = file.read_bytes()
    yield file
    file.write_bytes(whole)


class Bomb:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, (BOMB,)


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_a_truncated_checkpoint_is_named(
    trained: tuple[str, Path], last: Path, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    content = last.read_bytes()
    last.write_bytes(content[: int(share * len(content))])
    assert train(*trained, 2) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert str(last) in error
    assert len(last.read_bytes()) == int(share * len(content))


def test_a_checkpoint_never_runs_code(
    trained: tuple[str, Path],
    last: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Bomb()}, last)
    assert train(*trained, 2) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{last} is no file of weights that loads safely" in error
    assert "weights_only" not in error
    assert not (tmp_path / BOMB).exists()


def test_a_checkpoint_of_another_network_is_named(
    trained: tuple[str, Path], last: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = read_weights(last)
    weights = state["state_dict"]
    name = next(n for n, x in weights.items() if isinstance(x, torch.Tensor) and x.ndim == 2)
    weights["net.of_another_network"] = weights.pop(name)
    torch.save(state, last)
    for stage in ("fit", "test"):
        given = ["--ckpt_path", str(last)]
        if stage == "fit":
            assert train(*trained, 2, *given) == 1
        else:
            with pytest.raises(SystemExit) as stop:
                cli.main([trained[0], stage, *options(*trained), *given])
            assert stop.value.code == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"{last} is of another network than the config's" in error
        assert name in error
        assert "net.of_another_network" in error


def run_process(name: str, root: Path, epochs: int, before: str = "") -> subprocess.Popen[str]:
    """Train in a process of its own, after some code."""
    code = f"import sys\n{before}\nfrom hepattn import cli\nsys.exit(cli.main(sys.argv[1:]))"
    length = ["--trainer.max_epochs", str(epochs), "--trainer.limit_train_batches", "2"]
    return subprocess.run(
        [sys.executable, "-c", code, name, "fit", *options(name, root), *length],
        capture_output=True,
        text=True,
        check=False,
    )


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit is an error then
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
"""
KILL = """
import os, signal
from fsspec.implementations.local import LocalFileOpener
whole = LocalFileOpener.write
def write(self, data):
    whole(self, data[: len(data) // 2])
    self.f.flush()
    os.kill(os.getpid(), signal.SIGKILL)
LocalFileOpener.write = write
"""


@pytest.mark.parametrize(("fault", "code"), [(FULL, 1), (KILL, -signal.SIGKILL)])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    fault: str, code: int, simulated_cache: Path, tmp_path: Path
) -> None:
    name, checkpoints = "jets/tag", tmp_path / "run" / "ckpts"
    assert train(name, tmp_path, 1) == 0
    before = {file.name: file.read_bytes() for file in checkpoints.iterdir()}
    done = run_process(name, tmp_path, 2, fault)
    assert done.returncode == code
    assert {n: (checkpoints / n).read_bytes() for n in before} == before
    if fault is FULL:
        assert "cannot write to" in done.stderr.strip().splitlines()[-1]
    assert train(name, tmp_path, 2) == 0
    assert read_weights(checkpoints / "last.ckpt")["epoch"] == 1


def test_the_limit_of_the_full_disk_is_that_of_the_process() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize("network", ["part", "particlenet", "pfn", "pcnn", "linpart", "lorentz"])
def test_events_with_nothing_or_one_token_train(network: str, tmp_path: Path) -> None:
    file = write_root(tmp_path / "jets.root", draw_jets(60, longest=1))
    options = ["--config", network, "--data.path", str(file), "--data.batch_size", "2"]
    options += ["--data.features", "kin", "--trainer.fast_dev_run", "20"]
    assert cli.main(["jets/tag", "fit", *options, *ON_CPU]) == 0
