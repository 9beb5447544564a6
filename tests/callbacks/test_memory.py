"""What is said when the memory is full: the batch that failed and the largest one that fits."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ganzoo.callbacks import explain_out_of_memory
from ganzoo.models.mlp import MLPDiscriminator
from tests.callbacks.common import tiny


class Small(MLPDiscriminator):
    """A network for at most ``most`` samples at once; keeps the sizes that it saw."""

    most = 10**9

    def forward(self, data: Tensor, labels: Tensor | None = None) -> Tensor:
        self.seen = [*getattr(self, "seen", []), len(data)]
        if len(data) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(data, labels)


def small_gan(most: int, **options: int) -> tuple[object, Small]:
    gan = tiny(shape=(1, 8, 8), **options)
    network = Small((1, 8, 8), 8, 1, options.get("num_classes", 0), 1, 0.0)
    network.most = most
    gan.discriminator = network
    return gan, network


DATA = SimpleNamespace(batch_size=16, shape=(1, 8, 8))


def sentence(most: int, **options: int) -> str:
    gan, _ = small_gan(most, **options)
    text = explain_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."), gan, DATA)  # type: ignore[arg-type]
    assert text is not None
    return text


def test_the_largest_batch_that_fits_is_found_by_halving() -> None:
    assert sentence(5) == (
        "The memory of cpu is too small for batches of 16 images; 4 fit: set data.batch_size to 4, or keep it and set "
        "model.accumulate to 4, which trains alike in more time."
    )
    assert "; 8 fit" in sentence(8) and "; 1 fit" in sentence(1)


def test_both_players_have_a_turn_and_leave_no_gradients() -> None:
    gan, network = small_gan(3, num_classes=3)
    assert "; 2 fit" in str(explain_out_of_memory(MemoryError(), gan, DATA))  # type: ignore[arg-type]
    assert network.seen == [8, 4, 2, 2, 2]  # the discriminator's turn sees real and fake, the generator's only fake
    assert all(p.grad is None for p in gan.parameters())  # type: ignore[attr-defined]


def test_batches_in_pieces_are_counted_as_a_whole() -> None:
    text = sentence(2, accumulate=2)
    assert "batches of 16 images in 2 pieces of 8; 4 fit" in text and "model.accumulate to 8" in text


def test_where_not_even_one_fits_the_model_is_too_large() -> None:
    assert sentence(0).endswith("and for any smaller batch: use a smaller model or smaller images.")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    ],
)
def test_missing_memory_of_the_cpu_is_recognized(error: BaseException) -> None:
    gan, _ = small_gan(8)
    assert "; 8 fit" in str(explain_out_of_memory(error, gan, DATA))  # type: ignore[arg-type]


def test_the_real_error_of_the_cpus_allocator_is_recognized() -> None:
    gan, _ = small_gan(8)
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert "; 8 fit" in str(explain_out_of_memory(error.value, gan, DATA))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [ValueError("not enough memory"), RuntimeError("shapes differ"), KeyboardInterrupt()])
def test_other_errors_are_not_explained(error: BaseException) -> None:
    gan, network = small_gan(8)
    assert explain_out_of_memory(error, gan, DATA) is None  # type: ignore[arg-type]
    assert not hasattr(network, "seen")


def test_what_the_failed_turn_held_is_free_before_anything_is_tried() -> None:
    gan, _ = small_gan(8)
    held: list[weakref.ref[Tensor]] = []

    def turn() -> None:
        activations = torch.zeros(3)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError) as error:
        turn()
    assert held[0]() is not None
    explain_out_of_memory(error.value, gan, DATA)  # type: ignore[arg-type]
    assert held[0]() is None
