"""Inpainting: tell what dead sensors would have seen.

Run as ``python inpaint.py fit --config inpaint.yaml`` or ``hepattn xec/inpaint fit``.
"""

# B events, S sensors, O channels that are told

from typing import Any

from torch import Tensor

from hepattn.data.xec import XecBatch
from hepattn.experiments.xec.data import XecData
from hepattn.experiments.xec.encoder import EncoderOptions
from hepattn.experiments.xec.filling import FillingModule
from hepattn.experiments.xec.inpainter import HeadName, XecInpainter
from hepattn.experiments.xec.masking import MaskOptions
from hepattn.experiments.xec.reconstruction import ReconstructionOptions
from hepattn.training.cli import run, run_script
from hepattn.training.module import ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable


class Inpainting(FillingModule):
    """Tell what a few hidden sensors saw from the faces' tokens and from their neighbours.

    Args:
        encoder: What the encoder is made of.
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network, or the keywords of ``torch.compile``.
        mask: Which sensors are hidden.
        reconstruction: What the loss weighs.
        head: Whether ``faces`` are filled in as images or single ``sensors`` from their neighbours.
        head_width: Features inside the head, a multiple of 8; 64 in the seed.
        times: Whether times are told, too.
        encoder_ckpt: Checkpoint of an autoencoder to start from; none by default.
        freeze_encoder: Whether its encoder stays as it is.
        mirror: Whether training mirrors events at random at z = 0 and at y = 0.
    """

    def __init__(
        self,
        encoder: EncoderOptions,
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool | dict[str, Any] = False,
        mask: MaskOptions = MaskOptions(ratio=0.05),  # noqa: B008 frozen
        reconstruction: ReconstructionOptions = ReconstructionOptions(),  # noqa: B008 frozen
        head: HeadName = "sensors",
        head_width: int = 32,
        times: bool = False,
        encoder_ckpt: str | None = None,
        freeze_encoder: bool = False,
        mirror: bool = True,
    ) -> None:
        net = XecInpainter(encoder, head, 2 if times else 1, head_width)
        super().__init__(
            net,
            mask,
            reconstruction,
            optimizer,
            schedule,
            compile,
            encoder_ckpt,
            freeze_encoder,
            mirror,
        )

    def network_inputs(self, batch: XecBatch) -> tuple[Tensor, ...]:
        """Tensors that the network takes: it fills in what is not known."""
        return *super().network_inputs(batch), ~batch.valid & self.net.covered

    def fill(self, *inputs: Tensor, wanted: Tensor) -> Tensor:
        """What the network says of the wanted sensors (B, S, O)."""
        return self.net(*inputs, wanted)


CONFIG = "inpaint.yaml"


def main(args: list[str] | None = None) -> None:
    """Run the inpainting from the command line."""
    run(Inpainting, XecData, config=CONFIG, args=args)


if __name__ == "__main__":
    run_script(__file__)
