"""What README and docs promise is there: commands run, links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from hepattn import cli
from hepattn.experiments.trackml import hit_filter, tracking

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md")])
SMALL = ["--data.num_simulated", "4", "--data.simulation.num_particles", "50"]
SMALL += ["--trainer.fast_dev_run", "1", "--trainer.enable_progress_bar", "false"]


def commands(*starts: str) -> list[str]:
    """Commands of all pages that begin so, without comments, once each."""
    found = {}
    for page in PAGES:
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


@pytest.mark.filterwarnings("ignore:.*untrained weights")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "command",
    commands("hepattn trackml/")
    + commands("python hit_filter.py")
    + commands("python tracking.py"),
)
def test_experiment_commands_run(command: str, workplace: Path) -> None:
    words = command.split()
    # files that only their reader has, and sizes
    for option in ("--data.path", "--data.hit_scores.path", "--data.num_simulated"):
        if option in words:
            del words[words.index(option) : words.index(option) + 2]
    if "--trainer.fast_dev_run" in words:
        del words[words.index("--trainer.fast_dev_run") :][:2]
    if words[0] == "hepattn":
        assert cli.main([*words[1:], *SMALL]) == 0
    else:
        scripts = {"hit_filter.py": hit_filter, "tracking.py": tracking}
        scripts[words[1]].main([*words[2:], *SMALL])


@pytest.mark.parametrize(
    "command",
    commands("hepattn simulate-", "hepattn prep-", "hepattn score-"),
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
