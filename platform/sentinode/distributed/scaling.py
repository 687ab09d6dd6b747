"""How many processes train, and on what."""

from __future__ import annotations

from math import lcm
from typing import Self

from pydantic import Field, model_validator

from sentinode.config import Frozen
from sentinode.data.loader import LoaderConfig
from sentinode.errors import ConfigError
from sentinode.training.config import Recipe, TrainConfig
from sentinode.training.mix import partners_of


class ScalingSettings(Frozen):
    """How many processes train, and on what."""

    num_workers: int = Field(default=2, ge=1)
    """Data-parallel processes (DDP ranks)."""
    min_workers: int | None = Field(default=None, ge=1)
    """Go on with as few where no more are to be had, and grow again when they are; default: always all. The
    batch size stays the same, and so does the order of samples."""
    resize_every_s: float = Field(default=60.0, gt=0)
    """How often a run that has shrunk looks whether it can grow."""
    timeout_s: float = Field(default=600.0, gt=0)
    """A rank that lets the others wait for so long counts as lost."""
    cpus_per_worker: int = Field(default=1, ge=1)
    """CPU cores, and so computing threads, of each."""
    use_gpu: bool = False
    """Give each worker a GPU."""
    gpus_per_worker: float = Field(default=1.0, gt=0, le=1)
    """Share of a GPU that each worker takes, so that several workers, or trials of a search, use one."""
    loader: LoaderConfig = LoaderConfig()
    """How each worker reads."""

    @model_validator(mode="after")
    def _check_workers(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ConfigError(
                f"min_workers is {self.min_workers} and num_workers is {self.num_workers}",
                "at most as many",
                f"set min_workers to at most {self.num_workers}",
            )
        return self

    @property
    def sizes(self) -> range:
        """The numbers of workers that a run may have."""
        return range(self.min_workers or self.num_workers, self.num_workers + 1)

    @property
    def resources(self) -> dict[str, float]:
        """What one worker takes, by Ray's names."""
        return {"CPU": self.cpus_per_worker, **({"GPU": self.gpus_per_worker} if self.use_gpu else {})}

    @property
    def num_cpus(self) -> int:
        """CPUs that all workers take together."""
        return self.num_workers * self.cpus_per_worker

    @property
    def ray_workers(self) -> int | tuple[int, int]:
        """As Ray Train wants their number: a pair makes a run elastic."""
        least, most = self.sizes[0], self.sizes[-1]
        return most if least == most else (least, most)

    def check_batch(self, config: TrainConfig) -> None:
        """Raise ConfigError where a step of ``config`` cannot be shared out evenly, whatever the number of workers."""
        size = config.batch_size
        self._check_multiple(size, lcm(*self.sizes), "does not split evenly over")
        share = size // self.num_workers
        if config.micro_batches > share:
            raise ConfigError(
                f"train.micro_batches is {config.micro_batches}, and each of {self.num_workers} workers has {share} "
                "patches of a step",
                "at most as many parts as patches",
                f"set train.micro_batches to at most {share}",
            )

    def check_partners(self, recipe: Recipe) -> None:
        """Raise ConfigError where partners in mixing would come to different workers, and stay as they are."""
        if self.sizes[-1] > 1:
            needed = partners_of(recipe) * lcm(*self.sizes)
            self._check_multiple(recipe.train.batch_size, needed, "parts partners of train.mix, spread over")

    def _check_multiple(self, size: int, needed: int, fault: str) -> None:
        if size % needed:
            workers = f"{self.num_workers} workers"
            if len(self.sizes) > 1:
                workers = f"each of {self.min_workers} to {workers}"
            lower = size - size % needed
            raise ConfigError(
                f"train.batch_size {size} {fault} {workers}",
                f"a multiple of {needed}",
                f"set train.batch_size to {lower + needed}" + (f" or {lower}" if lower else ""),
            )
