"""Masked autoencoder: learn the detector without labels, from what hidden sensors saw.

Run as ``python mae.py fit --config mae.yaml`` or ``hepattn xec/mae fit``.
"""

# B events, S sensors, O channels that are told

from typing import Any

from torch import Tensor

from hepattn.experiments.xec.autoencoder import XecAutoencoder
from hepattn.experiments.xec.data import XecData
from hepattn.experiments.xec.encoder import EncoderOptions
from hepattn.experiments.xec.filling import FillingModule
from hepattn.experiments.xec.masking import MaskOptions
from hepattn.experiments.xec.reconstruction import ReconstructionOptions
from hepattn.training.cli import run, run_script
from hepattn.training.module import ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable


class MaskedAutoencoder(FillingModule):
    """Tell what hidden sensors saw from one token for each face.

    Args:
        encoder: What the encoder is made of.
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network, or the keywords of ``torch.compile``.
        mask: Which sensors are hidden.
        reconstruction: What the loss weighs.
        decoder_width: Channels of the decoders; 128 in the seed.
        times: Whether times are told, too.
        mirror: Whether training mirrors events at random at z = 0 and at y = 0.
    """

    def __init__(
        self,
        encoder: EncoderOptions,
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool | dict[str, Any] = False,
        mask: MaskOptions = MaskOptions(ratio=0.6),  # noqa: B008 frozen
        reconstruction: ReconstructionOptions = ReconstructionOptions(average="face"),  # noqa: B008
        decoder_width: int = 16,
        times: bool = True,
        mirror: bool = True,
    ) -> None:
        net = XecAutoencoder(encoder, decoder_width, 2 if times else 1)
        super().__init__(net, mask, reconstruction, optimizer, schedule, compile, mirror=mirror)

    def fill(self, *inputs: Tensor, wanted: Tensor) -> Tensor:
        """What the network says of all sensors (B, S, O)."""
        return self.net(*inputs)


CONFIG = "mae.yaml"


def main(args: list[str] | None = None) -> None:
    """Run the autoencoder from the command line."""
    run(MaskedAutoencoder, XecData, config=CONFIG, args=args)


if __name__ == "__main__":
    run_script(__file__)
