"""The command line of every experiment: ``fit``, ``validate``, ``test`` and ``predict``."""

import errno
import importlib
import importlib.util
import inspect
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

import hepattn
from hepattn.data.error import DataError
from hepattn.training.callbacks import (
    BestCheckpoint,
    LastCheckpoint,
    LoaderState,
    PredictionWriter,
    RandomState,
    StartWeights,
    StepCheckpoint,
)
from hepattn.training.configs import (
    ConfigError,
    add_run_config,
    is_overlay,
    resolve_config_arguments,
)
from hepattn.training.loggers import Comet
from hepattn.training.optimizer import remember_dimensions
from hepattn.training.parser import Parser, refuse_linked_values
from hepattn.training.provenance import RunRecorder, describe_experiment
from hepattn.training.run_directory import (
    RunConfig,
    RunDirectory,
    RunDirectoryError,
)
from hepattn.training.weights import UNREADABLE, read_weights, summarise_misfit

USER_ERRORS = (ConfigError, DataError, FloatingPointError, RunDirectoryError)
MONITOR = ("val/loss", "min")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
NOISE = (
    "The dirpath has changed",  # a checkpoint of another run
    "Checkpoint directory .* exists",  # at every resume
    ".*isinstance.treespec, LeafSpec",  # Lightning with torch 2.13
    "Your `IterableDataset` has `__len__` defined",  # our streams share out what workers read
)
# Lightning 2.6 calls a method that jsonargparse has renamed
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


class TrainingCLI(LightningCLI):
    """Lightning's command line with run directories, checked links and short errors.

    Args:
        module_class: The experiment's module. Its attribute ``monitor: tuple[name, mode]`` says
            which metric picks the best checkpoint, ``("val/loss", "min")`` by default.
        data_class: The experiment's data module.
        links: Source key to target key, for what the config of the data decides.
        data_links: Attribute of the data module to target key, for what only the data itself knows,
            such as the number of its classes.
        default_name: Name of the run where the user gives none.
        args: Command line arguments, configs given as paths.
        config_paths: The configs among them.
    """

    def __init__(
        self,
        module_class: type[LightningModule],
        data_class: type[LightningDataModule],
        *,
        links: dict[str, str],
        data_links: dict[str, str],
        default_name: str,
        args: list[str],
        config_paths: list[Path],
    ) -> None:
        self.links = links
        self.data_links = data_links
        self.default_name = default_name
        self.args = args
        self.config_paths = config_paths
        super().__init__(
            module_class,
            data_class,
            save_config_callback=None,  # the run recorder saves it, also without a logger
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_class=Parser,
            args=args,
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser that accepts no abbreviated options."""
        kwargs["allow_abbrev"] = False
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run directory and the links."""
        parser.add_class_arguments(RunConfig, "run")
        for source, target in self.links.items():
            parser.link_arguments(source, target, apply_on="parse")
        for attribute, target in self.data_links.items():
            parser.link_arguments(f"data.{attribute}", target, apply_on="instantiate")

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Fill the parser of a subcommand, unless another one is asked for: that saves a second."""
        asked = self.args[0] if self.args else ""
        if asked in self.subcommands() and asked != subcommand:
            return self.init_parser(**kwargs)
        return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        """Parse the arguments after refusing values for linked keys."""
        data_links = {f"data.{name}": target for name, target in self.data_links.items()}
        refuse_linked_values(args, self.config_paths, self.links | data_links)
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Keep what the user asked for: a checkpoint never changes the config."""

    def before_instantiate_classes(self) -> None:
        """Settle the run directory before anything is built."""
        config = self.config[self.subcommand]
        if config.trainer.default_root_dir is not None:
            raise ConfigError(
                "trainer.default_root_dir follows --run.root and --run.name; set those"
            )
        config.run.name = config.run.name or self.default_name
        self.run_directory = RunDirectory(config.run.root, config.run.name)
        parser = self._parser(self.subcommand)
        self.config_text = parser.dump(config, skip_none=False)

    def instantiate_classes(self) -> None:
        """Build module, data and trainer; a value that a constructor refuses is a config error."""
        try:
            super().instantiate_classes()
        except DataError:
            raise
        except ValueError as error:
            raise ConfigError(str(error)) from error
        remember_dimensions(self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer inside the run directory."""
        logger = self._get(self.config_init, "trainer").get("logger")
        if logger is None or logger is True:
            # empty name and version: a resumed run appends to the same log
            logger = TensorBoardLogger(save_dir=self.run_directory.logs, name="", version="")
        for item in logger if isinstance(logger, list) else [logger]:
            if isinstance(item, Comet):
                item.directory = self.run_directory.logs / "comet"
        root = str(self.run_directory.path)
        return super().instantiate_trainer(default_root_dir=root, logger=logger, **kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        given = config.get("callbacks") or []
        given = list(given) if isinstance(given, list) else [given]
        seed = self._get(self.config, "seed_everything")
        experiment = describe_experiment(
            type(self.model), type(self.datamodule), self.links, self.data_links
        )
        ours: list[Callback] = [
            RandomState(),
            LoaderState(),
            RunRecorder(self.run_directory, self.config_text, seed, experiment),
        ]
        if config.get("fast_dev_run"):  # Lightning would still save the last checkpoint
            given = [c for c in given if not isinstance(c, ModelCheckpoint)]
        elif config.get("enable_checkpointing") is not False:
            ours += self._checkpoints(given, has_validation=config.get("limit_val_batches") != 0)
        writes = self.subcommand in {"test", "predict"}
        if writes and not any(isinstance(c, PredictionWriter) for c in given):
            ours.append(PredictionWriter())
        weights = self._get(self.config, "run").weights
        starts = [StartWeights(weights)] if weights is not None and self.subcommand == "fit" else []
        # first, so that what copies the weights at the start, such as an average, gets these
        config["callbacks"] = [*starts, *given, *ours]
        return super()._instantiate_trainer(config, callbacks)

    def _checkpoints(self, given: list[Callback], *, has_validation: bool) -> list[Callback]:
        folder = self.run_directory.checkpoints
        configured = [c for c in given if isinstance(c, ModelCheckpoint)]
        for callback in configured:
            callback.dirpath = callback.dirpath or str(folder)
        best = []
        if has_validation and not configured:
            best = [BestCheckpoint(folder, *getattr(self.model, "monitor", MONITOR))]
        every = self._get(self.config, "run").save_every_n_steps
        within = [] if every is None else [StepCheckpoint(folder, every)]
        # the last one knows the best one's score
        return [*best, *within, LastCheckpoint(folder)]

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        asked = kwargs.get("ckpt_path")
        find = self._training_checkpoint if subcommand == "fit" else self._evaluation_checkpoint
        kwargs["ckpt_path"] = find(asked)
        if kwargs.get("weights_only") is None:
            kwargs["weights_only"] = True  # a checkpoint must not run code
        if subcommand == "predict" and kwargs.get("return_predictions") is None:
            kwargs["return_predictions"] = False  # the writer streams them to disk
        return kwargs

    def _run_subcommand(self, subcommand: str) -> None:
        """Run, and say in one line what a user can mend."""
        try:
            super()._run_subcommand(subcommand)
        except (*UNREADABLE, OSError) as error:
            if getattr(error, "errno", None) in NO_SPACE:
                raise RunDirectoryError(
                    f"cannot write to {self.run_directory.path}: {error.strerror}; what was saved "
                    "before is whole: make room and give the same command again"
                ) from error
            checkpoint = self.trainer.ckpt_path
            if checkpoint is not None:
                read_weights(Path(checkpoint))  # which names it if it is damaged
            if "loading state_dict" in str(error):
                raise RunDirectoryError(
                    f"{checkpoint} is of another network than the config's: "
                    f"{summarise_misfit(error)}; give the config that it was trained with"
                ) from error
            raise

    def _training_checkpoint(self, asked: str | None) -> str | None:
        directory = self.run_directory
        if self.trainer.fast_dev_run:
            return self._named_checkpoint(asked)
        if self.trainer.is_global_zero:  # later ranks find what the first one has just written
            run = self._get(self.config, "run")
            directory.claim(yaml.safe_load(self.config_text), resume=run.resume)
        if asked:
            return self._named_checkpoint(asked)
        newest = directory.newest_checkpoint()
        return str(newest) if newest else None

    def _evaluation_checkpoint(self, asked: str | None) -> str | None:
        checkpoint = self._named_checkpoint(asked or "best")
        if getattr(self.model, "has_weights", False) and not asked:
            if checkpoint is not None:
                raise RunDirectoryError(
                    f"{self.run_directory.path} holds a checkpoint, and other weights are given; "
                    "choose one by --ckpt_path best or another --run.name"
                )
            return None
        if checkpoint is None and not self.trainer.fast_dev_run:
            raise RunDirectoryError(
                f"{self.run_directory.path} holds no checkpoint to {self.subcommand}; train first, "
                "name another run with --run.name or give --ckpt_path"
            )
        if checkpoint is None:
            warnings.warn(f"{self.subcommand} runs with untrained weights", stacklevel=2)
        return checkpoint

    def _named_checkpoint(self, asked: str | None) -> str | None:
        found = self.run_directory.find_checkpoint(asked) if asked else None
        return str(found) if found else None


def run(
    module_class: type[LightningModule],
    data_class: type[LightningDataModule],
    *,
    config: Path | str | None = None,
    links: dict[str, str] | None = None,
    data_links: dict[str, str] | None = None,
    args: list[str] | None = None,
) -> TrainingCLI:
    """Run an experiment from its command line.

    Errors that a user can mend (data, configs, run directories) end with one message and exit
    code 1; misspelt options with exit code 2.

    Args:
        module_class: The experiment's module.
        data_class: The experiment's data module.
        config: The config that ships with the experiment; it names the run where the command
            line names no config.
        links: Source key to target key, for what the config of the data decides.
        data_links: Attribute of the data module to target key, for what only the data itself knows.
        args: Command line arguments, by default those of the process.

    Returns:
        The command line object, with ``trainer``, ``model`` and ``datamodule``.
    """
    folder = Path(inspect.getfile(module_class)).parent
    try:
        resolved, paths = resolve_config_arguments(sys.argv[1:] if args is None else args, folder)
        own = [path for path in paths if not is_overlay(path)]
        name = Path(own[0] if own else config or inspect.getfile(module_class)).stem
        resolved = add_run_config(resolved, paths, name)
        with warnings.catch_warnings():
            for message in NOISE:
                warnings.filterwarnings("ignore", message=message)
            return TrainingCLI(
                module_class,
                data_class,
                links=links or {},
                data_links=data_links or {},
                default_name=name,
                args=resolved,
                config_paths=paths,
            )
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def run_script(file: str) -> None:
    """Run the ``main`` of an experiment script through its module name.

    A script that runs as ``__main__`` and names its own classes by class path would define them
    twice. So the script is imported as the module it is, without its folder on the search path,
    where its neighbours would shadow other modules.

    Args:
        file: ``__file__`` of the script.
    """
    path = Path(file).resolve()
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != path.parent]
    package = Path(hepattn.__file__).resolve().parent
    if path.is_relative_to(package):
        parts = path.relative_to(package).with_suffix("").parts
        module = importlib.import_module(".".join((hepattn.__name__, *parts)))
    else:  # an experiment of the user's own
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    module.main()
