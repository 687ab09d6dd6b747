"""What decides a training run: the optimiser and its schedule, and the recipe that joins them to model and
data.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sentinode.config import Frozen
from sentinode.data.augment import AugmentConfig
from sentinode.data.plan import ShuffleConfig
from sentinode.errors import ConfigError
from sentinode.models.families import ModelConfig, SeedCnnConfig, input_px
from sentinode.models.preprocess import PreprocessConfig
from sentinode.training.metrics import BestBy


class MixConfig(Frozen):
    """Pairs of training patches mixed with each other, and their labels with them. Both 0: no mixing."""

    mixup: float = Field(default=0.0, ge=0, le=8)
    """Concentration of the mixing share: near 0 most pairs stay almost pure, 1 is uniform."""
    cutmix: float = Field(default=0.0, ge=0, le=8)
    """Concentration of the area that is pasted from the partner. The label follows the part of the central
    32x32 that was pasted over, as PCam's label rule asks."""


class AveragingConfig(Frozen):
    """Weights averaged over the course of training; what is validated and kept is the average."""

    kind: Literal["none", "ema", "swa"] = "none"
    """ema: exponential moving average over steps; swa: equal average over the last epochs' ends."""
    ema_decay: float = Field(default=0.999, gt=0, lt=1)
    """Of each step; lower in the first steps, so that initial weights are soon forgotten."""
    swa_from: float = Field(default=0.75, ge=0, lt=1)
    """Share of all epochs after which swa begins."""


class SaveConfig(Frozen):
    """When the state is saved to resume from, besides the end of each epoch. None of it changes the weights, and
    all of it may change when a run is gone on with."""

    every_steps: int | None = Field(default=None, ge=1)
    """Also after so many steps within an epoch."""
    every_minutes: float | None = Field(default=10.0, gt=0)
    """Also when so many minutes have passed since the last save."""
    patience_s: float = Field(default=600.0, ge=0)
    """How long the store may be unreachable before training gives up; meanwhile it goes on."""


class TrainConfig(Frozen):
    """How weights are fitted."""

    epochs: int = Field(default=20, ge=1)
    """Passes over the train split."""
    batch_size: int = Field(default=128, ge=1)
    """Patches of one optimiser step, over all workers together; a multiple of the number of workers; under train.mix of
    twice, and with shuffle.balanced of four times that number, where it is not 1."""
    micro_batches: int = Field(default=1, ge=1)
    """Parts that each worker splits its share of a step into, to fit its memory; gradients are accumulated,
    and batch norms see one part at a time. May change when a run is gone on with."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Update rule; sgd has Nesterov momentum 0.9."""
    lr: float = Field(default=3e-4, gt=0)
    """Learning rate at its highest."""
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    """Memory of adam and adamw for squared gradients, of each step."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty (decoupled from the gradient under adamw) on matrices and filters, not on biases and norms."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest length of the gradient over all weights; longer ones are scaled down."""
    schedule: Literal["plateau", "cosine", "constant"] = "plateau"
    """plateau: lower the rate when the validation loss stalls; cosine: to zero over the epochs."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs over which the rate rises from zero, step by step."""
    plateau_patience: int = Field(default=2, ge=0)
    """Epochs without a better validation loss before the rate is lowered."""
    plateau_factor: float = Field(default=0.5, gt=0, lt=1)
    """By which the rate is multiplied on a plateau."""
    best_by: BestBy = "auroc"
    """What the best epoch, whose weights are kept, is chosen by on the validation split; specificity is that at a
    sensitivity of 99 %."""
    early_stop_patience: int | None = Field(default=None, ge=1)
    """End after so many epochs without a better one; none: train all epochs."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of each label given to both classes alike."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: both classes weigh equally in the loss, whatever their counts, and whether or not shuffle.balanced
    draws them equally often."""
    mix: MixConfig = MixConfig()
    """MixUp and CutMix."""
    averaging: AveragingConfig = AveragingConfig()
    """EMA or SWA weights."""
    save: SaveConfig = SaveConfig()
    """Checkpoints."""
    seed: int = Field(default=0, ge=0)
    """Of initial weights, sample order, augmentation and dropout."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the network in training; auto: bf16 where the device computes it natively. Evaluation is always
    fp32.
    """
    channels_last: bool = True
    """Memory order of images within the network; the faster one for convolutions on CPUs and tensor cores."""
    compile: bool = False
    """Compile the network (torch.compile): pays for large ones on a GPU, not for small ones on a CPU."""

    @model_validator(mode="after")
    def _check_epochs(self) -> Self:
        if self.early_stop_patience is not None and self.early_stop_patience > self.epochs:
            raise ConfigError(
                f"early_stop_patience is {self.early_stop_patience} and epochs is {self.epochs}",
                "a patience below the number of epochs",
                f"set early_stop_patience to at most {self.epochs}, or leave it out",
            )
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ConfigError(
                f"warmup_epochs is {self.warmup_epochs:g} and epochs is {self.epochs}",
                "a warm-up shorter than the training",
                f"set warmup_epochs below {self.epochs}",
            )
        return self


class Recipe(Frozen):
    """Everything that decides the trained weights, but for the data."""

    model: ModelConfig = SeedCnnConfig()
    """The network."""
    preprocess: PreprocessConfig = PreprocessConfig()
    """From stored patch to network input."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes to training images."""
    shuffle: ShuffleConfig = ShuffleConfig()
    """Order of the training samples."""
    train: TrainConfig = TrainConfig()
    """Optimiser, schedule, epochs, seed."""
    tta: bool = False
    """Average the logit over the eight symmetries of the square when the trained detector is evaluated and
    served: better, and eight times the work. Validation within training does without."""

    @model_validator(mode="after")
    def _check_input_size(self) -> Self:
        needed = input_px(self.model)
        if self.preprocess.input_px != needed:
            raise ConfigError(
                f"preprocess.input_px is {self.preprocess.input_px}",
                f"{needed}, the input size of {self.model.family}",
                f"set preprocess.input_px to {needed}",
            )
        return self
