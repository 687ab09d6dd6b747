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
from sentinode.models.families import ModelConfig, input_px
from sentinode.models.preprocess import PreprocessConfig


class TrainConfig(Frozen):
    """How weights are fitted."""

    epochs: int = Field(default=20, ge=1)
    """Passes over the train split."""
    batch_size: int = Field(default=128, ge=1)
    """Patches of one optimiser step, over all workers together; a multiple of the number of workers."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Update rule; sgd has Nesterov momentum 0.9."""
    lr: float = Field(default=3e-4, gt=0)
    """Learning rate at the start."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty (decoupled from the gradient under adamw)."""
    schedule: Literal["plateau", "cosine", "constant"] = "plateau"
    """plateau: lower the rate when the validation loss stalls; cosine: to zero over the epochs."""
    plateau_patience: int = Field(default=2, ge=0)
    """Epochs without a better validation loss before the rate is lowered."""
    plateau_factor: float = Field(default=0.5, gt=0, lt=1)
    """By which the rate is multiplied on a plateau."""
    early_stop_patience: int | None = Field(default=None, ge=1)
    """End after so many epochs without a better validation AUROC; none: train all epochs."""
    checkpoint_every_epochs: int = Field(default=1, ge=1)
    """How often the state is saved to resume from; the last epoch always is."""
    seed: int = Field(default=0, ge=0)
    """Of initial weights, sample order, augmentation and dropout."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the network in training; auto: bf16 where the device computes it natively. Evaluation is always
    fp32.
    """
    channels_last: bool = True
    """Memory order of images within the network; the faster one for convolutions on CPUs and tensor cores."""

    @model_validator(mode="after")
    def _check_early_stop(self) -> Self:
        if self.early_stop_patience is not None and self.early_stop_patience > self.epochs:
            raise ConfigError(
                f"early_stop_patience is {self.early_stop_patience} and epochs is {self.epochs}",
                "a patience below the number of epochs",
                f"set early_stop_patience to at most {self.epochs}, or leave it out",
            )
        return self


class Recipe(Frozen):
    """Everything that decides the trained weights, but for the data."""

    model: ModelConfig = ModelConfig()
    """The network."""
    preprocess: PreprocessConfig = PreprocessConfig()
    """From stored patch to network input."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes to training images."""
    shuffle: ShuffleConfig = ShuffleConfig()
    """Order of the training samples."""
    train: TrainConfig = TrainConfig()
    """Optimiser, schedule, epochs, seed."""

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
