"""The seeds of a method in several stacks, each trained by a process of its own: with one thread a stack per core."""

from __future__ import annotations

import itertools
import math
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.scores.methods import Method
from benchmarks.scores.protocol import Protocol, Target
from benchmarks.scores.train import Run
from ganzoo.memory import keep_freed

SPAWN = multiprocessing.get_context("spawn")  #: a forked process would have the threads' locks, not the threads


@dataclass(frozen=True)
class Plan:
    """What each stack trains, and on what."""

    protocol: Protocol
    method: Method
    target: Target
    device: str = "cpu"
    threads: int = 1  #: of each process

    def run(self, seeds: Sequence[int]) -> Run:
        """A new run of these seeds, in this process."""
        torch.set_num_threads(self.threads)
        keep_freed()
        return Run(self.protocol, self.method, self.target, seeds, device=self.device)

    def resumed(self, seeds: Sequence[int], checkpoint: Path) -> Run:
        """The same, as the checkpoint has it if there is one."""
        run = self.run(seeds)
        if checkpoint.exists():
            run.load(checkpoint)
        return run


def split(seeds: Sequence[int], num: int) -> list[list[int]]:
    """Seeds that follow each other, in so many stacks that differ by one at most, the larger first; none is empty."""
    size, larger = divmod(len(seeds), num)
    ends = [i * size + min(i, larger) for i in range(num + 1)]
    return [list(seeds[a:b]) for a, b in itertools.pairwise(ends) if a < b]


def train(plan: Plan, checkpoints: dict[Path, list[int]], seconds: float = math.inf) -> list[Run]:
    """Train the seeds of each checkpoint, all stacks at once, to the end or for so many seconds; go on where one is.

    Returns:
        The runs, in the order of the checkpoints.
    """
    if len(checkpoints) == 1:
        return [_go(plan, seeds, checkpoint, seconds) for checkpoint, seeds in checkpoints.items()]
    with ProcessPoolExecutor(len(checkpoints), SPAWN) as pool:
        stacks = [pool.submit(_train, plan, seeds, path, seconds) for path, seeds in checkpoints.items()]
        for stack in stacks:
            stack.result()
    return [plan.resumed(seeds, checkpoint) for checkpoint, seeds in checkpoints.items()]


def _train(plan: Plan, seeds: list[int], checkpoint: Path, seconds: float) -> None:
    _go(plan, seeds, checkpoint, seconds)  # the checkpoint has the result


def _go(plan: Plan, seeds: list[int], checkpoint: Path, seconds: float) -> Run:
    run = plan.resumed(seeds, checkpoint)
    run.go(seconds, checkpoint)
    return run
