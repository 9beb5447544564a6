"""Images on the device: the same run as with a loader, bit by bit, forced on a CPU."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from ganzoo import files
from ganzoo.data import Array, Digits, ImageFolder, Ring, resident
from ganzoo.data.loader import Loader
from ganzoo.data.resident import ResidentLoader
from ganzoo.data.sampler import EndlessSampler
from ganzoo.models import DCGAN, MLPGAN
from tests.common import max_difference, quiet_trainer
from tests.mutants import kills

CPU = torch.device("cpu")
SIZES = [(48, 12), (150, 24)]


def gan(**options) -> DCGAN:
    return DCGAN(8, 1, num_classes=10, width=4, total_kimg=100, **options)


def few(**options) -> Array:
    """60 images of ten classes: not a multiple of the batch, so that some batches reach into the next epoch."""
    file = files.cache_root() / "few.npz"
    if not file.exists():
        rng = np.random.default_rng(0)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, x=rng.integers(0, 256, (60, 8, 8, 1), np.uint8), y=rng.integers(0, 10, 60))
    return Array(str(file), array="x", labels_from="y", batch_size=24, labels=True, mirror=True, **options)


def train(model, data, steps: int, start: Path | None = None, end: Path | None = None) -> dict:
    """The model's weights and those of its optimizers after so many steps in all."""
    L.seed_everything(3, verbose=False)
    trainer = quiet_trainer(max_steps=steps)
    trainer.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
    if end is not None:
        trainer.save_checkpoint(end)
    moments = {
        f"{number}/{index}/{name}": value
        for number, optimizer in enumerate(trainer.optimizers)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    return model.state_dict() | moments


def check_batches(cls: type[ResidentLoader]) -> None:
    """Over several epochs, with other sizes along the way, for each rank and micro-batch, from any place on."""
    dataset = Digits(image_size=8, labels=True).dataset
    for world, rank, accumulate, start in ((1, 0, 1, 0), (2, 1, 1, 48), (2, 0, 3, 0), (1, 0, 2, 90)):
        order = {"world": world, "rank": rank, "accumulate": accumulate, "seed": 3}
        samplers = [EndlessSampler(len(dataset), batch_size=24, sizes=SIZES, **order) for _ in range(2)]
        for sampler in samplers:
            sampler.start = start
        num = len(dataset) // 20 * accumulate
        given = Loader(dataset, sampler=samplers[0], batch_size=None)
        for one, other in zip(islice(given, num), islice(cls(dataset, samplers[1], CPU), num), strict=True):
            assert one.data.dtype == other.data.dtype == torch.uint8
            assert torch.equal(one.data, other.data)
            assert torch.equal(one.labels, other.labels)


class FromTheStart(ResidentLoader):
    """Does not go on where a run was stopped."""

    def __iter__(self):
        self.sampler.start = 0
        return super().__iter__()


class EpochByEpoch(ResidentLoader):
    """Its own order: a permutation per epoch from torch's generator, as a usual loader has."""

    def __iter__(self):
        for block in self.sampler.blocks():
            for rows in torch.randperm(len(self.images))[: block.size].split(block.shape[1]):
                yield type(next(super().__iter__()))(self.images[rows], self.labels[rows])


class LabelsInPlace(ResidentLoader):
    """Images are looked up, labels are not."""

    def __iter__(self):
        for batch in super().__iter__():
            yield batch._replace(labels=self.labels[: len(batch.labels)])


class FirstRank(ResidentLoader):
    """All ranks see what the first one sees."""

    def __iter__(self):
        self.sampler.rank = 0
        return super().__iter__()


def test_batches_are_those_of_the_loader() -> None:
    check_batches(ResidentLoader)
    for mutant in (FromTheStart, EpochByEpoch, LabelsInPlace, FirstRank):
        kills(check_batches, mutant)


def test_the_same_run() -> None:
    """Classes, flips, batch normalization, two micro-batches."""
    torch.manual_seed(0)
    start = gan(accumulate=2).state_dict()
    results = []
    for on_device in (False, True):
        model = gan(accumulate=2)
        model.load_state_dict(start)
        data = few(on_device=on_device)
        results.append(train(model, data, 12))
        loader = data.train_dataloader()
        assert isinstance(loader, ResidentLoader) is on_device
    assert max_difference(*results) == 0.0


def test_no_thread_and_no_process_beside_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    cycle = MLPGAN.cycle

    def watched(self, loader):
        cycle(self, loader)
        names.update(thread.name for thread in threading.enumerate())

    monkeypatch.setattr(MLPGAN, "cycle", watched)
    for on_device in (True, False):
        train(MLPGAN((1, 8, 8), hidden=4, num_layers=1), Digits(image_size=8, batch_size=8, on_device=on_device), 2)
        assert any(name.startswith("ganzoo-loader") for name in names) is not on_device


@pytest.mark.parametrize("first", [False, True])
def test_stopped_inside_an_epoch_and_resumed_with_the_other_kind(first: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = gan().state_dict()
    whole, parts = gan(), gan()
    whole.load_state_dict(start)
    parts.load_state_dict(start)
    expected = train(whole, few(on_device=not first), 12)
    train(parts, few(on_device=first), 4, end=tmp_path / "half.ckpt")
    resumed = train(gan(), few(on_device=not first), 12, start=tmp_path / "half.ckpt")
    assert max_difference(expected, resumed) == 0.0


def test_sizes_that_change_along_the_run(tmp_path: Path) -> None:
    def model() -> MLPGAN:
        torch.manual_seed(0)
        made = MLPGAN((1, 8, 8), hidden=8, num_layers=1)
        made.batch_sizes = SIZES
        return made

    def data(on_device: bool) -> Digits:
        return Digits(image_size=8, batch_size=8, on_device=on_device)

    whole = train(model(), data(False), 20)
    train(model(), data(True), 8, end=tmp_path / "half.ckpt")
    resumed = model()
    assert max_difference(whole, train(resumed, data(True), 20, start=tmp_path / "half.ckpt")) == 0.0
    assert resumed.clock.images == 6 * 8 + 9 * 12 + 5 * 24  # from place 48 on 12 each, from 150 on (156) 24


def test_pictures_that_were_skipped_take_no_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="skipped 1 pictures"):
        dataset = ImageFolder(str(tmp_path), image_size=8, corrupt="skip", batch_size=2).dataset
    held = ResidentLoader(dataset, EndlessSampler(len(dataset), batch_size=5), CPU)
    assert held.images.shape == (5, 3, 8, 8)
    assert dataset.num_bytes == held.images.numel()
    assert held.labels is None
    for place, i in enumerate((0, 1, 3, 4, 5)):
        expected = np.asarray(Image.open(tmp_path / f"{i}.png")).transpose(2, 0, 1)
        assert np.array_equal(held.images[place].numpy(), expected)


def test_read_by_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (37, 4, 4, 3), np.uint8)
    np.save(tmp_path / "x.npy", images)
    monkeypatch.setattr(resident, "_CHUNK", 5 * 4 * 4 * 3)
    dataset = Array(str(tmp_path / "x.npy"), batch_size=4).dataset
    held = ResidentLoader(dataset, EndlessSampler(37, batch_size=4), CPU)
    assert np.array_equal(held.images.numpy(), images.transpose(0, 3, 1, 2))


class Synchronizing(TorchDispatchMode):
    """Notes operations for whose result the host must wait for the device, and copies off it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        if name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"):
            self.seen.add(name)
        return func(*args, **(kwargs or {}))


def test_the_host_never_waits_for_a_batch() -> None:
    data = few()
    batches = iter(ResidentLoader(data.dataset, EndlessSampler(data.num, batch_size=8), CPU))
    with Synchronizing() as watch:
        for batch in islice(batches, 600):
            data.prepare(batch, CPU)
        assert not watch.seen
        batch.data.sum().item()  # the watch works
    assert watch.seen


def test_all_of_a_batch_is_made_on_the_device() -> None:
    """On the meta device, an operation that mixed it with the host would raise."""
    meta, data = torch.device("meta"), Digits(image_size=8, batch_size=8, labels=True)
    batch = next(iter(ResidentLoader(data.dataset, EndlessSampler(data.num, batch_size=8), meta)))
    prepared = data.prepare(batch, meta)
    assert [x.device.type for x in (*batch, *prepared)] == ["meta"] * 4
    assert prepared[0].shape == (8, 1, 8, 8) and prepared[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("wanted", "device", "times", "held"),
    [
        ("auto", "cpu", 100, False),
        (False, "cuda", 100, False),
        ("auto", "cuda", 4, True),
        ("auto", "cuda", 3.9, "unless data.on_device is true"),
        (True, "cuda", 1, True),
        (True, "cuda", 0.9, "0.1 MB free: batches come from a loader."),
        (True, "cpu", None, True),
    ],
)
def test_where_images_live(wanted, device, times, held, monkeypatch: pytest.MonkeyPatch) -> None:
    """``times``: how often they would fit into the memory that is free."""
    data = Digits(image_size=8)
    size = 1797 * 64
    free = None if times is None else round(times * size)
    monkeypatch.setattr(resident, "free_memory", lambda on: free)
    monkeypatch.setattr(resident, "ResidentLoader", lambda *given: "held")
    call = (data.dataset, EndlessSampler(data.num, batch_size=8), torch.device(device), wanted)
    if isinstance(held, str):
        with pytest.warns(UserWarning, match=held) as said:
            assert resident.settle(*call) is None
        assert str(said[0].message).startswith(f"The images take 0.1 MB and {device} has ")
    else:
        assert resident.settle(*call) == ("held" if held else None)


def test_a_run_goes_on_with_the_loader_where_images_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    start = gan().state_dict()
    one, other = gan(), gan()
    for model in (one, other):
        model.load_state_dict(start)
    expected = train(one, few(on_device=False), 5)
    monkeypatch.setattr(resident, "free_memory", lambda device: 1000)
    with pytest.warns(UserWarning, match=r"^The images take 0\.0 MB and cpu has 0\.0 MB free: batches come from"):
        assert max_difference(expected, train(other, few(on_device=True), 5)) == 0.0


def test_points_come_from_a_loader() -> None:
    with pytest.warns(UserWarning, match=r"^data.on_device is true, but EndlessPoints is no cache of uint8 images"):
        train(MLPGAN(hidden=4, num_layers=1), Ring(batch_size=8, on_device=True), 2)


def test_where_data_live_is_no_fact_about_them() -> None:
    """So a run may be resumed on another machine."""
    assert Ring(on_device=True).content_hash == Ring().content_hash
    assert Digits(image_size=8, on_device=True).content_hash == Digits(image_size=8).content_hash
