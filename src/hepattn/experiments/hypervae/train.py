"""Jet generation: a variational autoencoder of jets as hypergraphs.

Run as ``python train.py fit --config hypervae_slim.yaml`` or ``hepattn hypervae/train fit``.
"""

# B jets, N particles, L latent dimensions

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torchmetrics import CatMetric
from torchmetrics.utilities import dim_zero_cat

from hepattn.experiments.hypervae.batch import HypergraphBatch
from hepattn.experiments.hypervae.data import HypergraphData
from hepattn.experiments.hypervae.generator import Generator
from hepattn.experiments.hypervae.hypergraph import HypergraphOptions
from hepattn.experiments.hypervae.latent import LatentFigures, latent_figures
from hepattn.experiments.hypervae.model import HyperVAE, Outputs
from hepattn.experiments.hypervae.objective import Objective, loss_terms
from hepattn.experiments.hypervae.plots import plot_jets
from hepattn.experiments.hypervae.report import mean_distance, types_of
from hepattn.experiments.hypervae.sample import to_sample
from hepattn.metrics.jets import JetSample
from hepattn.ops.distributed import mean_over_processes
from hepattn.training.cli import run, run_script
from hepattn.training.figures import save_figure
from hepattn.training.module import BaseModule, ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable
from hepattn.training.report import write_figures

STAGES = ("val", "test")


class JetGenerator(BaseModule):
    """Train the autoencoder; validate on jets that it generates.

    Args:
        classes: Names of the jet types; the data decides them.
        max_particles: Most particles of a jet; the data decides it.
        hypergraph: Which particles have edges and hyperedges; the data decides it.
        net: Builds the autoencoder from the numbers of types and of particles.
        objective: Terms of the loss.
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network.
    """

    tokens_vary = False  # there are as many places for particles as the decoder has
    monitor = ("val/distance", "min")  # knows no weight of the loss, the warm-up's least of all

    def __init__(
        self,
        classes: tuple[str, ...],
        max_particles: int,
        hypergraph: HypergraphOptions,
        net: Callable[[int, int], HyperVAE],
        objective: Objective,
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool | dict[str, Any] = False,
    ) -> None:
        super().__init__(net(len(classes), max_particles), optimizer, schedule, compile)
        self.classes = classes
        self.hypergraph = hypergraph
        self.objective = objective
        self.collected = nn.ModuleDict(
            {
                stage: nn.ModuleDict(
                    {name: CatMetric(nan_strategy="disable") for name in COLLECTED}
                )
                for stage in STAGES
            }
        )

    def setup(self, stage: str) -> None:
        """Take over the statistics of the training jets, unless a checkpoint has brought some."""
        if stage == "fit" and not self.net.is_fitted:
            self.net.fit(self.trainer.datamodule.statistics())

    @property
    def progress(self) -> float:
        """Epochs so far, with their fraction."""
        if self._trainer is None or self.trainer.state.fn != "fit":
            return float(self.current_epoch)
        steps = max(self.trainer.num_training_batches, 1)
        done = max(self.trainer.fit_loop.epoch_loop.batch_idx, 0)
        return self.current_epoch + done / steps

    def forward(self, batch: HypergraphBatch) -> Outputs:
        """Encode and decode the jets, and generate others beside them."""
        return self.net(batch, self.progress)

    def exported_net(self) -> Generator:
        """What generates jets; random numbers are its inputs."""
        return Generator(self.net)

    def export_inputs(self, batch: HypergraphBatch) -> tuple[Tensor, ...]:
        """What it is called with for jets like those of a batch."""
        return self.exported_net().inputs_like(batch)

    def input_names(self) -> tuple[str, ...]:
        """Names of these inputs."""
        return self.exported_net().input_names()

    def losses(self, batch: HypergraphBatch, outputs: Outputs) -> dict[str, Tensor]:
        """The weighted terms of the objective."""
        terms = loss_terms(
            self.objective,
            self.net,
            batch,
            outputs,
            self.hypergraph,
            self.progress,
            self.training,
        )
        number = (batch.weight > 0).sum().float()  # a process may have fewer than another
        share = number / mean_over_processes(number)
        return {name: share * term for name, term in terms.items()}

    def update_metrics(self, stage: str, batch: HypergraphBatch, outputs: Outputs) -> None:
        """Collect true and generated jets and the posterior."""
        if stage not in STAGES:
            return
        if not (batch.weight > 0).any():  # it only fills up
            return
        decoded = outputs.generated
        values = {
            "true": _with_presence(batch.vectors, batch.valid),
            "found": _with_presence(decoded.vectors, decoded.presence.valid),
            "label": batch.label,
            "mean": outputs.posterior.mean,
            "log_variance": outputs.posterior.log_variance,
        }
        for name, value in values.items():
            self.collected[stage][name].update(value)

    def log_metrics(self, stage: str) -> None:
        """Log the distance of generated from true jets and the state of the latent space."""
        if stage not in STAGES:
            return
        collected = {name: dim_zero_cat(x.value) for name, x in self.collected[stage].items()}
        samples = [
            to_sample(collected[name][..., :4], collected[name][..., 4] > 0.5)
            for name in ("found", "true")
        ]
        label = collected["label"].cpu().numpy()
        values = mean_distance(*samples, label, np.random.default_rng(0))
        figures: LatentFigures = latent_figures(collected["mean"], collected["log_variance"])
        values |= {
            "active_dimensions": float(figures.num_active),
            "prior_mismatch": figures.mismatch,
        }
        for metric in self.collected[stage].values():
            metric.reset()
        if stage == "test" and not self.trainer.fast_dev_run:
            self._write_evaluation(values, figures, *samples, label)
        named = {f"{stage}/{name}": value for name, value in values.items()}
        self.log_dict(named, sync_dist=True, prog_bar=stage == "val")

    def predictions(self, batch: HypergraphBatch, outputs: Outputs) -> dict[str, Tensor]:
        """One row a jet: its row in the source, its type and its place in the latent space."""
        names = [f"latent_{number}" for number in range(self.net.latent_dim)]
        mean = outputs.posterior.mean
        return {
            "jet": batch.index,
            "label": batch.label,
            **dict(zip(names, mean.unbind(1), strict=True)),
        }

    @rank_zero_only
    def _write_evaluation(
        self,
        values: dict[str, float],
        figures: LatentFigures,
        found: JetSample,
        true: JetSample,
        label: np.ndarray,
    ) -> None:
        folder = self.evaluation_folder
        latent = {name: x.tolist() for name, x in figures._asdict().items() if name != "num_active"}
        write_figures(folder, values | {"num_jets": len(label), "latent": latent})
        types = types_of(label, self.classes)
        samples = {
            name: {kind: jets.take(rows) for kind, rows in types.items()}
            for name, jets in (("truth", true), ("generated", found))
        }
        save_figure(plot_jets(samples, list(types)), folder / "jets.png")
        print(f"figures and plots written to {folder}")


COLLECTED = ("true", "found", "label", "mean", "log_variance")


def _collectors() -> nn.ModuleDict:
    return nn.ModuleDict({name: CatMetric(nan_strategy="disable") for name in COLLECTED})


def _with_presence(vectors: Tensor, valid: Tensor) -> Tensor:
    return torch.cat([vectors, valid.unsqueeze(-1).to(vectors.dtype)], -1)  # (B, N, 5)


CONFIG = "hypervae_slim.yaml"
LINKS = {"data.max_particles": "model.max_particles"}
DATA_LINKS = {"classes": "model.classes", "hypergraph": "model.hypergraph"}


def main(args: list[str] | None = None) -> None:
    """Run the training from the command line."""
    run(JetGenerator, HypergraphData, config=CONFIG, links=LINKS, data_links=DATA_LINKS, args=args)


if __name__ == "__main__":
    run_script(__file__)
