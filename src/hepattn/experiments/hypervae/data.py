"""Jets as hypergraphs: real ones from a path, simulated ones where none is given."""

# B jets, N particles

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import Dataset

from hepattn.data.batching import RowSampler
from hepattn.data.epoch_loader import EpochLoader
from hepattn.data.error import DataError
from hepattn.data.jets import (
    FirstJets,
    JetBatch,
    JetDataset,
    JetInput,
    JetPart,
    JetSource,
    JetSplit,
    TypedJets,
    open_jets,
)
from hepattn.experiments.hypervae.batch import HypergraphBatch, make_batch
from hepattn.experiments.hypervae.hypergraph import HypergraphOptions
from hepattn.experiments.hypervae.jet_statistics import JetStatistics
from hepattn.nn.normalise import Feature
from hepattn.ops.distributed import num_processes
from hepattn.simulate.jets import JETNET_CLASSES, VERSION, JetConfig, simulate_jets
from hepattn.simulate.shards import available_cpus
from hepattn.training.cache import cache_folder

if TYPE_CHECKING:  # torch_geometric takes a while to load, and training needs none of it
    from hepattn.experiments.hypervae.graphs import JetGraph

Paths = str | list[str] | dict[str, str]
NUM_MEASURED = 20_000  # training jets that scales are taken from


class JetHypergraphs(Dataset["JetGraph"]):
    """Jets in memory, one by one as graphs or many at once as a padded batch.

    Args:
        jets: The jets, padded to the most particles.
        options: Which particles have edges and hyperedges.
    """

    def __init__(self, jets: JetDataset, options: HypergraphOptions) -> None:
        self.jets = jets
        self.options = options
        self.kept = (jets._padder.counts > 0).nonzero().squeeze(1)
        self.num_slots = jets.inputs.pad_to

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, jet: int) -> "JetGraph":
        """Return one jet as a graph."""
        from hepattn.experiments.hypervae.graphs import to_graphs

        return to_graphs(self.batch([jet]), self.options)[0]

    def batch(self, jets: Sequence[int]) -> HypergraphBatch:
        """Return jets as a padded batch, whose edges are computed for all at once."""
        read: JetBatch = self.jets.__getitems__(self.kept[torch.as_tensor(jets)].tolist())
        return make_batch(
            read.vectors, read.valid, read.label, read.weight, read.index, self.options
        )

    def __getitems__(self, jets: Sequence[int]) -> HypergraphBatch:
        """Return a batch to a ``DataLoader``, which needs ``collate_fn=collate``."""
        return self.batch(jets)


def collate(
    jets: "HypergraphBatch | Sequence[JetGraph]", num_slots: int, options: HypergraphOptions
) -> HypergraphBatch:
    """Make a padded batch of graphs; a batch is passed on.

    Args:
        jets: Graphs, or a batch.
        num_slots: Number of slots of the batch.
        options: Which particles have edges and hyperedges.
    """
    if isinstance(jets, HypergraphBatch):
        return jets
    from hepattn.experiments.hypervae.graphs import collate_graphs

    return collate_graphs(jets, num_slots, options)


class HypergraphData(LightningDataModule):
    """Batches of jets as hypergraphs.

    Args:
        path: File, folder, pattern or list of files (JetNet HDF5, QuarkGluon npz, Top Landscape,
            JetClass), or a mapping of the name of a type to the file of its jets; null simulates
            gluon, quark and top jets, once, into a cache (``HEPATTN_CACHE``).
        simulation: Options of the simulation.
        num_simulated: How many jets to simulate where there is no path.
        hypergraph: Which particles have edges and hyperedges.
        max_particles: Particles kept of a jet, those of largest pT.
        split: Shares of the jets for training, validation and test.
        seed: Seed of the split and of the order of the training jets.
        batch_size: Jets in a batch.
        num_workers: Processes that make batches beside the training.
        skip_bad: Whether to leave out jets that contradict themselves, with a warning.

    Raises:
        DataError: If an option is out of range.
    """

    def __init__(
        self,
        path: Paths | None = None,
        simulation: JetConfig = JetConfig(  # noqa: B008 frozen
            classes=JETNET_CLASSES, layout="jetnet", max_particles=30
        ),
        num_simulated: int = 60_000,
        hypergraph: HypergraphOptions = HypergraphOptions(),  # noqa: B008 frozen
        max_particles: int = 30,
        split: tuple[float, float, float] = (0.8, 0.1, 0.1),
        seed: int = 42,
        batch_size: int = 64,
        num_workers: int = 0,
        skip_bad: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("num_simulated", num_simulated, 1),
            ("max_particles", max_particles, 3),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value < least:
                raise DataError(f"data.{name}={value} must be at least {least}")
        self.path = path
        self.simulation = simulation
        self.num_simulated = num_simulated
        self.hypergraph = hypergraph
        self.max_particles = max_particles
        self.fractions = split
        self.seed = seed
        self.batch_size = batch_size
        self.num_workers = num_workers
        # The reader needs a column; the network takes the momenta.
        self.input = JetInput(
            (Feature("part_pt_log"),), max_particles, pad_to=max_particles, skip_bad=skip_bad
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the jet types, in the order of their numbers; one type where none is known."""
        return self.simulation.classes if self.path is None else self.source.classes or ("jet",)

    def prepare_data(self) -> None:
        """Simulate the jets that the cache lacks."""
        if self.path is not None:
            return
        folder = cache_folder("jets", VERSION, self.simulation)
        rank_zero_info(f"data.path is null: {self.num_simulated} simulated jets from {folder}")
        try:
            simulate_jets(folder, self.num_simulated, self.simulation, num_workers=available_cpus())
        except (OSError, ImportError, RuntimeError) as error:
            raise DataError(f"jets can't be simulated into {folder}: {error}") from error

    @cached_property
    def source(self) -> JetSource:
        """The jets of ``path``, opened at the first use."""
        if self.path is None:
            folder: Path = cache_folder("jets", VERSION, self.simulation)
            return FirstJets(open_jets(folder), self.num_simulated)
        if isinstance(self.path, dict):
            return TypedJets({name: open_jets(file) for name, file in self.path.items()})
        return open_jets(self.path)

    def split(self) -> JetSplit:
        """Which jets of ``path`` are for training, validation and test."""
        return JetSplit(self.fractions, self.seed)

    def fingerprint(self) -> str:
        """Short hash of the jets and their split, to record what a run was trained on."""
        text = json.dumps([self.source.fingerprint(), str(self.split())])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def dataset(self, part: JetPart | None) -> JetHypergraphs:
        """The jets of a part; null for all."""
        return JetHypergraphs(JetDataset(self.source, self.input, part), self.hypergraph)

    @cached_property
    def training_jets(self) -> JetHypergraphs:
        """The training jets, read at the first use."""
        return self.dataset(self.split().part("train"))

    def statistics(self) -> JetStatistics:
        """Measure the training jets."""
        jets = self.training_jets
        order = torch.randperm(len(jets), generator=torch.Generator().manual_seed(self.seed))
        batch = jets.batch(order[:NUM_MEASURED].tolist())
        return JetStatistics.of(_labelled(batch), len(self.classes))

    def train_dataloader(self) -> EpochLoader[HypergraphBatch]:
        """Training jets, in another order each epoch."""
        return self._loader(self.training_jets, shuffle=True)

    def val_dataloader(self) -> EpochLoader[HypergraphBatch]:
        """Validation jets."""
        return self._loader(self.dataset(self.split().part("val")))

    def test_dataloader(self) -> EpochLoader[HypergraphBatch]:
        """Test jets."""
        return self._loader(self.dataset(self.split().part("test")), is_training=False)

    def predict_dataloader(self) -> EpochLoader[HypergraphBatch]:
        """All jets, in order."""
        return self._loader(self.dataset(None), is_training=False)

    def _loader(
        self, jets: JetHypergraphs, shuffle: bool = False, is_training: bool = True
    ) -> EpochLoader[HypergraphBatch]:
        size = self.batch_size * num_processes()
        return EpochLoader(
            jets,
            RowSampler(len(jets), size, shuffle, self.seed),
            partial(_collate_labelled, num_slots=self.max_particles, options=self.hypergraph),
            self.num_workers,
            is_filled=is_training,
            fill=leave_out_last,
        )


def leave_out_last(batch: HypergraphBatch, number: int) -> HypergraphBatch:
    """Leave out the last jets of a batch; one without any others stays, without weight.

    Args:
        batch: The batch.
        number: How many jets.
    """
    if number < len(batch.weight):
        return batch.first(len(batch.weight) - number)
    return batch._replace(weight=torch.zeros_like(batch.weight))


def _collate_labelled(
    jets: "HypergraphBatch | Sequence[JetGraph]", num_slots: int, options: HypergraphOptions
) -> HypergraphBatch:
    return _labelled(collate(jets, num_slots, options))


def _labelled(batch: HypergraphBatch) -> HypergraphBatch:
    """Give jets of a source without types the only type."""
    return batch._replace(label=batch.label.clamp(min=0))
