"""Jets as batches: real ones from a path, simulated ones where none is given."""

import hashlib
import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from hepattn.data.batching import EpochBatches, LengthBucketSampler, RowSampler
from hepattn.data.epoch_loader import EpochLoader
from hepattn.data.error import DataError
from hepattn.data.jets import (
    FirstJets,
    JetBatch,
    JetDataset,
    JetInput,
    JetLabels,
    JetPart,
    JetSource,
    JetSplit,
    JetWeights,
    StreamingJets,
    StreamingLoader,
    collate,
    open_jets,
)
from hepattn.experiments.jets.feature_lists import FeatureList, feature_list
from hepattn.ops.distributed import num_processes
from hepattn.simulate.jets import VERSION, JetConfig, simulate_jets
from hepattn.simulate.shards import available_cpus
from hepattn.training.cache import cache_folder

Paths = str | list[str]
Loader = EpochLoader[JetBatch] | StreamingLoader


class JetData(LightningDataModule):
    """Batches of jets.

    Args:
        features: Columns of the network's input: ``kin``, ``kinpid``, ``kinpidplus`` or ``full``,
            the path of a YAML file, or the list itself.
        path: File, folder, pattern or list of files (JetClass ROOT, parquet, HDF5, npz); null
            simulates jets, once, into a cache (``HEPATTN_CACHE``, by default in the user's cache
            folder).
        val_path: The same for validation; null takes a share of ``path``.
        test_path: The same for the test; null takes a share of ``path``.
        predict_path: Jets to predict, with or without labels; null predicts those of ``path``.
        labels: Where ROOT files and parquet files with lists keep the classes.
        tree: Name of the tree in ROOT files.
        simulation: Options of the simulation.
        num_simulated: How many jets to simulate where there is no path.
        split: Shares of the jets for training, validation and test.
        fold: Rotates the parts by this many test shares: with a test share of 0.2, the folds 0 to
            4 are a cross-validation.
        seed: Seed of the split and of the order of the training jets.
        batch_size: Jets in a batch.
        max_particles: Particles kept of a jet, those of largest pt.
        pt_edges: Edges in GeV of bins of the jet's pt in which each class is weighted to be flat,
            from the training jets; null gives all jets the same weight.
        num_workers: Processes that read jets beside the training.
        in_memory: Whether the jets fit into memory; else they are read again each epoch.
        buffer_size: Jets that are shuffled together where they are not in memory.
        skip_bad: Whether to leave out jets that contradict themselves, with a warning.

    Raises:
        DataError: If an option is out of range.
    """

    def __init__(
        self,
        features: FeatureList = "kin",
        path: Paths | None = None,
        val_path: Paths | None = None,
        test_path: Paths | None = None,
        predict_path: Paths | None = None,
        labels: JetLabels = JetLabels(),  # noqa: B008 frozen
        tree: str = "tree",
        simulation: JetConfig = JetConfig(),  # noqa: B008 frozen
        num_simulated: int = 20_000,
        split: tuple[float, float, float] = (0.8, 0.1, 0.1),
        fold: int = 0,
        seed: int = 0,
        batch_size: int = 128,
        max_particles: int = 128,
        pt_edges: tuple[float, ...] | None = None,
        num_workers: int = 0,
        in_memory: bool = True,
        buffer_size: int = 20_000,
        skip_bad: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("num_simulated", num_simulated, 1),
            ("fold", fold, 0),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("buffer_size", buffer_size, batch_size),
        ):
            if value < least:
                raise DataError(f"data.{name}={value} must be at least {least}")
        self.features = feature_list(features)
        self.path = path
        self.own_paths = {"val": val_path, "test": test_path}
        self.predict_path = predict_path
        self.labels = labels
        self.tree = tree
        self.simulation = simulation
        self.num_simulated = num_simulated
        self.fold = fold
        self.seed = seed
        self.batch_size = batch_size
        self.pt_edges = pt_edges
        self.num_workers = num_workers
        self.in_memory = in_memory
        self.buffer_size = buffer_size
        self.fractions = self._shares(split)
        num_folds = int(1 / self.fractions[2] + 1e-6) if self.fractions[2] else 1
        if fold >= num_folds:
            raise DataError(
                f"data.fold={fold} must be below {num_folds}: the test share of data.path is "
                f"{self.fractions[2]:g}"
            )
        self.input = JetInput(self.features, max_particles=max_particles, skip_bad=skip_bad)

    def _shares(self, split: tuple[float, float, float]) -> tuple[float, float, float]:
        """Shares of ``path``, of which parts with files of their own have none."""
        names = ("train", "val", "test")
        shares = [
            0.0 if self.own_paths.get(name) else share
            for name, share in zip(names, split, strict=True)
        ]
        if sum(split) > 0 and not sum(shares):
            raise DataError(f"data.split={split} leaves nothing of data.path for training")
        scale = sum(split) / sum(shares) if sum(shares) else 1.0
        train, val, test = (share * scale for share in shares)
        return train, val, test

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self.simulation.classes if self.path is None else self.source.classes

    @property
    def num_classes(self) -> int:
        """Number of classes, two at least."""
        if len(self.classes) < 2:
            raise DataError.of(
                self.path, "classes", found=self.classes or "none", expected="two at least"
            )
        return len(self.classes)

    def prepare_data(self) -> None:
        """Simulate the jets that the cache lacks."""
        if self.path is None:
            simulate_into_cache(self.simulation, self.num_simulated)

    @cached_property
    def source(self) -> JetSource:
        """The jets of ``path``, opened at the first use."""
        if self.path is None:
            labels = JetLabels(self.simulation.classes)
            jets = open_jets(simulated_folder(self.simulation), labels)
            return FirstJets(jets, self.num_simulated)
        return open_jets(self.path, self.labels, self.tree)

    def split(self) -> JetSplit:
        """Which jets of ``path`` are for training, validation and test."""
        return JetSplit(self.fractions, self.seed, offset=self.fold * self.fractions[2])

    def fingerprint(self) -> str:
        """Short hash of the jets and their split, to record what a run was trained on."""
        sources = [self.source, *map(self._open, filter(None, self.own_paths.values()))]
        parts = [[source.fingerprint() for source in sources], str(self.split())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def train_dataloader(self) -> Loader:
        """Training jets, in another order each epoch."""
        return self._loader(self.source, self.split().part("train"), shuffle=True)

    def val_dataloader(self) -> Loader:
        """Validation jets, mixed, as a limited validation would else see the first files alone."""
        return self._part_loader("val", mix=True)

    def test_dataloader(self) -> Loader:
        """Test jets."""
        return self._part_loader("test", is_training=False)

    def predict_dataloader(self) -> Loader:
        """All jets of ``predict_path`` or ``path``, in order, with or without labels."""
        own = self.predict_path
        source = self.source if own is None else open_jets(own, self.labels, self.tree)
        return self._loader(source, None, is_training=False)

    def _open(self, path: Paths) -> JetSource:
        source = open_jets(path, self.labels, self.tree)
        if common := {f.resolve() for f in source.files} & {f.resolve() for f in self.source.files}:
            raise DataError(f"{min(common)} is among the training and the evaluation files")
        if source.classes != self.classes:
            raise DataError.of(
                source.name,
                "classes",
                found=", ".join(source.classes) or "none",
                expected=", ".join(self.classes),
                remedy="train, validate and test on files of one kind",
            )
        return source

    def _part_loader(self, part: str, mix: bool = False, is_training: bool = True) -> Loader:
        own = self.own_paths[part]
        source = self.source if own is None else self._open(own)
        jets = self.split().part(part) if own is None else None
        return self._loader(source, jets, mix=mix, is_training=is_training)

    @cached_property
    def weights(self) -> JetWeights | None:
        """Weights by class and pt, from the training jets."""
        if self.pt_edges is None:
            return None
        return JetWeights.fit(self.source, self.pt_edges, self.split().part("train"))

    def _loader(
        self,
        source: JetSource,
        part: JetPart | None,
        shuffle: bool = False,
        mix: bool = False,
        is_training: bool = True,
    ) -> Loader:
        """Load jets; ``shuffle`` gives each epoch its own order, ``mix`` all the same one."""
        jets = replace(self.input, weights=self.weights) if shuffle else self.input
        if not self.in_memory:
            stream = StreamingJets(
                source,
                jets,
                self.batch_size,
                part,
                shuffle=shuffle or mix,
                seed=self.seed,
                buffer_size=self.buffer_size,
                is_filled=is_training,
            )
            return StreamingLoader(stream, self.num_workers)
        dataset = JetDataset(source, jets, part)
        size = self.batch_size * num_processes()
        batches: EpochBatches
        if shuffle:
            batches = LengthBucketSampler(dataset.lengths, size, seed=self.seed)
        else:
            generator = np.random.default_rng(self.seed)
            order = generator.permutation(len(dataset)) if mix else np.arange(len(dataset))
            batches = RowSampler(order, size)
        return EpochLoader(dataset, batches, collate, self.num_workers, is_filled=is_training)


def simulated_folder(simulation: JetConfig) -> Path:
    """Where the simulated jets of these options are kept."""
    return cache_folder("jets", VERSION, simulation)


def simulate_into_cache(simulation: JetConfig, num_jets: int) -> None:
    """Simulate the jets of these options that the cache lacks.

    Raises:
        DataError: If the cache can't be written or the simulation lacks an extra.
    """
    folder = simulated_folder(simulation)
    rank_zero_info(f"data.path is null: {num_jets} simulated jets from {folder}")
    try:
        simulate_jets(folder, num_jets, simulation, num_workers=available_cpus())
    except (OSError, ImportError, RuntimeError) as error:
        raise DataError(f"jets can't be simulated into {folder}: {error}") from error
