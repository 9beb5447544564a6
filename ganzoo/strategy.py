"""Several devices: replicas whose gradients are averaged once per turn, with no wrapper around the module.

Torch's DistributedDataParallel arms its reducer for all parameters at each backward pass, while a turn of a GAN
moves one of two networks: it fails, or with ``find_unused_parameters`` reduces both networks in every turn.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, StrategyRegistry
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.precision import lacks_bfloat16_units

if TYPE_CHECKING:
    import lightning.pytorch as L

    from ganzoo.gan import GAN


class GANDDPStrategy(DDPStrategy):
    """One replica per device. Each turn averages the gradients of the player that moves, and its statistics."""

    def setup_environment(self) -> None:
        super().setup_environment()
        atexit.register(_leave_group)

    def on_exception(self, exception: BaseException) -> None:
        atexit.unregister(_leave_group)  # leaving waits for what was begun with the others, who may be gone
        super().on_exception(exception)

    def configure_ddp(self) -> None:
        for tensor in (*self._gan.parameters(), *self._gan.buffers()):
            dist.broadcast(tensor.data, 0)

    def optimizer_step(self, optimizer: Any, closure: Any, model: Any = None, **kwargs: Any) -> Any:
        closure()
        player = self._gan.player_of(optimizer)
        average_over_ranks(player.active, player.float_buffers())
        return super().optimizer_step(optimizer, lambda: None, model, **kwargs)

    @property
    def _gan(self) -> GAN:
        assert self.lightning_module is not None
        return self.lightning_module  # type: ignore[return-value]  # this strategy is only chosen for a GAN


def _leave_group() -> None:
    """End the threads of gloo: one that drops a tensor while Python is being taken down aborts the process."""
    if dist.is_initialized():
        dist.destroy_process_group()


@torch.no_grad()
def average_over_ranks(parameters: Sequence[torch.nn.Parameter], buffers: Sequence[Tensor]) -> None:
    """Replace gradients and buffers by their means over ranks, in one reduction of one flat tensor.

    A parameter without a gradient counts as zero, unless no rank has one. So all ranks always reduce the same
    number of elements, and none can be left waiting.
    """
    missing = [p for p in parameters if p.grad is None]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    has_grad = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=parameters[0].device)
    tensors = [*grads, *buffers, has_grad]
    flat = torch.cat([t.reshape(-1).float() for t in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, mean in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
    if missing:
        for p, grad, share in zip(parameters, grads, has_grad.tolist(), strict=True):
            if p.grad is None and share > 0:
                p.grad = grad


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def check_trainer(trainer: L.Trainer) -> None:
    """Refuse what cannot train two alternating networks; warn of numbers that the processor is slow with.

    Raises:
        UserError: For FSDP and DeepSpeed, for plain DDP on several devices, for precisions other than
            :data:`PRECISIONS`, and where torchrun or srun has started another number of processes.
    """
    strategy = trainer.strategy
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
        raise UserError(
            f"The strategy {type(strategy).__name__} cannot train a GAN (no second derivatives, or one optimizer "
            "only): leave trainer.strategy at auto, or use gan_ddp."
        )
    wrapped = isinstance(strategy, DDPStrategy) and not isinstance(strategy, GANDDPStrategy)
    if wrapped and not strategy._ddp_kwargs.get("find_unused_parameters"):  # type: ignore[attr-defined]  # no public access
        raise UserError(
            "The strategy ddp expects every parameter in every backward pass, which a GAN's turns do not give: "
            "use ganzoo.Trainer, strategy='gan_ddp' or 'ddp_find_unused_parameters_true'."
        )
    # Each of them would train alone, all in the directory of the first one's run.
    name = "WORLD_SIZE" if dist.is_available() and dist.is_torchelastic_launched() else "SLURM_STEP_NUM_TASKS"
    if int(os.environ.get(name, trainer.world_size)) != trainer.world_size:
        raise UserError(
            f"{os.environ[name]} processes were started together, but trainer.devices times trainer.num_nodes is "
            f"{trainer.world_size}: set them to the processes per machine and to the machines."
        )
    precision = trainer.precision_plugin.precision
    if precision not in PRECISIONS:
        raise UserError(f"The precision was {precision}, but must be one of {', '.join(PRECISIONS)}.")
    if precision == "bf16-mixed" and strategy.root_device.type == "cpu" and lacks_bfloat16_units():
        rank_zero_warn(
            "This processor has no units for bfloat16, so that bf16-mixed is many times slower here than 32-true: "
            "leave trainer.precision at 32-true, or train on a GPU."
        )


StrategyRegistry.register("gan_ddp", GANDDPStrategy, "Replicas with one averaging of gradients per turn")
StrategyRegistry.register(
    "gan_ddp_spawn", GANDDPStrategy, "The same, with processes started by spawn", start_method="spawn"
)
