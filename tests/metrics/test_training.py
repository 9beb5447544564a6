"""Training of domain extractors: the split, the movements, the clock, and that the seed decides everything."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganzoo.errors import TrainingError, UserError
from ganzoo.metrics import training
from ganzoo.metrics.training import Examples, Recipe, learning_rate, moved, split
from tests.mutants import kills

QUICK = Recipe(width=4, kimg=1.6, batch_size=32, shift=1)


def bars(num: int = 160, *, seed: int = 0) -> Examples:
    """Noisy 8x8 images of two classes: a horizontal or a vertical bar, anywhere."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (num, 1, 8, 8), generator=g)
    labels = torch.arange(num) % 2
    for image, label, place in zip(images, labels, torch.randint(1, 7, (num,), generator=g), strict=True):
        (image if label else image.mT)[0, place] += 180
    images = images.to(torch.uint8)
    return Examples("bars", lambda rows: images[rows], labels, ["vertical", "horizontal"], f"hash {seed}")


def train(examples: Examples, held_out: Examples | float = 0.25, recipe: Recipe = QUICK) -> training.Trained:
    return training.train(examples, held_out, recipe, report=lambda line: None)


def check_split(splits: Callable[[Tensor, float], Any]) -> None:
    """Nothing is in both parts or lost, each class has its share, the order is mixed, and nothing is random."""
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 2)
    torch.manual_seed(1)
    rows, held_out = splits(labels, 0.25)
    assert sorted([*rows, *held_out]) == list(range(62))
    assert labels[held_out].bincount().tolist() == [10, 5, 1]
    assert held_out[:10].tolist() not in (list(range(10)), list(range(30, 40)))
    torch.manual_seed(2)
    again = splits(labels, 0.25)
    assert all(np.array_equal(a, b) for a, b in zip((rows, held_out), again, strict=True))


def test_split() -> None:
    check_split(split)

    def overlapping(labels: Tensor, share: float) -> Any:
        return np.arange(len(labels)), split(labels, share)[1]

    def whole(labels: Tensor, share: float) -> Any:
        rows = np.arange(len(labels))
        return rows[int(len(rows) * share) :], rows[: int(len(rows) * share)]

    def fresh(labels: Tensor, share: float) -> Any:
        parts = [(labels == k).nonzero().squeeze(1) for k in range(3)]
        parts = [part[torch.randperm(len(part))] for part in parts]
        sizes = [max(round(share * len(part)), 1) for part in parts]
        halves = [
            torch.cat([part[place(n)] for part, n in zip(parts, sizes, strict=True)]).sort().values.numpy()
            for place in (lambda n: slice(n, None), lambda n: slice(n))
        ]
        return halves[0], halves[1]

    for mutant in (overlapping, whole, fresh):
        kills(check_split, mutant)


def check_moved(move: Callable[[Tensor, Recipe, int], Tensor]) -> None:
    """Each image is one of the shifts and flips of itself with repeated edges, and all of those occur."""
    images = torch.arange(2 * 4 * 5, dtype=torch.uint8).view(1, 2, 4, 5)
    padded = torch.nn.functional.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    for mirror in (False, True):
        possible = [padded[:, :, i : i + 4, j : j + 5] for i, j in itertools.product(range(3), range(3))]
        possible += [image.flip(3) for image in possible] if mirror else []
        found = move(images.expand(400, -1, -1, -1), Recipe(shift=1, mirror=mirror), 3)
        assert found.dtype == torch.float32
        equal = torch.stack([(found == image).flatten(1).all(1) for image in possible])
        assert (equal.sum(0) == 1).all()
        assert (equal.sum(1) > 0).all()
    assert not torch.equal(found, move(images.expand(400, -1, -1, -1), Recipe(shift=1, mirror=True), 4))
    still = move(images, Recipe(shift=0), 0)
    assert torch.equal(still, images.float())


def test_moved() -> None:
    check_moved(moved)

    def around(images: Tensor, recipe: Recipe, step: int) -> Tensor:
        """Wrong: what leaves on one side comes in on the other."""
        g = torch.Generator().manual_seed(step)
        shifts = torch.randint(-recipe.shift, recipe.shift + 1, (len(images), 2), generator=g).tolist()
        return torch.stack([one.roll(shift, (1, 2)) for one, shift in zip(images, shifts, strict=True)]).float()

    def together(images: Tensor, recipe: Recipe, step: int) -> Tensor:
        """Wrong: one draw for the whole batch."""
        return moved(images[:1], recipe, step).expand(len(images), -1, -1, -1)

    def never_flipped(images: Tensor, recipe: Recipe, step: int) -> Tensor:
        return moved(images, Recipe(shift=recipe.shift), step)

    for mutant in (around, together, never_flipped):
        kills(check_moved, mutant)


def test_the_learning_rate_rises_for_a_tenth_and_falls_on_a_cosine() -> None:
    assert learning_rate(0.05) == pytest.approx(0.5)
    assert learning_rate(0.1) == pytest.approx(1)
    assert learning_rate(0.55) == pytest.approx(0.5)
    assert learning_rate(1.0) == pytest.approx(0, abs=1e-12)


def test_it_learns_to_tell_bars_apart_and_says_how_well() -> None:
    """The accuracy of the file is that of the network on the part that was held out."""
    examples = bars()
    trained = train(examples)
    _, rows = split(examples.labels, 0.25)
    with torch.no_grad():
        right = trained.network(examples.images(rows).float())[1].argmax(1) == examples.labels[rows]
    assert trained.accuracy == right.double().mean().item() >= 0.9
    assert trained.content["facts"]["held_out"]["accuracy"] == trained.accuracy
    assert trained.content["facts"]["num"] == 120


def test_nothing_that_is_held_out_is_trained_on() -> None:
    """Images that are read while it trains are not those on which it is measured."""
    examples, read = bars(), list[set[int]]()

    def images(rows: Any) -> Tensor:
        read.append(set(np.asarray(rows).tolist()))
        return examples.images(rows)

    train(Examples("bars", images, examples.labels, examples.class_names, "hash"))
    held_out = set(split(examples.labels, 0.25)[1].tolist())
    batches = [rows for rows in read if len(rows) == 32]
    assert len(batches) == 50
    assert not set.union(*batches) & held_out
    assert set.union(*batches) | held_out == set(range(160))
    assert read[-1] == held_out


def test_the_seed_decides_everything() -> None:
    torch.manual_seed(1)
    first = train(bars())
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    second = train(bars())
    assert all(
        torch.equal(a, b) for a, b in zip(*(t.content["weights"].values() for t in (first, second)), strict=True)
    )
    other = train(bars(), recipe=Recipe(width=4, kimg=1.6, batch_size=32, shift=1, seed=1))
    assert not torch.equal(first.content["weights"]["head.weight"], other.content["weights"]["head.weight"])
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())  # nothing was drawn from torch's own generator


def test_another_set_is_held_out() -> None:
    trained = train(bars(), bars(60, seed=5))
    facts = trained.content["facts"]
    assert (facts["num"], facts["held_out"]["num"]) == (160, 60)
    assert facts["held_out"]["content_hash"] == "hash 5"
    assert trained.accuracy >= 0.9


def test_refusals() -> None:
    examples = bars()

    def changed(**changes: Any) -> Examples:
        return Examples(**{**vars(examples), **changes})

    def of_shape(height: int, width: int) -> Any:
        return lambda rows: torch.zeros(len(rows), 1, height, width, dtype=torch.uint8)

    cases: list[tuple[str, Examples, Any, Recipe]] = [
        ("one class only", changed(labels=torch.zeros(160, dtype=torch.int64)), 0.2, QUICK),
        ("Class 1 has one picture", changed(labels=(torch.arange(160) == 7).long()), 0.2, QUICK),
        ("between 0 and 1", examples, 1.0, QUICK),
        ("the very set", examples, bars(), QUICK),
        ("same classes", examples, changed(class_names=["a", "b"], content_hash="other"), QUICK),
        (
            "have the shape",
            examples,
            changed(images=lambda rows: torch.zeros(len(rows), 1, 9, 9), content_hash="o"),
            QUICK,
        ),
        ("too small", changed(images=lambda rows: torch.zeros(len(rows), 1, 7, 9)), 0.2, QUICK),
        ("kimg was 0", examples, 0.2, Recipe(kimg=0)),
        ("label_smoothing was 1", examples, 0.2, Recipe(label_smoothing=1.0)),
        ("shift was -1", examples, 0.2, Recipe(shift=-1)),
    ]
    for sentence, data, held_out, recipe in cases:
        with pytest.raises(UserError, match=sentence):
            train(data, held_out, recipe)


def test_a_loss_that_is_not_finite_stops_it() -> None:
    with pytest.raises(TrainingError, match="lower its --lr"):
        train(bars(), recipe=Recipe(width=4, kimg=3.2, batch_size=32, lr=1e30))
