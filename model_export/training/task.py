"""The task, in the form that Lightning wants: the network, what it learns from, and the run so far.

Whatever an epoch draws at random it draws from the seed and its own number, so no generator's state has to be saved.

The optimiser's steps are made here ("manual optimization"), and losses are added up here, once an epoch over all
processes, instead of being logged: what Lightning does around each of them costs more than they do (see `blocks.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from model_export.batches import Batches
from model_export.checkpoint import ENTRY, Epoch, Run, encode_run
from model_export.data import Split, Splits
from model_export.data.share import Share
from model_export.data.stream import StreamEpoch
from model_export.digest import digest_weights
from model_export.errors import DataInvalid, NetworkInvalid
from model_export.training.accuracy import EVALUATION_BATCH_SIZE
from model_export.training.blocks import BATCHES_IN_A_BLOCK, Block, Blocks
from model_export.training.interruption import heed_sigterm
from model_export.training.processes import agree


@dataclass
class _Totals:
    """What a pass over a split comes to: one entry for each batch, added up in float64 at the end."""

    losses: list[Tensor] = field(default_factory=list)
    right: list[Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def add(self, loss: Tensor, size: int, right: Tensor | None = None) -> None:
        """`loss` is the mean over `size` instances, of which `right` are in the right class."""
        self.losses.append(loss.detach())
        self.sizes.append(size)
        if right is not None:
            self.right.append(right)

    def take(self, device: torch.device) -> Tensor:
        """(sum of losses, right ones, instances), float64; from then on it starts again."""
        sizes = torch.tensor(self.sizes, dtype=torch.float64, device=device)
        loss = (torch.stack(self.losses).double() * sizes).sum()
        right = torch.stack(self.right).double().sum() if self.right else torch.zeros_like(loss)
        self.losses, self.right, self.sizes = [], [], []
        return torch.stack((loss, right, sizes.sum()))


class Task(lightning.LightningModule):
    """A network that learns from splits, and the run that this is, with an entry for each epoch that is over."""

    def __init__(self, network: nn.Module, run: Run, splits: Splits) -> None:
        super().__init__()
        self.network = network
        self.run = run
        self.splits = splits
        self.can_be_resumed = bool(run.history)
        self.memory_format = torch.contiguous_format
        self.automatic_optimization = False
        self.most_threads = torch.get_num_threads()
        self._training, self._validation = _Totals(), _Totals()
        self.steps_in_epoch: int | None = None  # the same in all processes; known when there are all

    def lay_channels_last(self) -> None:
        """Lay out the network, and then each batch, as [N, H, W, C] in memory; no shape changes."""
        self.memory_format = torch.channels_last
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it

    @property
    def share(self) -> Share:
        """This process's part of each epoch."""
        return Share(rank=self.trainer.global_rank, of=self.trainer.world_size)

    @property
    def num_steps(self) -> int:
        """How many steps the run has made, those before it was resumed included."""
        _, schedule = self._learning
        return int(schedule.last_epoch)

    @property
    def last_loss(self) -> float:
        """The loss of the step before, in this process."""
        return float(self._training.losses[-1])

    def train_dataloader(self) -> Blocks:
        """This process's share of the epoch that comes next; Lightning asks for each."""
        return Blocks(self._epoch(), BATCHES_IN_A_BLOCK if self.trainer.world_size == 1 else 1)

    def _epoch(self) -> Batches | StreamEpoch:
        seed, train = _seed_of_epoch(self.run.options.seed, self.current_epoch), self.splits.train
        if isinstance(train, Split):
            epoch: Batches | StreamEpoch = Batches(
                train, self.run.options.batch_size, shuffle_seed=seed, share=self.share
            )
        else:
            epoch = train.epoch(
                seed, num_labels=len(self.splits.labels), share=self.share, num_batches=self.steps_in_epoch
            )
        return epoch

    def val_dataloader(self) -> Batches:
        """This process's share of the valid split."""
        return Batches(self.splits.valid, EVALUATION_BATCH_SIZE, share=self.share)

    def configure_optimizers(self) -> Any:
        """AdamW (Loshchilov & Hutter 2019), one cycle of the learning rate (Smith & Topin 2018) over all epochs."""
        options = self.run.options
        optimizer = torch.optim.AdamW(_parameter_groups(self.network, options.weight_decay), lr=options.learning_rate)
        self.steps_in_epoch = self._fewest(len(self._epoch()))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=options.learning_rate,
            total_steps=options.epochs * self.steps_in_epoch,
            cycle_momentum=False,
        )
        self._learning = optimizer, schedule
        return [optimizer], [schedule]

    def on_train_start(self) -> None:
        """Take back what Lightning has taken: SIGTERM, and threads, of which it gives each process its part."""
        heed_sigterm()
        torch.set_num_threads(min(torch.get_num_threads(), self.most_threads))

    def on_train_epoch_start(self) -> None:
        """Set the generator that layers draw from."""
        seed = _seed_of_epoch(self.run.options.seed, self.current_epoch)
        torch.manual_seed(self.share.seed(seed))  # for dropout, in each process another

    def training_step(self, block: Block) -> None:
        """A step of the optimiser with each batch.

        Raises:
            NetworkInvalid, RefusedElsewhere: a loss is no number.
        """
        for batch in block:
            instances, labels = (tensor.to(self.device, non_blocking=True) for tensor in batch)
            loss = cross_entropy(self._logits(instances), labels)
            self._check_finite(loss)
            self._step(loss)
            self._training.add(loss, len(labels))

    def _step(self, loss: Tensor) -> None:
        optimizer, schedule = self._learning
        optimizer.zero_grad()
        self.trainer.strategy.pre_backward(loss)  # DDP gets ready
        with torch.autocast(self.device.type, enabled=False):  # Lightning's is for the forward pass
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        torch.clear_autocast_cache()  # its bfloat16 copies of the weights are now those of before
        schedule.step()

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Count what is right."""
        instances, labels = batch
        logits = self._logits(instances)
        right = (logits.argmax(dim=1) == labels).sum()
        self._validation.add(cross_entropy(logits.float(), labels), len(labels), right)

    def on_validation_epoch_end(self) -> None:
        """Validation ends an epoch: all is known of it that goes into the history."""
        train_loss, _, train_size = self._over_all(self._training)
        valid_loss, right, valid_size = self._over_all(self._validation)
        epoch = Epoch(
            epoch=self.current_epoch + 1,
            train_loss=float(train_loss / train_size),
            valid_loss=float(valid_loss / valid_size),
            valid_accuracy=float(right / valid_size),
        )
        self.run = replace(self.run, history=(*self.run.history, epoch))
        self.log("valid_accuracy", epoch.valid_accuracy, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add our own entry."""
        checkpoint[ENTRY] = encode_run(self.run, weights_sha256=digest_weights(self.network))

    def _logits(self, instances: Tensor) -> Tensor:
        try:
            logits: Tensor = self.network(instances.contiguous(memory_format=self.memory_format))
        except ValueError as err:
            if len(instances) > 1:
                raise
            raise DataInvalid(
                f"{self.run.source.spec}: a batch of one instance has no variance for BatchNorm to learn from: say "
                "drop_last=True in train_dataloader(), or another batch_size"
            ) from err
        return logits

    def _check_finite(self, loss: Tensor) -> None:
        """If one process diverges, all stop: its gradients are everyone's."""
        finite = math.isfinite(loss.item())
        what = "no number in another process" if finite else str(loss.item())
        if self.trainer.world_size > 1:
            everywhere = torch.tensor(float(finite), device=self.device)
            finite = bool(self.trainer.strategy.reduce(everywhere, reduce_op="min"))
        if not finite:
            refusal = NetworkInvalid(
                f"training diverged: the loss is {what} in step {self.num_steps + 1} (epoch "
                f"{self.current_epoch + 1}): try a smaller --learning-rate than {self.run.options.learning_rate}, or "
                "--precision 32; very large values in the data do it too"
            )
            agree(self.trainer, refusal)

    def _over_all(self, totals: _Totals) -> Tensor:
        """The totals of all processes together."""
        summed: Tensor = self.trainer.strategy.reduce(totals.take(self.device), reduce_op="sum")
        return summed

    def _fewest(self, num_batches: int) -> int:
        """How many batches every process has: one that went on alone would wait for the others for ever."""
        fewest: Tensor = self.trainer.strategy.reduce(torch.tensor(num_batches, device=self.device), reduce_op="min")
        return int(fewest)


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights of one axis (biases, γ and β) do not decay: that would only pull γ towards switching channels off."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _seed_of_epoch(seed: int, epoch: int) -> int:
    return seed * 1_000_003 + epoch
