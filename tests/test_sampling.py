"""Sample i depends on (seed, i) alone."""

import pytest
import torch
from torch import nn

from ganzoo import sampling, streams
from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.latents import Normal, Uniform
from ganzoo.models import DCGAN, MLPGAN
from tests.common import fit, normal_batches


@pytest.fixture(scope="module")
def gan() -> DCGAN:
    torch.manual_seed(0)
    gan = DCGAN(8, 1, width=4, num_classes=0)
    fit(gan, normal_batches(16, 1, 8, 8), max_steps=5)  # moves the running statistics
    return gan.train()


def test_batch_size_and_place_do_not_matter(gan) -> None:
    whole = gan.sample(20, seed=3, batch_size=20)
    assert torch.allclose(gan.sample(20, seed=3, batch_size=7), whole, atol=1e-6)
    assert torch.allclose(gan.sample(5, seed=3, first=9), whole[9:14], atol=1e-6)
    latents = [gan.latents.numbered(range(a, b), 100, 3) for a, b in ((0, 20), (9, 14))]
    assert torch.equal(latents[0][9:14], latents[1])


def test_samples_and_seeds_differ(gan) -> None:
    samples = gan.sample(50, seed=3).flatten(1)
    assert len(torch.unique(samples, dim=0)) == 50
    assert not torch.equal(gan.sample(1, seed=3), gan.sample(1, seed=4))


def test_running_statistics_are_used_and_nothing_of_the_model_moves(gan) -> None:
    before = {k: v.clone() for k, v in gan.state_dict().items()}
    state = torch.get_rng_state()
    one = gan.sample(1, averaged=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in gan.state_dict().items())
    assert gan.generator.training
    gan.generator.eval()
    by_hand = gan.generator(gan.latents.numbered(range(1), 100, 0))
    gan.generator.train()
    assert torch.allclose(one, by_hand, atol=1e-6)


def test_modules_that_were_in_evaluation_mode_stay_so() -> None:
    gan = DCGAN(8, 1, width=4, ema=None)
    frozen = gan.generator.layers[1].eval()
    gan.sample(1)
    assert not frozen.training
    assert gan.generator.layers[0].training


def test_averaged_weights_are_the_default(gan) -> None:
    gan.generator_ema.layers[-2].bias.data.fill_(9.0)
    assert gan.sample(2).min() > 0.99
    assert gan.sample(2, averaged=False).min() < 0.99


def test_labels_follow_the_seed_and_are_uniform() -> None:
    from ganzoo.sampling import choose_labels

    labels = choose_labels(4, 4000, seed=1, labels=None, first=0)
    assert torch.equal(labels[10:], choose_labels(4, 3990, seed=1, labels=None, first=10))
    assert (labels.bincount(minlength=4) / 4000 - 0.25).abs().max() < 0.03


@pytest.mark.parametrize(("classes", "labels"), [(0, [1]), (3, [3]), (3, [0, 1]), (3, [-1])])
def test_impossible_labels_are_refused(classes, labels) -> None:
    with pytest.raises(UserError, match=r"[Ll]abels"):
        DCGAN(8, 1, width=4, num_classes=classes).sample(1, labels=labels)


def test_no_samples_are_refused() -> None:
    with pytest.raises(UserError, match="both must be 1 or more"):
        DCGAN(8, 1, width=4).sample(0)


# ------------------------------------------------------------------ truncation, and what generators draw themselves


def test_truncated_latents_are_of_the_truncated_normal_distribution() -> None:
    """Against the density's own moments: by quadrature of exp(-z^2 / 2) on [-t, t]."""
    latents = Normal().numbered(range(4000), 50, 0)
    for threshold in (0.1, 0.5, 2.0):
        cut = Normal().truncated(latents, threshold)
        z = torch.linspace(-threshold, threshold, 100_001, dtype=torch.float64)
        density = torch.exp(-z.square() / 2)
        variance = float((z.square() * density).sum() / density.sum())
        assert cut.abs().max() <= threshold
        assert float(cut.double().square().mean()) == pytest.approx(variance, rel=0.01)  # 200,000 draws: 0.2 to 0.4 %
        quarter = (z[density.cumsum(0) / density.sum() <= 0.25]).max()
        assert float(cut.quantile(0.25) if cut.numel() < 1e5 else cut.flatten()[:100_000].quantile(0.25)) == (
            pytest.approx(float(quarter), abs=0.02 * threshold)
        )


def test_truncation_keeps_the_order_and_a_wide_one_changes_nothing() -> None:
    latents = Normal().numbered(range(50), 20, 1)
    row = latents.flatten().sort().values
    assert (Normal().truncated(row, 0.7).diff() > 0).all()
    assert torch.allclose(Normal().truncated(latents, 8.0), latents, atol=1e-5)


def test_truncated_samples_come_from_truncated_latents() -> None:
    gan = MLPGAN((2,), latent_dim=3, hidden=8, ema=None)
    latents = gan.latents.truncated(gan.latents.numbered(range(6), 3, 5), 0.5)
    assert torch.allclose(gan.sample(6, seed=5, truncation=0.5), gan.eval().generator(latents), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda: DCGAN(8, 1, width=4), {"truncation": 0.5}, "Uniform latents have no tails"),
        (lambda: MLPGAN(), {"truncation": 0.0}, "a threshold of latents is above 0"),
        (lambda: MLPGAN(), {"truncation": 0.5, "cutoff": 2}, "has no styles that differ between layers"),
    ],
)
def test_what_cannot_be_truncated_is_refused(make, options, words) -> None:
    gan = make()
    gan.generator_ema.train()
    with pytest.raises(UserError, match=words):
        gan.sample(2, **options)
    assert all(module.training for module in gan.generator_ema.modules())  # a refusal leaves no trace


class Noisy(Generator):
    """Adds noise to each sample, as layers of style generators do."""

    latent_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.full((2,), 7.0))

    def forward(self, latents, labels=None):
        noise = streams.randn(len(latents), 2, purpose="noise", device=latents.device)
        return latents[:, :2] + noise

    def truncated(self, latents, labels, psi, cutoff):
        return torch.lerp(self.mean, self(latents), psi)


def test_noise_inside_the_generator_belongs_to_the_sample() -> None:
    gan = GAN(Noisy(), nn.Linear(2, 1), ema=None)
    whole = gan.sample(9, seed=3, batch_size=9)
    assert torch.equal(gan.sample(9, seed=3, batch_size=2), whole)
    assert torch.equal(gan.sample(2, seed=3, first=5), whole[5:7])
    noise = whole - gan.latents.numbered(range(9), 3, 3)[:, :2]
    assert len(torch.unique(noise.round(decimals=4), dim=0)) == 9
    assert not torch.equal(gan.sample(9, seed=4), whole)


def test_a_draw_that_samples_would_share_is_refused() -> None:
    with (
        streams.numbered(range(4), 0, device=torch.device("cpu")),
        pytest.raises(UserError, match="3 rows of 'all' were drawn for 4 samples"),
    ):
        streams.rand(3, purpose="all")


def test_draws_between_two_batches_are_not_of_the_samples() -> None:
    """Whoever takes batch after batch draws what he would have drawn without."""
    gan = GAN(Noisy(), nn.Linear(2, 1), ema=None)
    torch.manual_seed(0)
    expected = torch.cat([torch.randn(1, 3), torch.randn(1, 3)])
    torch.manual_seed(0)
    batches = sampling.batches(gan, gan.generator, range(4), None, seed=0, batch_size=2)
    assert torch.equal(torch.cat([streams.randn(1, 3, purpose="other") for _ in batches]), expected)


def test_a_generator_with_styles_truncates_them_itself() -> None:
    gan = GAN(Noisy(), nn.Linear(2, 1), latents=Uniform(), ema=None)
    whole = gan.sample(4)
    assert torch.allclose(gan.sample(4, truncation=0.25), 7.0 + 0.25 * (whole - 7.0))
    assert torch.equal(gan.sample(4, truncation=1.0), whole)


def test_fixed_noise_is_that_of_the_first_sample() -> None:
    gan = GAN(Noisy(), nn.Linear(2, 1), ema=None)
    own, fixed = gan.sample(5, seed=3), gan.sample(5, seed=3, fixed_noise=True, batch_size=2)
    latents = gan.latents.numbered(range(5), 3, 3)[:, :2]
    noise = own[0] - latents[0]
    assert torch.allclose(fixed, latents + noise, atol=1e-6)
    assert torch.equal(gan.sample(3, seed=3, first=2, fixed_noise=True)[0], own[2])
    with pytest.raises(UserError, match="the generator of MLPGAN draws none beside its latents"):
        MLPGAN().sample(2, fixed_noise=True)
