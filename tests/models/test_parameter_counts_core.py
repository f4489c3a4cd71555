"""Parameter counts of the RSSM at the papers' sizes: specs/dreamer.md F.5 and C.9, specs/planet.md 2.5."""

import pytest
import torch

from dreamgym.models.latents import CategoricalLatent
from dreamgym.models.rssm import RSSM, BlockGRUConfig, LayerNormGRUConfig, RSSMConfig


def count(config: RSSMConfig, *, embed_size: int, action_size: int) -> int:
    with torch.device("meta"):
        core = RSSM(config, embed_size=embed_size, action_size=action_size)
    return sum(parameter.numel() for parameter in core.parameters())


def v2(width: int) -> RSSMConfig:
    return RSSMConfig(latent=CategoricalLatent(32, 32), cell=LayerNormGRUConfig(), deter=width, hidden=width)


def v3(width: int) -> RSSMConfig:
    return RSSMConfig(
        latent=CategoricalLatent(32, width // 16, 0.01),
        cell=BlockGRUConfig(8),
        deter=8 * width,
        hidden=width,
        prior_layers=2,
        activation="silu",
        norm="rms",
    )


@pytest.mark.parametrize(("actions", "change"), [(6, 0), (1, -1000)])
def test_dreamer_v1(actions, change):
    assert count(RSSMConfig(), embed_size=1024, action_size=actions) == 557_920 + change


@pytest.mark.parametrize("actions", [1, 2, 6])
def test_planet_with_torchs_gru(actions):
    transition, gru, posterior, second_bias = 58_460 + 200 * actions, 240_600, 257_060, 600
    config = RSSMConfig(activation="relu")
    assert count(config, embed_size=1024, action_size=actions) == transition + gru + posterior + second_bias


def test_planet_without_a_memory_has_no_gru_and_reads_the_priors_statistics():
    prior = (30 + 6) * 200 + 200 + 200 * 60 + 60
    posterior = (60 + 1024) * 200 + 200 + 200 * 60 + 60
    assert count(RSSMConfig(activation="relu", path="stochastic"), embed_size=1024, action_size=6) == prior + posterior


def test_dreamer_v2_on_atari():
    assert count(v2(600), embed_size=1536, action_size=18) == 5_664_848


def test_dreamer_v2_on_dm_control_is_the_papers_total_less_the_other_parts():
    """Totals of F.5; the rest by its rules: Linear i*o + o, conv k*k*i*o + o."""
    vision = 13_656_772 - (1_551_312 + 9_886_611 + 971_601)  # encoder, decoder, reward
    proprio = 3_463_673 - (491_200 + 980_824 + 971_601)
    assert count(v2(200), embed_size=1536, action_size=6) == vision
    assert count(v2(200), embed_size=400, action_size=6) == proprio


def test_dreamer_v2_on_crafter_is_the_papers_total_less_the_other_parts():
    assert count(v2(1024), embed_size=1536, action_size=17) == 28_444_933 - (1_551_312 + 11_152_275 + 2 * 1_301_201)


@pytest.mark.parametrize(("embed_size", "expected"), [(4 * 4 * 4 * 4, 376_704), (64, 364_416)])
def test_dreamer_v3_size1m(embed_size, expected):
    assert count(v3(64), embed_size=embed_size, action_size=6) == expected


@pytest.mark.parametrize(
    ("width", "total"),
    [
        (64, 640_867),
        (256, 9_738_019),
        (384, 21_782_947),
        (512, 38_612_003),
        (768, 86_622_499),
        (1024, 153_769_507),
        (1536, 345_473_059),
    ],
)
def test_dreamer_v3_of_every_size_is_the_papers_proprio_total_less_the_other_parts(width, total):
    """24 observations, 6 actions. Every hidden layer has a bias and an RMS scale; heads read deter 8d and 32 d/16 classes."""

    def mlp(inputs: int, layers: int, outputs: int) -> int:
        first, following = (inputs + 2) * width, (width + 2) * width
        return first + (layers - 1) * following + (width * outputs + outputs if outputs else 0)

    features = 8 * width + 2 * width
    others = mlp(24, 3, 0) + mlp(features, 3, 24)  # encoder, decoder
    others += mlp(features, 1, 255) + mlp(features, 1, 1)  # reward, continue
    others += mlp(features, 3, 12) + mlp(features, 3, 255)  # actor, critic
    assert count(v3(width), embed_size=width, action_size=6) == total - others
