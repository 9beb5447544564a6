"""Every loss, penalty and part in one option of the command line, on images, on points, and on styles.

It trains, or is refused in one sentence that says why and what to use instead; then that is tried.
"""

from __future__ import annotations

import shlex
import warnings
from dataclasses import dataclass
from functools import cache

import pytest
import torch

from ganzoo.cli import arguments, listing
from ganzoo.cli.parser import FitCLI
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.parts import Penalty
from tests.common import flat, quiet_trainer

_STYLES = (
    "--model StyleGAN --model.channel_base 32 --model.channel_max 8 --model.latent_dim 4 --model.style_dim 8 "
    "--model.mapping_layers 1 --model.label_layers 1 --data Digits --data.image_size 8 --data.batch_size 16"
)
#: "grown" is at 4x4 in its first turns, and in the next ones 8x8 has a share of a half; it has classes.
MODELS = {
    "images": "--model DCGAN --model.width 4 --data Digits --data.image_size 8 --data.batch_size 16",
    "points": "--model MLPGAN --model.hidden 8 --data Ring --data.batch_size 16",
    "styles": _STYLES,
    "grown": f"{_STYLES} --data.labels true --model.growth Growing --model.growth.stabilize_kimg 0.008 "
    "--model.growth.fade_kimg 0.016",
}
HOW = {"losses": "--model.loss", "penalties": "--model.penalties+=", "parts": "--model.parts+="}


def every_trick() -> dict[str, str]:
    """The option that adds each class which ``ganzoo list`` shows."""
    found = listing.sections()
    return {
        name: f"{how}{name}" if how.endswith("=") else f"{how} {name}"
        for section, how in HOW.items()
        for name, _ in found[section]
    }


TRICKS = every_trick()


@dataclass(frozen=True)
class Refused:
    """What the sentence says, in this order, and the options that make it train; none: no model here can."""

    words: tuple[str, ...]
    instead: str | None = None


_TWO = "--model.loss D2GAN --model.parts+=DualDiscriminator --model.penalties []"
REFUSED: dict[tuple[str, str], Refused] = {
    **{
        (kind, name): refused
        for kind in MODELS
        for name, refused in {
            "D2GAN": Refused(("takes the logits of 2 discriminators", "has 1", "add the part DualDiscriminator"), _TWO),
            "DualDiscriminator": Refused(("has 2 discriminators", "NonSaturating takes", "use the loss D2GAN"), _TWO),
            "AuxiliaryClassifier": Refused(
                ("names the classes", "unconditional", "data.labels true", "leave it out"),
                "--data.labels true --model.parts+=AuxiliaryClassifier",
            ),
            "Growing": Refused(("one level of both networks after the other", "no levels", "ProgressiveGAN")),
        }.items()
        if (kind, name) not in (("grown", "AuxiliaryClassifier"), ("grown", "Growing"))
    },
    **{
        (kind, "PathLength"): Refused(
            ("between a mapping and a synthesis network", "not have", "a style-based generator")
        )
        for kind in ("images", "points")
    },
    **{
        (kind, name): refused
        for kind, networks in (("styles", "StyleGAN"), ("grown", "GrowingStyleGAN"))
        for name, refused in {
            "EqualizedLearningRate": Refused((f"{networks}Generator", "constants of their own", "leave it out")),
            "PixelNorm": Refused(("takes the place of the generator's normalization", "has none", "choose another")),
            "SelfAttention": Refused(
                ("at resolution 32", f"{networks}Generator have resolution 4, 8", "choose one of these"),
                "--model.parts+=SelfAttention --model.parts.resolution 4",
            ),
            "VirtualBatchNorm": Refused(("takes the place of batch normalization", "has none", "leave it out")),
        }.items()
    },
    ("grown", "Growing"): Refused(("Growing twice", "one plan", "leave it out of parts")),
    ("grown", "Packing"): Refused(("joins samples of several classes", "num_classes to 0", "leave Packing out")),
    **{
        ("grown", name): Refused(
            (f"{name} was to shift images of 4x4 by up to 4 pixels", "give fewer"),
            f"--model.penalties+={name} --model.penalties.shift 1",
        )
        for name in ("Consistency", "BalancedConsistency")
    },
    ("images", "SelfAttention"): Refused(
        ("at resolution 32", "DCGANGenerator have resolution 4", "choose one of these"),
        "--model.parts+=SelfAttention --model.parts.resolution 4",
    ),
    ("points", "SelfAttention"): Refused(("at resolution 32", "MLPGenerator have none that is an image", "choose")),
    ("points", "PixelNorm"): Refused(
        ("takes the place of the generator's normalization", "MLPGenerator has none", "choose another model"),
        "--model.generator_norm batch --model.parts+=PixelNorm",
    ),
    ("points", "VirtualBatchNorm"): Refused(
        ("takes the place of batch normalization", "the generator has none", "leave it out, or choose"),
        "--model.generator_norm batch --model.parts+=VirtualBatchNorm",
    ),
    **{
        ("points", name): Refused((f"{name} changes images", "(16, 2)", "use InstanceNoise"))
        for name in ("ADA", "DiffAugment")
    },
    **{
        ("points", name): Refused(
            (f"{name} shifts and flips images", "(2,)", "set shift to 0", "noise to"),
            f"--model.penalties+={name} --model.penalties.shift 0 --model.penalties.flip false "
            "--model.penalties.noise 0.05",
        )
        for name in ("Consistency", "BalancedConsistency")
    },
}

#: What is accepted with a warning: its words.
WARNED = {
    **{(kind, "WeightClipping"): ("Wasserstein critic", "NonSaturating", "set loss to Wasserstein") for kind in MODELS},
    **{
        (kind, "LatentOptimization"): ("clips latents", "normal", "set latents to Uniform")
        for kind in ("points", "styles", "grown")
    },
}

#: With its defaults, what trains two cycles as without it, and why.
LATER = {
    "NonSaturating": "it is the default",
    "Signals": "it only looks",
    "TopK": "it keeps all fakes at first",
    "ADA": "p starts at 0",
    "APA": "p starts at 0",
    "HistoricalAveraging": "it is zero in two turns",
    "PathLength": "its first turn only measures",
}


@cache
def command_line() -> FitCLI:
    """One parser for all tests, since to make it takes longest."""
    return FitCLI(arguments.read(shlex.split(MODELS["images"])))


def parsed(kind: str, options: str) -> FitCLI:
    """The model and the data that ``ganzoo fit`` would train."""
    cli = command_line()
    cli.request = arguments.read([*shlex.split(MODELS[kind]), *shlex.split(options)])
    cli.parse()
    torch.manual_seed(3)
    cli.build()
    cli.model.step_seconds = 0.0
    return cli


def trained(kind: str, options: str) -> GAN:
    """Two cycles of it, after which both networks have moved and are finite."""
    cli = parsed(kind, options)
    before = flat(cli.model.generator), flat(cli.model.discriminator)
    trainer = quiet_trainer(max_steps=2)
    trainer.fit(cli.model, datamodule=cli.datamodule)
    check(cli.model, before)
    return cli.model


def check(gan: GAN, before: tuple[torch.Tensor, ...]) -> None:
    assert gan.clock.g_turns == gan.clock.d_turns == 2
    assert gan.clock.images == 2 * 16
    for now, then in zip((flat(gan.generator), flat(gan.discriminator)), before, strict=True):
        assert now.isfinite().all()
        assert not torch.equal(now, then)


def check_sentence(text: str, words: tuple[str, ...]) -> None:
    """One sentence with these words in this order."""
    places = [text.find(word) for word in words]
    assert -1 not in places and places == sorted(places), f"{words} are not in: {text}"
    assert text.endswith(".") and "\n" not in text and ". " not in text


@cache
def plain(kind: str) -> torch.Tensor:
    gan = trained(kind, "")
    return torch.cat([flat(gan.generator), flat(gan.discriminator)])


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", TRICKS)
def test_one_option_adds_it(kind: str, name: str) -> None:
    if (kind, name) in REFUSED:
        with pytest.raises(UserError) as refused:
            trained(kind, TRICKS[name])
        check_sentence(str(refused.value), REFUSED[kind, name].words)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", module="ganzoo")
        gan = trained(kind, TRICKS[name])
    told = [str(warning.message) for warning in caught if "ganzoo" in warning.filename]
    assert len(told) == ((kind, name) in WARNED)
    assert all(word in told[0] for word in WARNED.get((kind, name), ()))
    assert name in {type(part).__name__ for part in (gan.loss, *gan.tricks)}
    networks = torch.cat([flat(gan.generator), flat(gan.discriminator)])
    same = networks.shape == plain(kind).shape and torch.equal(networks, plain(kind))
    assert same == (name in LATER)


def test_what_is_added_leaves_the_model_s_own_defaults() -> None:
    """With nothing else said of them, and where only the last one is changed."""

    def penalties(options: str) -> list[tuple[str, object]]:
        return [(type(p).__name__, p.weight) for p in parsed("styles", options).model.tricks if isinstance(p, Penalty)]

    own = [("R1", 10.0), ("PathLength", 2.0)]
    assert penalties("") == own
    assert penalties("--model.parts+=ADA") == own
    added = "--model.penalties+=R2 --model.penalties.gamma 3 --model.penalties+=Drift"
    assert penalties(added) == [*own, ("R2", 3.0), ("Drift", 0.001)]
    assert penalties("--model.penalties.weight 0.5") == [("R1", 10.0), ("PathLength", 0.5)]
    assert penalties("--model.penalties [] --model.penalties+=Drift") == [("Drift", 0.001)]


@pytest.mark.parametrize(("kind", "name"), [key for key, refused in REFUSED.items() if refused.instead])
def test_what_a_refusal_proposes_trains(kind: str, name: str) -> None:
    options = REFUSED[kind, name].instead
    assert options is not None
    gan = trained(kind, options)
    assert name in {type(part).__name__ for part in (gan.loss, *gan.tricks)}


@pytest.mark.filterwarnings("ignore:WeightClipping bounds")
@pytest.mark.parametrize("name", [name for name in TRICKS if ("images", name) not in REFUSED])
def test_mixed_precision_and_micro_batches(name: str) -> None:
    """In bf16-mixed, and of two micro-batches: finite, and both networks move."""
    cli = parsed("images", f"{TRICKS[name]} --model.accumulate 2")
    before = flat(cli.model.generator), flat(cli.model.discriminator)
    quiet_trainer(max_steps=2, precision="bf16-mixed").fit(cli.model, datamodule=cli.datamodule)
    check(cli.model, before)
