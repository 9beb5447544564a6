"""Combinations that are wrong, as a user meets them: refused or warned of in one sentence, with a way out that works.

Sigmoid outputs and generators without a mapping are in test_losses.py and test_every_trick.py.
"""

from __future__ import annotations

import warnings

import pytest

from ganzoo.errors import UserError
from tests.cli.common import refused
from tests.test_every_trick import check_sentence, parsed, trained

GRADIENT_PENALTIES = ["R1", "R2", "ZeroCenteredGradientPenalty", "WassersteinGradientPenalty", "DRAGAN"]
NORMS = "discriminator_norm to none, instance, layer or spectral"
#: At 16x16 the discriminator has a layer with batch normalization.
LARGER = "--data.image_size 16"


@pytest.mark.parametrize("name", GRADIENT_PENALTIES)
def test_gradient_penalties_and_batch_normalization(name: str) -> None:
    """It says why, and both ways out: another normalization, or a permission that the run's configuration keeps."""
    option = f"{LARGER} --model.penalties+={name}"
    with pytest.raises(UserError) as error:
        parsed("images", option)
    words = (name, "each sample's own gradient", "batch normalization in the discriminator couples", NORMS)
    check_sentence(str(error.value), (*words, "allow_batch_norm"))
    allowed = trained("images", f"{option} --model.penalties.allow_batch_norm true")
    assert allowed.config()["init_args"]["penalties"][0]["init_args"]["allow_batch_norm"] is True


@pytest.mark.parametrize("norm", ["none", "instance", "layer", "spectral"])
def test_the_normalizations_that_a_refusal_names(norm: str) -> None:
    trained("images", f"{LARGER} --model.penalties+=R1 --model.discriminator_norm {norm}")


@pytest.mark.parametrize("name", GRADIENT_PENALTIES)
@pytest.mark.parametrize(
    "part", ["MinibatchStdDev", "MinibatchDiscrimination", "VirtualBatchNorm --model.parts.player discriminator"]
)
def test_gradient_penalties_and_what_looks_at_the_batch_on_purpose(name: str, part: str) -> None:
    norm = "" if part.startswith("Virtual") else "--model.discriminator_norm none"
    trained("images", f"{LARGER} {norm} --model.parts+={part} --model.penalties+={name}")


CLIPPING = "--model.parts+=WeightClipping"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (f"--model.loss Hinge {CLIPPING}", ("Wasserstein critic", "is Hinge", "set loss to Wasserstein")),
        (
            f"--model.loss Wasserstein --model.discriminator_norm spectral {CLIPPING}",
            ("spectral normalization in the discriminator", "leave out one of the two"),
        ),
        (
            f"--model.loss Wasserstein --model.parts+=SpectralNorm {CLIPPING}",
            ("spectral normalization in the discriminator", "leave out one of the two"),
        ),
        (f"--model.loss Wasserstein {CLIPPING}", ()),
    ],
)
def test_weight_clipping_warns(options: str, words: tuple[str, ...]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", module="ganzoo")
        trained("images", options)
    told = [str(warning.message) for warning in caught if "ganzoo" in warning.filename]
    assert len(told) == bool(words)
    for text in told:
        check_sentence(text, words)


@pytest.mark.parametrize("loss", ["Hinge", "Wasserstein", "Relativistic", "D2GAN"])
def test_label_smoothing_of_a_loss_without_labels(loss: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = f"--model MLPGAN --data Ring --model.loss {loss} --model.loss.real_target 0.9".split()
    assert refused(capsys, "fit", *options) == (
        f"model.loss.real_target was given, but {loss} has no labels that could be smoothed: use NonSaturating, "
        "Saturating or LeastSquares, or leave it out."
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--model.parts+=MinibatchStdDev", ("groups of 4", "a batch of 6", "a multiple of group")),
        ("--model.parts+=MinibatchStdDev --model.parts.group 12", ("groups of 12", "a batch of 6", "another group")),
        ("--model.parts+=Packing --model.parts.degree 4", ("degree 4", "6 samples per rank", "a multiple of 4")),
    ],
)
def test_batches_that_groups_and_packs_do_not_divide(options: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        trained("images", f"{options} --data.batch_size 6")
    check_sentence(str(error.value), words)


@pytest.mark.parametrize("part", ["MinibatchStdDev --model.parts.group 8", "Packing --model.parts.degree 8"])
def test_what_counts_is_the_micro_batch(part: str) -> None:
    options = f"--model.parts+={part} --data.batch_size 16"
    trained("images", f"{options} --model.accumulate 2")
    with pytest.raises(UserError, match=r"batch of 4|micro-batch of 4"):
        trained("images", f"{options} --model.accumulate 4")
