"""What the experiments on events have in common: the network, its inputs, its compilation."""

# B events, O outputs

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hepattn.data.events import EventBatch
from hepattn.losses.event import EventLoss
from hepattn.nn.attention import set_backend
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.feature_embedding import fit_inputs, needs_fit
from hepattn.ops.attention import BackendName
from hepattn.training.module import BaseModule, ScheduleCallable
from hepattn.training.optimizer import OptimizerCallable

EventNetwork = Callable[[EventSchema, int], nn.Module]
KERNELS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "mem_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
DATA_LINKS = {name: f"model.{name}" for name in ("schema", "classes", "auxiliary")}
"""What the data tells every module of events."""
KernelName = Literal["math", "flash", "mem_efficient", "cudnn"]


class EventModule(BaseModule):
    """A network on events, which learns the statistics of its inputs before the first step.

    Args:
        schema: Columns of events and objects.
        num_outputs: Number of outputs O of the network.
        net: Builds the network from the schema and the number of outputs.
        loss: Called with what the network says, labels and weights.
        optimizer: Builds the optimiser from the parameter groups.
        schedule: Builds the learning rate schedule; a constant rate by default.
        compile: Whether to compile the network, or the keywords of ``torch.compile``.
        attention_backend: How every attention layer of the network computes; by default what the
            network itself says.
        sdpa_kernels: Kernels among which torch's scaled dot product attention may choose; all by
            default.

    Raises:
        ValueError: If the list of kernels is empty.
    """

    tokens_vary = False

    def __init__(
        self,
        schema: EventSchema,
        num_outputs: int,
        net: EventNetwork,
        loss: EventLoss,
        optimizer: OptimizerCallable,
        schedule: ScheduleCallable | None = None,
        compile: bool | dict[str, Any] = False,
        attention_backend: BackendName | None = None,
        sdpa_kernels: list[KernelName] | None = None,
    ) -> None:
        super().__init__(net(schema, num_outputs), optimizer, schedule, compile)
        self.schema = schema
        self.loss = loss
        if attention_backend is not None:
            set_backend(self.net, attention_backend)
        if sdpa_kernels is not None and not sdpa_kernels:
            raise ValueError(f"sdpa_kernels=[] allows none of {list(KERNELS)}; name one or more")
        self.kernels = None if sdpa_kernels is None else [KERNELS[name] for name in sdpa_kernels]

    def setup(self, stage: str) -> None:
        """Learn the statistics of the inputs, where no checkpoint brings them."""
        if self.trainer.ckpt_path is None and needs_fit(self.net):
            fit_inputs(self.net, self.trainer.datamodule.summaries())

    def update_metrics(self, stage: str, batch: EventBatch, outputs: Tensor) -> None:
        """Count the training batches whose events weigh nothing, which teach nothing."""
        if stage == "train":
            skipped = self.loss.skipped.float()
            self.log("train/skipped", skipped, on_step=False, on_epoch=True, reduce_fx="sum")

    def network_inputs(self, batch: EventBatch) -> tuple[Tensor, ...]:
        """Tensors that the network takes."""
        return batch.events, batch.vectors, batch.valid, *batch.objects

    def input_names(self) -> tuple[str, ...]:
        """Names of these tensors."""
        return "events", "vectors", "valid", *self.schema.kinds

    def forward(self, batch: EventBatch) -> Tensor:
        """What the network makes of the events (B, O)."""
        allowed: AbstractContextManager = nullcontext()
        if self.kernels is not None:
            allowed = sdpa_kernel(self.kernels)
        with allowed:
            return self.net(*self.network_inputs(batch))
