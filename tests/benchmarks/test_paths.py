"""Path lengths of a generator whose Jacobian is known: y projected onto 8 orthonormal directions is a chi variable."""

from __future__ import annotations

import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks.scores import paths
from ganzoo.latents import Normal

CHI = math.sqrt(2) * math.gamma(4.5) / math.gamma(4)  # mean of the length of 8 standard normal numbers


class Scaled:
    """16 x 16 pixels of one channel, along 8 orthonormal directions."""

    latent_dim = 8

    def __init__(self, scale: float) -> None:
        torch.manual_seed(0)
        self.scale, self.directions = scale, torch.linalg.qr(torch.randn(256, 8)).Q

    def mapping(self, latents, labels):
        return latents

    def synthesis(self, w):
        return self.scale * (w @ self.directions.T).view(-1, 1, 16, 16)


def model(scale: float) -> SimpleNamespace:
    return SimpleNamespace(generator=Scaled(scale), latents=Normal(), num_classes=0, device=torch.device("cpu"))


def test_lengths_of_a_known_jacobian() -> None:
    """|A^T y| = s |chi_8| / sqrt(H W), of which 2,000 draws are seen; the standard deviation is sqrt(8 - mean^2)."""
    found = paths.path_lengths(model(16.0), 2000)
    deviation = math.sqrt(8 - CHI**2)
    assert found.shape == (2000,)
    assert float(found.mean()) == pytest.approx(CHI, abs=4 * deviation / math.sqrt(2000))
    assert float(found.std()) == pytest.approx(deviation, rel=4 / math.sqrt(4000))
    assert torch.equal(found[:100], paths.path_lengths(model(16.0), 100))  # sample i depends on its number alone


def test_the_record_of_two_runs(tmp_path, monkeypatch, capsys) -> None:
    """Checkpoints in the order of their images; last.ckpt, which is one of them again, is left out."""
    for run in ("on", "off"):
        (tmp_path / run / "checkpoints").mkdir(parents=True)
        for name in ("kimg-000020.000", "kimg-000010.000", "last"):
            (tmp_path / run / "checkpoints" / f"{name}.ckpt").touch()
    scale = {"on": {10: 4.0, 20: 2.0}, "off": {10: 4.0, 20: 8.0}}
    monkeypatch.setattr(
        paths, "load_model", lambda path: model(scale[path.parts[-3]][int(float(path.stem.removeprefix("kimg-")))])
    )
    out = tmp_path / "out.json"
    arguments = [str(tmp_path / "on"), str(tmp_path / "off"), "--num", "50", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["paths", *arguments, "--png", str(tmp_path / "out.png")])
    paths.main()
    length, spread = json.loads(out.read_text())["comparisons"]
    on, off = length["courses"]
    assert on["kimg"] == off["kimg"] == [10, 20]
    assert on["values"][0] == pytest.approx(2 * on["values"][1]) and off["values"][0] == on["values"][0]
    assert off["values"][1] == pytest.approx(4 * on["values"][1])
    assert len({round(value, 6) for course in spread["courses"] for value in course["values"]}) == 1
    assert "path length" in capsys.readouterr().out
    assert (tmp_path / "out.png").stat().st_size > 1000
