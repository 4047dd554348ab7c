"""What the three tasks on the detector have in common."""

# B events, S sensors

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hepattn.data.xec import XecBatch
from hepattn.experiments.xec.masking import event_noise
from hepattn.experiments.xec.pretrained import load_encoder
from hepattn.physics import xec
from hepattn.training.module import BaseModule, ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable


class XecModule(BaseModule):
    """A network with an encoder, which may start from that of another run.

    Args:
        net: The network; ``net.encoder`` is its encoder.
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network, or the keywords of ``torch.compile``.
        encoder_ckpt: Checkpoint whose encoder to start from; none by default.
        freeze_encoder: Whether it stays as it is.
        mirror: Whether training mirrors events at random at z = 0 and at y = 0, where the detector
            looks exactly the same.

    Raises:
        ValueError: If the encoder is to stay as it is and comes from nowhere.
    """

    tokens_vary = False

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool | dict[str, Any] = False,
        encoder_ckpt: str | None = None,
        freeze_encoder: bool = False,
        mirror: bool = True,
    ) -> None:
        super().__init__(net, optimizer, schedule, compile)
        if freeze_encoder and encoder_ckpt is None:
            raise ValueError("freeze_encoder=True needs the encoder_ckpt of a trained encoder")
        self.encoder_ckpt = encoder_ckpt
        self.freeze_encoder = freeze_encoder
        if freeze_encoder:
            self.net.encoder.requires_grad_(False)
        self.mirror = mirror
        for name, permutation in (("along", xec.mirror_z()), ("across", xec.mirror_y())):
            order = torch.from_numpy(np.array(permutation, np.int64))
            self.register_buffer(name, order, persistent=False)

    def setup(self, stage: str) -> None:
        """Take the encoder of the other run, where no checkpoint of this one brings it."""
        if self.encoder_ckpt is not None and self.trainer.ckpt_path is None:
            load_encoder(self.net.encoder, self.encoder_ckpt)

    def train(self, mode: bool = True) -> "XecModule":
        """Switch to training, which a frozen encoder does not follow."""
        super().train(mode)
        if self.freeze_encoder:
            self.net.encoder.eval()
        return self

    def on_train_start(self) -> None:
        """Freeze what stays as it is."""
        super().on_train_start()
        self.train()

    def num_events(self, batch: XecBatch) -> int:
        """Number of events in a batch."""
        return len(batch.index)

    def network_inputs(self, batch: XecBatch) -> tuple[Tensor, ...]:
        """Tensors that the network takes."""
        return batch.photons, batch.time, batch.valid, batch.time_valid

    def training_step(self, batch: XecBatch, batch_idx: int) -> Tensor:
        """Loss of a training batch, whose events are mirrored at random."""
        if self.mirror:
            for axis, permutation in ((2, self.along), (1, self.across)):
                flip = torch.rand(len(batch.index), device=batch.photons.device) < 0.5
                batch = mirrored(batch, flip, permutation, axis)
        return super().training_step(batch, batch_idx)

    def noise(self, batch: XecBatch) -> Tensor | None:
        """What decides which sensors are hidden (B, S): in an evaluation the event alone."""
        if self.training:
            return None
        events = (batch.run * 1_000_003 + batch.event).tolist()
        return event_noise(events, batch.photons.shape[1], batch.photons.device)


def mirrored(batch: XecBatch, flip: Tensor, permutation: Tensor, axis: int) -> XecBatch:
    """Mirror some events.

    Args:
        batch: The events.
        flip: Which of them (B).
        permutation: Of the sensors (S).
        axis: Which of x, y and z changes its sign.
    """
    seen = {
        name: torch.where(flip.unsqueeze(1), field[:, permutation], field)
        for name, field in zip(batch._fields[:4], batch[:4], strict=True)
    }
    sign = torch.where(flip, -1.0, 1.0)
    position, direction = batch.position.clone(), batch.direction.clone()
    position[:, 0 if axis == 2 else 1] *= sign  # u is z, v turns with y
    direction[:, axis] *= sign
    return batch._replace(position=position, direction=direction, **seen)
