"""What README and docs promise is there: commands run, links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from hepattn import cli
from hepattn.experiments.events import classify, density_ratio
from hepattn.experiments.hypervae import train
from hepattn.experiments.jets import tag
from hepattn.experiments.trackml import hit_filter, tracking
from hepattn.experiments.xec import inpaint, mae, regress

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md")])
SMALL = {
    "trackml": ["--data.num_simulated", "4", "--data.simulation.num_particles", "50"],
    "jets": ["--data.num_simulated", "60", "--data.batch_size", "8"],
    "events": ["--data.num_simulated", "400", "--data.batch_size", "16"],
    "xec": ["--data.num_simulated", "60", "--data.batch_size", "4"],
    "hypervae": ["--data.num_simulated", "60", "--data.batch_size", "8"],
}
SCRIPTS = {
    "hit_filter.py": hit_filter,
    "tracking.py": tracking,
    "tag.py": tag,
    "classify.py": classify,
    "density_ratio.py": density_ratio,
    "mae.py": mae,
    "inpaint.py": inpaint,
    "regress.py": regress,
    "train.py": train,
}
REAL = {"uproot-HZZ.root", "example_1k.h5"}  # named in commands of their own
BRIEF = ["--trainer.fast_dev_run", "1", "--trainer.enable_progress_bar", "false"]
# files that only their reader has, and sizes
OWN = ("--data.path", "--data.val_path", "--data.test_path", "--data.predict_path")
OWN += ("--data.hit_scores.path", "--model.pretrained.path", "--data.num_simulated")
OWN += ("--data.num_workers", "--data.batch_size", "--trainer.fast_dev_run", "--ckpt_path")
OWN += ("--model.encoder_ckpt", "--model.freeze_encoder")
OWN += ("--model.subtraction.numerator", "--model.subtraction.denominator")


def commands(*starts: str) -> list[str]:
    """Commands of all pages that begin so, without comments, once each."""
    found = {}
    for page in PAGES:
        if page.name in {"tutorial.md", "own_experiment.md"}:  # whose commands need each other
            continue
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith(starts):
                    found[" ".join(shlex.split(line, comments=True))] = None
    return list(found)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEPATTN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COMET_START_ONLINE", "false")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*untrained weights")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:no model.pretrained.path is given")
@pytest.mark.filterwarnings("ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "command",
    [
        command
        for command in commands(*(f"hepattn {experiment}/" for experiment in SMALL))
        + commands(*(f"python {script}" for script in SCRIPTS))
        if not REAL & set(command.split())
    ],
)
def test_experiment_commands_run(command: str, workplace: Path) -> None:
    words = command.split()
    for option in OWN:
        if option in words:
            del words[words.index(option) : words.index(option) + 2]
    if words[0] == "hepattn":
        small = SMALL[words[1].partition("/")[0]]
        assert cli.main([*words[1:], *small, *BRIEF]) == 0
    else:
        script = SCRIPTS[words[1]]
        script.main([*words[2:], *SMALL[script.__package__.split(".")[-1]], *BRIEF])


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [c for c in commands("hepattn events/") if REAL & set(c.split())]
)
def test_commands_on_real_files_run(command: str, workplace: Path, data_dir: Path) -> None:
    words = [str(data_dir / "events" / w) if w in REAL else w for w in command.split()]
    assert cli.main([*words[1:], *BRIEF]) == 0


@pytest.mark.parametrize(
    "command",
    [line for line in commands("hepattn ") if re.match(r"hepattn \w[\w-]*( |$)", line)],
)
def test_tool_commands_name_a_tool(command: str) -> None:
    assert command.split()[1] in cli.TOOLS


def test_tools_make_a_store_of_simulated_events(workplace: Path) -> None:
    simulate = "simulate-tracker raw --num_events 2 --config.num_particles 50"
    assert cli.main(simulate.split()) == 0
    assert cli.main(["prep-trackml", "raw", "store"]) == 0
    assert len(list((workplace / "store").glob("*-hits.parquet"))) == 2


def test_make_commands_have_a_target() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = {word for command in commands("make ") for word in command.split()[1:]}
    assert {"demo", "test"} <= named <= set(targets)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page}: {target}"
