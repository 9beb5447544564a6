"""``ganzoo evaluate`` and torch-fidelity's own command on the same two folders, with the same weights in one file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch_fidelity
from PIL import Image
from torch import Tensor

from ganzoo.cli import main
from ganzoo.metrics import record
from ganzoo.metrics.extractors.weights import sha256
from tests.metrics.inception import random_weights, varied_images


def save(folder: Path, images: Tensor) -> str:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:02d}.png")
    return str(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_both_commands_say_the_same(tmp_path: Path) -> None:
    """FID, IS, KID and PRC; most of the made images are nearly black, so that distances are well above any rounding.

    With fewer samples than features torch-fidelity takes roots of eigenvalues that are nothing but rounding, and it
    computes the kernel in float32, whose large values cancel in the distance: both are below 1e-5 of these distances.
    """
    real, made = (varied_images(24, 32, 32, seed=seed) for seed in (1, 2))
    made[:16] //= 12
    folders = [save(tmp_path / name, images) for name, images in (("made", made), ("real", real))]
    weights = str(random_weights())
    theirs = torch_fidelity.calculate_metrics(
        input1=folders[0],
        input2=folders[1],
        feature_extractor="inception-v3-compat",  # of PRC, too, which is otherwise of VGG16
        feature_extractor_weights_path=weights,
        **dict.fromkeys(("isc", "fid", "kid", "prc", "save_cpu_ram"), True),
        **dict.fromkeys(("cuda", "cache", "verbose"), False),
        isc_splits=4,
        kid_subsets=10,
        kid_subset_size=20,
        batch_size=12,
    )
    options = ["is_splits=4", "kid_subsets=10", "kid_subset_size=20"]
    command = ["evaluate", folders[0], "--against", folders[1], "--protocol", "torch-fidelity", "--device", "cpu"]
    command += ["--extractor.weights", weights, "--extractor.weights_hash", sha256(weights), "--batch_size", "9"]
    command += [f"--set={option}" for option in options]
    assert main([*command, "--json", str(tmp_path / "ours.json")]) == 0
    (one,) = record.load(tmp_path / "ours.json")
    ours = {name.partition("/")[0]: score for name, score in one.scores.items()}
    assert ours["fd"].value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert ours["is"].value == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert ours["is"].std == pytest.approx(theirs["inception_score_std"], rel=1e-5)
    assert ours["kd"].value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)
    assert ours["kd"].std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-5)
    assert ours["precision"].value == pytest.approx(theirs["precision"], rel=1e-5)
    assert ours["recall"].value == pytest.approx(theirs["recall"], rel=1e-5)
    assert 0 < theirs["precision"] < theirs["recall"] < 1
