"""What a checkpoint holds, and that reading one runs no code."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
import torch

from ganzoo import checkpoint
from ganzoo.errors import UserError
from ganzoo.losses import Hinge
from ganzoo.models import MLPGAN
from ganzoo.plan import Clock
from tests.common import fit, normal_batches, quiet_trainer

STORED = Path(__file__).parent / "stored"


@pytest.fixture
def saved(tmp_path) -> tuple[MLPGAN, Path]:
    torch.manual_seed(0)
    gan = MLPGAN(hidden=4, loss=Hinge(0.5), total_kimg=0.032)
    trainer = fit(gan, normal_batches(8, 2))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    return gan, tmp_path / "a.ckpt"


def test_model_is_rebuilt_with_its_weights_and_its_clock(saved) -> None:
    gan, path = saved
    again = checkpoint.load_model(path)
    assert again.loss.margin == 0.5
    assert again.config() == gan.config()
    assert again.clock == gan.clock == Clock(32, 32, 4, 4, 4, 0, 32, 24)
    assert torch.equal(again.sample(9, seed=3), gan.sample(9, seed=3))
    assert torch.equal(again.sample(9, averaged=False), gan.sample(9, averaged=False))
    assert not again.training


def test_everything_is_plain_data_and_tensors(saved) -> None:
    content = torch.load(saved[1], weights_only=True)
    assert content["ganzoo"]["format"] == checkpoint.FORMAT
    assert content["ganzoo"]["model"]["class_path"] == "ganzoo.models.mlp.MLPGAN"


def test_run_directory_means_its_last_checkpoint(saved, tmp_path) -> None:
    gan, path = saved
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    path.rename(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert torch.equal(checkpoint.load_model(tmp_path / "run").sample(2), gan.sample(2))


class Hostile:
    def __reduce__(self):
        return os.system, ("touch planted",)


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"ganzoo": {"format": 1}, "state_dict": Hostile()}, "bad.ckpt")
    with pytest.raises(UserError, match="more than weights and plain data"):
        checkpoint.load_model("bad.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError):
        checkpoint.load_model("raw.ckpt")
    assert not Path("planted").exists()


def test_class_paths_in_a_checkpoint_import_no_strangers_module(saved, tmp_path, monkeypatch) -> None:
    (tmp_path / "planted_model.py").write_text("open('planted', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    content = torch.load(saved[1], weights_only=True)
    for path in ("planted_model.Model", "os.system", "subprocess.Popen"):
        content["ganzoo"]["model"] = {"class_path": path, "init_args": {"command": "touch planted"}}
        torch.save(content, "hostile.ckpt")
        with pytest.raises(UserError):
            checkpoint.load_model("hostile.ckpt")
        content["ganzoo"]["model"] = {
            "class_path": "ganzoo.models.mlp.MLPGAN",
            "init_args": {"loss": {"class_path": path, "init_args": {}}},
        }
        torch.save(content, "hostile.ckpt")
        with pytest.raises(UserError):
            checkpoint.load_model("hostile.ckpt")
    assert not Path("planted").exists()
    assert "planted_model" not in sys.modules


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: p.write_bytes(b"no checkpoint"), "damaged or is no checkpoint|more than weights"),
        (lambda p: p.write_bytes(b""), "damaged or is no checkpoint"),
        (lambda p: p.write_text("hello world\n"), "damaged or is no checkpoint|more than weights"),
        (lambda p: torch.save({"ganzoo": {"format": 1}}, p), "not whole"),
        (lambda p: torch.save({"ganzoo": {"format": 0}}, p), "not whole"),
        (lambda p: torch.save({"x": 1}, p), "no checkpoint of ganzoo"),
        (lambda p: torch.save({"ganzoo": {"format": 99, "version": "9.0"}}, p), "install a newer ganzoo"),
        (lambda p: p.with_suffix(".x").touch(), "does not exist"),
        (lambda p: p.mkdir(), "checkpoints/last.ckpt"),
    ],
)
def test_what_is_no_checkpoint_is_said_so(tmp_path, make, sentence) -> None:
    path = tmp_path / "c.ckpt"
    make(path)
    with pytest.raises(UserError, match=sentence):
        checkpoint.read(path)


def test_truncated_file_is_named(saved) -> None:
    path = saved[1]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"a\.ckpt is damaged"):
        checkpoint.read(path)


def test_a_flipped_bit_is_seen(saved) -> None:
    content = bytearray(saved[1].read_bytes())
    weights = saved[0].generator.layers[0].weight.detach().numpy().tobytes()
    content[content.find(weights)] ^= 1
    saved[1].write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.read(saved[1])


def test_stored_checkpoints_of_older_formats_still_load() -> None:
    """Each file was written by the ganzoo that had this format; its samples are stored beside the weights."""
    files = sorted(STORED.glob("format-*.ckpt"))
    assert [int(f.stem.split("-")[1]) for f in files] == list(range(1, checkpoint.FORMAT + 1))
    for file in files:
        gan = checkpoint.load_model(file)
        expected = torch.load(file.with_suffix(".samples.pt"), weights_only=True)
        assert torch.allclose(gan.sample(4, seed=5), expected, atol=1e-6)
        assert gan.clock.images == 32
        quiet_trainer(max_steps=6).fit(gan, normal_batches(8, 2), ckpt_path=file, weights_only=True)
        assert gan.clock.images == 32  # its total_kimg is reached, so nothing more is done
        gan.total_kimg = None
        trainer = quiet_trainer(max_steps=6)
        trainer.fit(gan, normal_batches(8, 2), ckpt_path=file, weights_only=True)
        assert gan.clock.images == 48


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("state_dict"),
        lambda content: content["state_dict"].popitem(),
        lambda content: content["ganzoo"].update(model="MLPGAN"),
        lambda content: content["ganzoo"]["model"]["init_args"].update(wings=2),
        lambda content: content["ganzoo"]["model"]["init_args"].update(hidden=5),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_said_so(saved, change) -> None:
    content = torch.load(saved[1], weights_only=True)
    change(content)
    torch.save(content, saved[1])
    with pytest.raises(UserError, match="does not fit this version of ganzoo, or is damaged"):
        checkpoint.load_model(saved[1])


def test_model_built_from_networks_can_be_resumed_but_not_rebuilt(tmp_path) -> None:
    from ganzoo.gan import GAN
    from tests.common import Critic

    def make() -> GAN:
        return GAN(MLPGAN(hidden=4).generator, Critic(2))

    trainer = fit(make(), normal_batches(8, 2), max_steps=2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="only be loaded by your own code"):
        checkpoint.load_model(tmp_path / "a.ckpt")
    again = make()
    quiet_trainer(max_steps=3).fit(again, normal_batches(8, 2), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert again.clock.g_turns == 3
