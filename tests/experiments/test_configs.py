"""Every config that ships runs: each is parsed by the real parser and trained for two steps."""

from pathlib import Path

import pytest
import yaml

from hepattn import cli, experiments

ROOT = Path(experiments.__file__).parent
CONFIGS = sorted(path.relative_to(ROOT) for path in ROOT.glob("*/*.yaml"))
# Simulated data and a size that a laptop trains: what the configs' own headers say they cost.
SMALL = {
    "trackml": ["--data.num_simulated", "4", "--data.simulation.num_particles", "50"],
    "jets": ["--data.num_simulated", "60", "--data.batch_size", "8"],
    "events": ["--data.num_simulated", "400", "--data.batch_size", "16"],
    "xec": ["--data.num_simulated", "30", "--data.batch_size", "2"],
    "hypervae": ["--data.num_simulated", "60", "--data.batch_size", "8"],
}
ON_CPU = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
ON_CPU += ["--data.num_workers", "0", "--trainer.enable_progress_bar", "false"]


def script_of(config: Path) -> str:
    """The experiment that a config belongs to, as the command at its top says."""
    names = [n for n in cli.experiments() if Path(n).parent == config.parent]
    top = (ROOT / config).read_text().partition("seed_everything")[0]
    return next(n for n in names if f"# hepattn {n} fit --config {config.name}" in top)


@pytest.mark.filterwarnings("ignore:no model.pretrained.path is given")
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_config_trains_two_steps(config: Path, simulated_cache: Path, tmp_path: Path) -> None:
    options = ["--config", str(ROOT / config), *SMALL[str(config.parent)], *ON_CPU]
    options += ["--run.root", str(tmp_path), "--trainer.fast_dev_run", "2"]
    assert cli.main([script_of(config), "fit", *options]) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_config_begins_with_what_it_is_and_its_command(config: Path) -> None:
    first, *_ = (ROOT / config).read_text().splitlines()
    assert first.startswith("# ")
    assert not first.startswith("# hepattn")
    assert script_of(config)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_config_says_nothing_that_the_data_decides(config: Path) -> None:
    model = yaml.safe_load((ROOT / config).read_text())["model"]
    assert not {"features", "min_hits", "schema", "classes", "auxiliary", "hypergraph"} & set(model)
