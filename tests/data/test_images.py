"""From uint8 batches to model input and back; facts; the stream through a real Trainer."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.config import build
from ganzoo.data import Array, Batch, Digits, ImageFolder, Ring
from ganzoo.data.sampler import EndlessSampler
from ganzoo.errors import UserError

CPU = torch.device("cpu")


def test_prepare_maps_levels_to_plus_minus_one_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
    data = Digits(image_size=8)
    x, labels = data.prepare(Batch(levels, None), CPU)
    assert (x.dtype, x.min(), x.max(), labels) == (torch.float32, -1, 1, None)
    assert torch.allclose(x.double(), levels.double() / 127.5 - 1, atol=1e-7)
    assert (data.to_images(x) == levels).all()
    assert data.to_images(torch.tensor([[[[-7.0, 7.0]]]])).flatten().tolist() == [0, 255]  # never wraps around


def test_labels_pass_through() -> None:
    labels = torch.tensor([3, 1])
    assert (Digits().prepare(Batch(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), labels), CPU)[1] == labels).all()


def _flipped(data: Digits, images: Tensor, cycle: int, start: int = 0, total: int = 64) -> list[bool]:
    with streams.stream(0, "d", cycle, start=start, num=len(images), total=total, device=CPU):
        x, _ = data.prepare(Batch(images, None), CPU)
    plain, _ = Digits().prepare(Batch(images, None), CPU)
    is_flip = (x == plain.flip(3)).all(3).all(2).all(1)
    assert (is_flip | (x == plain).all(3).all(2).all(1)).all()
    return is_flip.tolist()


def test_half_of_the_images_are_flipped_by_keyed_numbers() -> None:
    images = torch.arange(64, dtype=torch.uint8)[:, None, None, None] + torch.arange(4, dtype=torch.uint8)
    data = Digits(mirror=True)
    whole = _flipped(data, images, cycle=0)
    assert 16 <= sum(whole) <= 48  # 32 expected, standard deviation 4
    assert whole == _flipped(data, images, cycle=0)
    assert whole != _flipped(data, images, cycle=1)
    halves = [_flipped(data, images[i : i + 32], cycle=0, start=i) for i in (0, 32)]  # as two processes draw them
    assert halves[0] + halves[1] == whole
    assert not any(_flipped(Digits(), images, cycle=0))


def test_facts_are_known_without_decoding(tree: Path, cache_folder: Path) -> None:
    data = ImageFolder(str(tree), split="train", labels=True, image_size=(32, 48), channels=4)
    assert (data.shape, data.image_size, data.channels, data.num_classes) == ((4, 32, 48), (32, 48), 4, 2)
    assert Digits().shape == (1, 32, 32)
    assert (Digits().image_size, Digits().num_classes, Digits(labels=True).num_classes) == (32, 0, 10)
    assert not cache_folder.exists()


def test_it_can_be_rebuilt_from_its_configuration(tree: Path) -> None:
    data = ImageFolder(str(tree), split="train", image_size=(8, 4), fit="pad", batch_size=7)
    again = build(data.config())
    assert again.config() == data.config()
    assert again.content_hash == data.content_hash


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match="batch_size is 0"):
        Digits(batch_size=0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_taken_up_again_equals_the_tail(num_workers: int) -> None:
    first = Digits(batch_size=8, labels=True)
    whole = list(islice(first.train_dataloader(), 460))  # through two epochs
    again = Digits(batch_size=8, labels=True, num_workers=num_workers)
    again.load_state_dict({"position": 8 * 440, "content_hash": first.content_hash})
    for a, b in zip(whole[440:], again.train_dataloader(), strict=False):
        assert (a.data == b.data).all() and (a.labels == b.labels).all()


def test_batches_hold_what_the_sampler_says() -> None:
    data = Digits(batch_size=6)
    order = EndlessSampler(1797, batch_size=6)
    for batch, indices in zip(islice(data.train_dataloader(), 3), order, strict=False):
        assert (batch.data == data.dataset[indices].data).all()
        assert (batch.data.dtype, batch.data.shape) == (torch.uint8, (6, 1, 32, 32))


def test_a_run_on_other_data_is_not_taken_up() -> None:
    state = Digits().state_dict()
    with pytest.raises(UserError, match=r"data have changed since the run began .* restore them"):
        Digits(image_size=16).load_state_dict(state)


def test_starting_a_loader_draws_nothing_from_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    next(iter(Digits().train_dataloader()))
    assert torch.rand(1) == expected


class Module(L.LightningModule):
    """What a GAN tells its data, and a record of the batches it got."""

    def __init__(self, accumulate: int, seed: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.accumulate, self.seed = accumulate, seed
        self.clock = SimpleNamespace(drawn=0)
        self.got: list[Batch] = []
        self.facts: set[Any] = set()

    def training_step(self, dataloader_iter: Any) -> None:
        self.got += [next(dataloader_iter)[0] for _ in range(self.accumulate)]
        self.clock.drawn += self.trainer.datamodule.batch_size
        loader = self.trainer.train_dataloader
        self.facts.add((self.trainer.num_training_batches, self.trainer.current_epoch, type(loader.sampler)))
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.weight**2)
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["drawn"] = self.clock.drawn

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.clock.drawn = checkpoint["drawn"]


def _fit(num_steps: int, data: Any, path: Path | None = None) -> tuple[Module, L.Trainer]:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_steps=num_steps, max_epochs=-1, accelerator="cpu", enable_model_summary=False, **quiet)
    module = Module(accumulate=2, seed=4)
    trainer.fit(module, datamodule=data, ckpt_path=path)
    return module, trainer


@pytest.mark.parametrize("num_workers", [0, 2])
def test_through_a_trainer(tmp_path: Path, num_workers: int) -> None:
    def data() -> Array:
        return Array(str(tmp_path / "x.npy"), batch_size=8, num_workers=num_workers)

    np.save(tmp_path / "x.npy", np.arange(20, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2))
    whole, _ = _fit(9, data())
    assert whole.facts == {(float("inf"), 0, EndlessSampler)}  # no epoch ends in 72 of 20 images
    drawn = [batch.data[:, 0, 0, 0].tolist() for batch in whole.got]
    order = EndlessSampler(20, batch_size=8, accumulate=2, seed=4)
    assert drawn == [indices.tolist() for indices in islice(order, 18)]

    half, trainer = _fit(4, data())
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    torch.load(tmp_path / "half.ckpt", weights_only=True)
    rest, _ = _fit(9, data(), tmp_path / "half.ckpt")
    assert drawn == [batch.data[:, 0, 0, 0].tolist() for batch in half.got + rest.got]


def test_points_on_a_ring() -> None:
    data = Ring(num_modes=4, radius=3.0, std=0.1, labels=True, batch_size=4000)
    batch = next(iter(data.train_dataloader()))
    x, labels = data.prepare(batch, CPU)
    assert (data.shape, data.num_classes, x.shape, x.dtype) == ((2,), 4, (4000, 2), torch.float32)
    means = 3.0 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert labels is not None
    for mode in range(4):
        points = x[labels == mode]
        assert abs(len(points) - 1000) < 5 * 27.4  # binomial: sqrt(4000 / 4 * 3 / 4)
        assert (points.mean(0) - means[mode]).abs().max() < 5 * 0.1 / 1000**0.5
        assert (points.std(0) - 0.1).abs().max() < 5 * 0.1 / 2000**0.5
    part = data.dataset[np.arange(100, 200)]  # the place alone says which point
    assert (part.data == batch.data[100:200]).all()
