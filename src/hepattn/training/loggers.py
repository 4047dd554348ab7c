"""Comet with or without a key: online if there is one, else an archive to upload later."""

from pathlib import Path

from lightning.pytorch.loggers import CometLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class Comet(CometLogger):
    """Log to comet.com, or without a key to an archive in the run directory.

    Nothing is started before the first value is logged, so that a trial run stays silent. A
    resumed run continues its experiment, whose key is kept beside the archives.

    Args:
        project: Project on comet.com.
        workspace: Workspace on comet.com; by default the user's own.
        name: Name of the experiment; by default that of the run directory.
    """

    def __init__(
        self, project: str = "hepattn", workspace: str | None = None, name: str | None = None
    ) -> None:
        self.directory = Path("comet")  # the command line puts it into the run directory
        self._deferred = True
        super().__init__(project=project, workspace=workspace)
        self._deferred = False
        self._experiment_name = name
        self._archived = False

    @property
    def is_online(self) -> bool:
        """Whether a key is configured, in the environment or in comet's own config file."""
        import comet_ml

        return bool(comet_ml.get_config("comet.api_key"))

    def _create_experiment(self) -> None:
        if self._deferred:
            return
        import comet_ml

        self.directory.mkdir(parents=True, exist_ok=True)
        key_file = self.directory / "experiment_key.txt"
        continued = self.is_online and key_file.exists()
        self._experiment_key = key_file.read_text().strip() if continued else None
        self._comet_config = comet_ml.ExperimentConfig(
            name=self._experiment_name or self.directory.parents[1].name,
            offline_directory=str(self.directory),
            log_code=False,
            auto_output_logging=False,
        )
        # online=False would switch recording off in Lightning's logger, so it stays out of it
        self._online = self.is_online
        super()._create_experiment()
        if self.is_online:
            key_file.write_text(f"{self._experiment_key}\n")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send what is left, or close the archive and say how to upload it.

        Args:
            status: How the run ended.
        """
        super().finalize(status)
        if self._experiment is None or self.is_online or self._archived:
            return
        self._experiment.end()
        self._archived = True
        for archive in sorted(self.directory.glob("*.zip")):
            print(f"no Comet key, so the log is an archive; to send it: comet upload {archive}")
