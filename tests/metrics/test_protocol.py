"""A protocol's id tells whether scores may be compared, and the differences say why not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from ganzoo.errors import UserError
from ganzoo.metrics import presets, protocol
from ganzoo.metrics.protocol import Protocol, differences
from tests.mutants import kills

#: Another value of every choice.
OTHER: dict[str, Any] = {
    "extractor": "other",
    "extractor_hash": "b" * 64,
    "extractor_options": "logits=biased",
    "resize": "clean",
    "quantization": "nvidia",
    "num": 10_000,
    "reference": "other",
    "split": "test",
    "reference_hash": "b" * 64,
    "reference_num": 7,
    "weights": "raw",
    "batch_norm": "batch",
    "standing_batches": 3,
    "standing_size": 8,
    "truncation": 0.7,
    "labels": "data",
    "seed": 1,
    "is_splits": 1,
    "is_shuffle": False,
    "kid_subsets": 10,
    "kid_subset_size": 50,
    "prdc_k": 5,
    "covariance": "biased",
    "swd_images": 16_384,
    "swd_patches": 64,
    "swd_directions": 128,
    "ssim_pairs": 10_000,
    "ppl_space": "w",
    "ppl_sampling": "end",
    "ppl_epsilon": 1e-3,
}


def tells_every_choice(id_of: Callable[[Protocol], str]) -> None:
    ids = {id_of(Protocol())}
    for name, value in OTHER.items():
        ids.add(id_of(replace(Protocol(), **{name: value})))
    assert len(ids) == 1 + len(OTHER)
    assert id_of(Protocol("one")) == id_of(Protocol("two"))


def test_the_id_tells_every_choice_but_not_the_name() -> None:
    assert OTHER.keys() == {field.name for field in fields(Protocol)} - {"name"} == protocol.WORDS.keys()
    tells_every_choice(lambda one: one.id)
    kills(tells_every_choice, lambda one: str(hash((one.extractor, one.num, one.reference_hash))))
    kills(tells_every_choice, lambda one: str(asdict(one)))


def test_the_same_images_are_the_same_reference_under_any_title() -> None:
    one = Protocol(reference="cifar.zip, 32x32", split="all", reference_hash="c" * 64)
    two = replace(one, reference="CIFAR10 train, 32x32", split="train")
    assert one.id == two.id and differences(one, two) == []
    assert one.id != replace(one, reference_hash="d" * 64).id


@pytest.mark.parametrize("name", OTHER)
def test_every_difference_is_a_sentence(name: str) -> None:
    (sentence,) = differences(Protocol(), replace(Protocol(), **{name: OTHER[name]}))
    assert sentence.startswith(protocol.WORDS[name]) and sentence.endswith(".")


def test_choices_that_came_later_leave_older_records_their_id() -> None:
    """The id and the state of a record from before sliced Wasserstein, MS-SSIM and path length could be chosen."""
    state = Protocol("digits", num=1000, kid_subsets=20, kid_subset_size=500).state()
    older = {name: value for name, value in state.items() if not name.startswith(("swd_", "ssim_", "ppl_"))}
    content = {name: value for name, value in older.items() if name not in ("name", "id")}
    known = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    assert known == state["id"]
    assert Protocol.from_state(older) == Protocol.from_state(state)
    with pytest.raises(UserError, match=r"does not fit this version of ganzoo \(seed\)"):
        Protocol.from_state({name: value for name, value in older.items() if name != "seed"})


def test_differences_show_both_sides() -> None:
    one, two = Protocol(num=50_000, weights="ema"), Protocol(num=10_000, weights="raw", truncation=0.5)
    assert differences(one, two) == [
        "The number of samples is 50,000 and 10,000.",
        "The kind of weights is ema and raw.",
        "The truncation is off and 0.5.",
    ]


def test_a_state_is_read_again_and_never_after_a_change() -> None:
    one = Protocol("mine", extractor="x", num=7)
    assert Protocol.from_state(one.state()) == one
    with pytest.raises(UserError, match="was changed"):
        Protocol.from_state({**one.state(), "num": 8})
    with pytest.raises(UserError, match=r"does not fit this version of ganzoo \(colour\)"):
        Protocol.from_state({**one.state(), "colour": "red"})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"weights": "best"}, "weights was 'best'; choose one of ema, raw, files"),
        ({"num": 0}, "The number of samples was 0"),
        ({"ppl_space": "v"}, "ppl_space was 'v'; choose one of z, w"),
        ({"ppl_epsilon": 0.0}, "The length of a step on its path was 0; give a share of the path"),
        ({"batch_norm": "standing"}, "Standing statistics over 0 batches"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Protocol(**changes)


#: What each program documents (see docs/evaluation.md), where it differs from torch-fidelity's.
FACTS: dict[str, dict[str, Any]] = {
    "torch-fidelity": {},
    "studiogan": {"quantization": "studiogan", "batch_norm": "standing", "is_splits": 1, "prdc_k": 5},
    "nvidia": {"quantization": "nvidia", "labels": "data", "covariance": "biased", "is_shuffle": False},
    "clean-fid": {"num": 10_000, "split": "test", "quantization": "nvidia"},
    "mimicry": {"quantization": "min-max", "weights": "raw", "kid_subsets": 10, "kid_subset_size": 5000},
}
BASE = {"num": 50_000, "split": "train", "quantization": "round", "weights": "ema", "batch_norm": "running"} | {
    "labels": "uniform", "covariance": "unbiased", "is_splits": 10, "kid_subsets": 100, "kid_subset_size": 1000,
    "prdc_k": 3, "truncation": None,
}  # fmt: skip
RESIZE = {"studiogan": "pil-bilinear-float", "clean-fid": "clean"}


@pytest.mark.parametrize("name", FACTS)
def test_presets_are_what_the_programs_document(name: str) -> None:
    preset = presets.preset(name)
    held = asdict(preset.protocol)
    for choice in (BASE | FACTS[name]).keys() & BASE.keys():
        assert held[choice] == (BASE | FACTS[name])[choice], choice
    assert preset.extractor["init_args"]["resize"] == RESIZE.get(name, "tf1-bilinear")


def test_presets_differ_and_unknown_ones_are_refused() -> None:
    full = {(preset.protocol.id, str(preset.extractor)) for preset in presets.PRESETS.values()}
    assert len(full) == len(presets.PRESETS)
    with pytest.raises(UserError, match="no protocol 'fid'; choose one of torch-fidelity, studiogan"):
        presets.preset("fid")
    with pytest.raises(UserError, match="no metric 'fid'; choose from fd, kd, is, prdc, intra-fd, ppl, swd, ms-ssim"):
        presets.chosen(["fid"], presets.preset("quick"))
