"""A training step in its three parts, and the memory that it needs.

The loss is cross-entropy on random labels where the model returns logits, as in the papers; `loss` has the others. The
optimiser is AdamW. Nothing is learned.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from vbench.devices import on_host, open_device
from vbench.errors import UnsupportedError
from vbench.meters import memory
from vbench.meters.build import weights_of
from vbench.meters.loss import Loss, loss_of, ready_to_train
from vbench.meters.outputs import images_missing
from vbench.plan import Case

LEARNING_RATE = 1e-4
SCALE = 1024.0  # of the loss at first; torch's own 65536 would overflow, and the first steps would be skipped
TOO_FEW = ("more than 1 value per channel", "more than 1 spatial element")  # what torch says of norms over one value


def needs_scale(case: Case) -> bool:
    """Whether small gradients would be lost: under autocast to float16 the loss is scaled, as users do."""
    return case.autocast == "float16"


class Trainer:
    """Trains a model on one batch. A step is `forward`, `backward` and `update`, in this order.

    Use it outside of `torch.inference_mode`. `update` drops the gradients, so that every step allocates them anew.

    Args:
        model: takes the batch and returns what has a loss (`loss.loss_of`), as logits (B, classes) or maps; it is put
            in train() and stays there.
        images: the batch, a leaf without gradient.
        scaled: whether the loss is scaled by torch's GradScaler, for products in float16.
        seed: of the labels, one an image, uniform over the classes.

    Raises: UnsupportedError for a model without parameters that learn, and for float16 weights: AdamW divides by an
        epsilon that is zero in float16.
    """

    def __init__(self, model: nn.Module, images: Tensor, *, scaled: bool = False, seed: int = 0) -> None:
        weights = ready_to_train(model)
        if any(p.dtype == torch.float16 for p in model.parameters()):
            raise UnsupportedError(
                "float16 weights cannot train: AdamW's epsilon is 0 in it; take bfloat16, float32, or amp-fp16"
            )
        self.model = model
        self.images = images
        fused = not on_host(str(images.device)) and all(weight.is_floating_point() for weight in weights)
        self.optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, fused=fused)
        self._scaler = torch.amp.GradScaler(images.device.type, init_scale=SCALE, enabled=scaled)
        self._seed = seed
        self._labels: Tensor | None = None
        self._loss: Loss | None = None

    def forward(self) -> None:
        """Compute the outputs, and their loss in float32; keep what `backward` needs.

        Raises: UnsupportedError if the outputs have no loss or no gradient, if the model joins the images of a batch,
            or if it normalises over a batch that has one value a channel.
        """
        try:
            output = self.model(self.images)
        except ValueError as error:
            if not any(words in str(error) for words in TOO_FEW):
                raise
            batch, size = self.images.shape[0], "x".join(map(str, self.images.shape[2:]))
            raise UnsupportedError(f"no training at batch {batch} and {size} px: {error}") from None
        if self._loss is None and (reason := images_missing(output, len(self.images))):
            raise UnsupportedError(f"no training on a batch: {reason}")
        self._loss = loss_of(output, len(self.images), self._labels_of)

    def backward(self) -> None:
        """Compute the gradients of all parameters; release what `forward` kept."""
        loss = self._last()
        self._scaler.scale(loss.value).backward()
        self._loss = replace(loss, value=loss.value.detach())

    def update(self) -> None:
        """Take one step of the optimiser; drop the gradients."""
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Do all three."""
        self.forward()
        self.backward()
        self.update()

    @property
    def loss(self) -> float:
        """The loss of the last `forward`; of logits in nats."""
        return float(self.loss_now())

    def loss_now(self) -> Tensor:
        """The loss of the last `forward`, on its device: nothing is waited for."""
        return self._last().value.detach()

    @property
    def about_loss(self) -> dict[str, str]:
        """The kind of the last loss, and of what it is: {"loss": "mean", "loss_of": "3 outputs"}."""
        return {"loss": self._last().kind, "loss_of": self._last().of}

    @property
    def learns(self) -> bool:
        """Whether any step changes the last loss."""
        return self._last().kind == "cross-entropy"

    def _last(self) -> Loss:
        assert self._loss is not None, "forward comes first"
        return self._loss

    def _labels_of(self, logits: Tensor) -> Tensor:
        """The labels of all steps, drawn in the first one."""
        if self._labels is None:
            generator = torch.Generator().manual_seed(self._seed)
            labels = torch.randint(logits.shape[1], logits.shape[:1], generator=generator)
            self._labels = labels.to(logits.device)
        return self._labels


def measure(
    trainer: Trainer, baseline: memory.Baseline, *, repeat_below_s: float = memory.REPEAT_BELOW_S
) -> dict[str, Any]:
    """Make the first steps of this trainer, and report the memory that one needed.

    The peak is that of the second step, because the optimiser makes its state at the end of the first. If there is one
    step only (see `memory.watch`), the peak is that of the first. `method` says which.

    Returns: the keys of `memory.measure`, where a call is a step, and two more parts of the peak, `gradients_bytes` and
        `optimizer_bytes`. `activation_bytes` is the rest: activations kept for backward, and workspaces. It is less
        than these if the peak comes before all gradients exist.
    """
    gradients = 0

    def step() -> None:
        nonlocal gradients
        trainer.forward()
        trainer.backward()
        gradients = memory.nbytes(p.grad for p in trainer.model.parameters() if p.grad is not None)
        trainer.update()

    device = open_device(str(trainer.images.device))
    seen = memory.watch(step, device, baseline, peak_call=2, repeat_below_s=repeat_below_s)
    held = {
        "weights_bytes": memory.nbytes(weights_of(trainer.model)),
        "input_bytes": trainer.images.nbytes,
        "gradients_bytes": gradients,
        "optimizer_bytes": optimizer_bytes(trainer),
    }
    return {
        "batch": trainer.images.shape[0],
        **memory.anatomy(memory.with_outside(seen, memory.outside(trainer.model, device)), held),
    }


def optimizer_bytes(trainer: Trainer) -> int:
    """The bytes that the optimiser keeps between steps; 0 before the first."""
    state = chain.from_iterable(each.values() for each in trainer.optimizer.state.values())
    return memory.nbytes(value for value in state if isinstance(value, Tensor))
