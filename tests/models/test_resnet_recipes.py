"""Recipes of the residual networks, and of what is compared with them: three cycles of the command on real data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from ganzoo.checkpoint import load_model
from ganzoo.cli import main
from tests.models.test_biggan import attention, discriminator_count
from tests.models.test_sngan import built, generator, num
from tests.mutants import kills
from tests.test_resume import same

ROOT = Path(__file__).parents[2]

RESNET = [f"--model.{name} 6" for name in ("generator_width", "discriminator_width")]
RESNET += [f"--model.{name} 12" for name in ("generator_max_width", "discriminator_max_width")]

NARROW = [f"--model.{name} 4" for name in ("generator_width", "discriminator_width")]
NARROW += [f"--model.{name} 8" for name in ("generator_max_width", "discriminator_max_width")]

#: Each recipe, and each with an overlay for larger images, with the options that make its networks narrow.
RECIPES: dict[str, list[str]] = {
    "wgan_gp": RESNET,
    "wgan_gp_studiogan": RESNET,
    "dragan": RESNET,
    "sngan": RESNET,
    "sngan_cond": RESNET,
    "sagan": RESNET,
    "sagan_studiogan": RESNET,
    "biggan": RESNET,
    "dcgan_cifar": ["--model.width 4"],
    "lsgan": ["--model.width 4"],
    "sngan sngan-64": NARROW,
    "sngan_cond sngan-128": NARROW,
    "wgan_gp sngan-64": NARROW,
    "sagan sagan-64": NARROW,
    "sagan sagan-128": NARROW,
    "biggan biggan-64": NARROW,
    "biggan biggan-128": [*NARROW, "--model.accumulate 2"],
}

#: Gains and biases of one class in all blocks of SAGAN for 128x128, and of one component in BigGAN's for 64x64.
NORMS_128 = 2 * (1024 + 1024 + 1024 + 512 + 512 + 256 + 256 + 128 + 128 + 64)
NORMS_BIGGAN_64 = 2 * (1536 + 1536 + 1536 + 768 + 768 + 384 + 384 + 192)
#: The overlay's table of channels: attention over 128 of them in the generator, 64 in the discriminator.
SAGAN_64 = (
    generator([1024, 512, 256, 128, 64], classes=10) + attention(128),
    discriminator_count([64, 128, 256, 512, 1024], 10, 4),
)

#: Saves what each process of a run has in the end.
KEEP = """
import torch
from ganzoo.parts import Part

class Keep(Part):
    '''Saves the state of each process after each turn.'''

    def __init__(self) -> None:
        super().__init__()

    def after_step(self, turn):
        torch.save(turn.gan.state_dict(), f"rank-{turn.gan.global_rank}.pt")
"""


@pytest.mark.parametrize(
    ("recipes", "counts"),
    [  # of test_sagan.py and test_biggan.py, which have the references; with ten classes instead of 1,000
        ("sagan.yaml", (4_386_308, 1_075_586)),
        ("sagan_studiogan.yaml", (4_386_308, 1_075_586)),
        ("biggan.yaml", (9_416_196, 2_415_170)),
        ("sagan.yaml sagan-64.yaml", SAGAN_64),  # nobody has published these: by hand from the overlay's table
        ("sagan_studiogan.yaml sagan-64.yaml", SAGAN_64),
        ("sagan.yaml sagan-128.yaml", (42_078_852 - 990 * NORMS_128, 39_463_618 - 990 * 1024)),
        (  # 20 latents less: 4 in each of 5 chunks, which enter the first layer and the gains and biases
            "biggan.yaml biggan-64.yaml",
            (70_377_348 - 990 * 128 - 4 * (16 * 1536 + NORMS_BIGGAN_64), 45_512_970 - 1000 - 990 * 1536),
        ),
        ("biggan.yaml biggan-128.yaml", (70_433_988 - 990 * 128, 87_982_370 - 990 * 1536)),
    ],
)
def test_parameters_of_the_recipes_with_attention(recipes: str, counts: tuple[int, int]) -> None:
    gan = built(*recipes.split())
    assert (num(gan.generator), num(gan.discriminator)) == counts


@cache
def config_of(recipe: str) -> dict:
    return built(recipe).config()


def check_overlay(base: str, overlay: Path) -> None:
    """The model stays, and all of its options but those that the overlay names, and the size of the images."""
    before, after = config_of(base), built(base, str(overlay)).config()
    assert after["class_path"] == before["class_path"]
    named = yaml.safe_load(overlay.read_text())["model"]["init_args"].keys() | {"image_size"}
    a, b = before["init_args"], after["init_args"]
    assert a.keys() == b.keys()
    assert {key for key in a if a[key] != b[key]} <= named <= a.keys()


@pytest.mark.parametrize(
    ("overlay", "bases"),
    [
        ("sngan-cpu", "sngan sngan_cond wgan_gp sagan"),
        ("sngan-64", "sngan sngan_cond wgan_gp"),
        ("sngan-128", "sngan sngan_cond wgan_gp"),
        ("sagan-64", "sagan sagan_studiogan"),
        ("sagan-128", "sagan"),
        ("biggan-64", "biggan"),
        ("biggan-128", "biggan"),
    ],
)
def test_an_overlay_changes_what_it_names(overlay: str, bases: str) -> None:
    path = ROOT / f"configs/{overlay}.yaml"
    head = path.read_text().partition("\nmodel:")[0]
    for base in bases.split():
        assert f"{base}.yaml" in head
        check_overlay(f"{base}.yaml", path)


def test_an_overlay_that_names_a_model_is_seen(tmp_path: Path) -> None:
    """It would make another model of a recipe, with that recipe's loss and penalties, and say nothing."""
    text = (ROOT / "configs/sngan-cpu.yaml").read_text()
    (tmp_path / "cpu.yaml").write_text(text.replace("model:\n", "model:\n  class_path: SNGAN\n"))
    check_overlay("sngan.yaml", tmp_path / "cpu.yaml")
    kills(lambda base: check_overlay(base, tmp_path / "cpu.yaml"), "wgan_gp.yaml")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of each class of cifar10-jpeg."""
    source = Path(os.environ.get("GANZOO_DATA", "nowhere")) / "cifar10-jpeg.tar.xz"
    if not source.is_file():
        pytest.skip("GANZOO_DATA names no folder with cifar10-jpeg.tar.xz")
    folder = tmp_path_factory.mktemp("pictures")
    with tarfile.open(source) as archive:
        for member in archive:
            path = Path(member.name)
            if member.isfile() and path.parent.parent.name == "test" and int(path.stem) < 3:
                target = folder / "train" / path.parent.name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.extractfile(member) as picture, open(target, "wb") as file:
                    shutil.copyfileobj(picture, file)
            elif path.parts[-2:-1] == ("train",) and list(folder.rglob("*.jpg")):
                break  # the test set comes first or last; what follows is not needed
    assert len(list(folder.rglob("*.jpg"))) == 30
    return folder


def arguments(name: str, pictures: Path, *more: str) -> list[str]:
    """The recipe at batch 4 on these pictures, as large as it says, three cycles."""
    options = ["--data ImageFolder", f"--data.path {pictures}", "--data.split train", "--data.batch_size 4"]
    options += ["--samples.num 4", "--trainer.max_steps 3", "--trainer.accelerator cpu", *RECIPES[name], *more]
    return ["fit", *(f"--config={one}.yaml" for one in name.split()), *" ".join(options).split()]


def content(run: str) -> dict:
    return torch.load(Path(run) / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    "name",
    [name if name in ("sngan_cond", "lsgan") else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES],
)
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(name, pictures, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments(name, pictures), "--run_dir", "whole"]) == 0
    assert main([*arguments(name, pictures), "--run_dir", "parts", "--trainer.max_steps", "1"]) == 0
    first = content("parts")["state_dict"]
    assert main(["fit", "--resume", "parts", "--trainer.max_steps", "3"]) == 0
    whole, parts = content("whole"), content("parts")
    clock = whole["ganzoo"]["clock"]
    assert clock["g_turns"] == clock["cycles"] == 3
    assert clock["images"] == 4 * clock["d_turns"] > 0
    for key in ("state_dict", "optimizer_states", "ganzoo"):
        same({k: v for k, v in whole[key].items() if k != "config"} if key == "ganzoo" else whole[key], parts[key])
    moved = [k for k, v in whole["state_dict"].items() if v.is_floating_point() and not torch.equal(v, first[k])]
    assert {k.partition(".")[0] for k in moved} >= {"generator", "discriminator"}
    assert all(v.isfinite().all() for v in whole["state_dict"].values() if v.is_floating_point())


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_mixed_precision(name, pictures, tmp_path, monkeypatch) -> None:
    """It trains in bfloat16, keeps weights in single precision, and is not the run in single precision."""
    monkeypatch.chdir(tmp_path)
    states = []
    for precision in ("32-true", "bf16-mixed"):
        assert main([*arguments(name, pictures, f"--trainer.precision {precision}"), "--run_dir", precision]) == 0
        states.append(content(precision)["state_dict"])
    for network in ("generator", "discriminator"):
        single, half = (
            torch.cat([v.flatten() for k, v in state.items() if k.startswith(f"{network}.") and v.dim() > 1])
            for state in states
        )
        assert half.dtype == torch.float32
        assert half.isfinite().all()
        assert 0 < (single - half).norm() < 0.2 * single.norm()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RECIPES if not name.endswith("-128")])
def test_two_processes(name, pictures, tmp_path, monkeypatch) -> None:
    """Both have the same in the end, and it can be sampled; with batch normalization it is not what one would have."""
    (tmp_path / "keep.py").write_text(KEEP)
    more = ["--config", "ddp.yaml", "--trainer.devices", "2", "--model.parts+=keep.Keep", "--import", "keep"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ganzoo", *arguments(name, pictures), *more, "--run_dir", "run"]
    command += ["--trainer.accelerator", "cpu"]  # behind the overlay's
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    same(first, second)
    saved = content(str(tmp_path / "run"))["state_dict"]
    statistics = [k for k in saved if "running" in k and not k.startswith("generator_ema.")]  # that moves afterwards
    same({k: saved[k] for k in statistics}, {k: first[k] for k in statistics})
    monkeypatch.syspath_prepend(tmp_path)
    samples = load_model(tmp_path / "run", ["keep"]).sample(2)
    assert samples.isfinite().all()
    assert samples.abs().max() <= 1
