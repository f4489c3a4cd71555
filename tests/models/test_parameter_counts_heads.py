"""Parameter counts of specs/dreamer.md C.9 and F.5 and planet.md 2.5, from shapes alone: nothing is allocated.

Parts that other modules own (RSSM, actor, critic) are counted here by the rules of F.5, so that the published totals can be met.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from dreamgym.models.dreamer_heads import DreamerHeads, DreamerHeadsConfig
from dreamgym.models.observations import ObservationDecoderConfig, ObservationEncoder, ObservationEncoderConfig
from dreamgym.nn.convolutions import ConvConfig
from dreamgym.nn.networks import MLPConfig, build_mlp
from dreamgym.structs import Spec

RGB = spaces.Box(0, 255, (64, 64, 3), np.uint8)
GREY = spaces.Box(0, 255, (64, 64, 1), np.uint8)


def vector(size: int) -> spaces.Box:
    return spaces.Box(-1.0, 1.0, (size,), np.float32)


def count(network: nn.Module | None) -> int:
    return 0 if network is None else sum(parameter.numel() for parameter in network.parameters())


def parts(space: spaces.Box, encoder: ObservationEncoderConfig, heads: DreamerHeadsConfig, stoch: int, deter: int) -> dict[str, int]:
    """Counts of the modules under test, and the embedding's width."""
    spec = Spec("Shapes-v0", space, spaces.Discrete(2), max_episode_steps=50)
    with torch.device("meta"):
        reads = ObservationEncoder(spec, encoder)
        says = DreamerHeads(heads, spec, stoch, deter, scaling=reads.scaling, embed_size=reads.embed_size)
    nets = {"encoder": reads, "decoder": says.decoder, "reward": says.reward_net, "continue": says.continue_net}
    return {"embed": reads.embed_size} | {name: count(net) for name, net in nets.items()}


def mlp(inputs: int, outputs: int, config: MLPConfig) -> int:
    with torch.device("meta"):
        return count(build_mlp(inputs, outputs, config))


# ---- PlaNet and Dreamer V1 ---------------------------------------------------------------------------------------------


def test_dreamer_v1_parts_and_totals():
    found = parts(RGB, ObservationEncoderConfig(), DreamerHeadsConfig(continue_head=MLPConfig(3, 400)), 30, 200)
    assert found == {"embed": 1024, "encoder": 690_144, "decoder": 3_795_555, "reward": 253_201, "continue": 413_601}
    rssm = 557_920
    assert found["encoder"] + found["decoder"] + found["reward"] + rssm == 5_296_820
    assert mlp(230, 12, MLPConfig(4, 400)) == 578_412
    assert mlp(230, 1, MLPConfig(3, 400)) == 413_601


def test_planet_parts_and_totals():
    heads = DreamerHeadsConfig(reward=MLPConfig(3, 300, "relu"))
    found = parts(RGB, ObservationEncoderConfig(bits=5), heads, 30, 200)
    assert found["reward"] == 250_201
    rssm = 58_460 + 200 * 1 + 240_600 + 257_060
    assert model_total(found, rssm) == 5_292_220
    assert mlp(230, 1, MLPConfig(2, 200, "relu")) == 86_601


# ---- Dreamer V2 --------------------------------------------------------------------------------------------------------

V2_CONV = ConvConfig("valid", depth=48, activation="elu")
V2_MLP = MLPConfig(4, 400)


def v2_parts(space: spaces.Box, deter: int, *, ends: bool) -> dict[str, int]:
    heads = DreamerHeadsConfig(ObservationDecoderConfig(V2_CONV, V2_MLP), V2_MLP, continue_head=V2_MLP if ends else None)
    return parts(space, ObservationEncoderConfig(V2_CONV, V2_MLP), heads, 1024, deter)


def v2_rssm(deter: int, actions: int, embed: int) -> int:
    h = deter
    gru = 2 * h * 3 * h + 3 * h + 6 * h
    logits = h * 1024 + 1024
    return (1024 + actions) * h + h + gru + h * h + h + logits + (h + embed) * h + h + logits


def model_total(found: dict[str, int], rssm: int) -> int:
    return sum(found.values()) - found["embed"] + rssm


def test_dreamer_v2_atari_parts_and_totals():
    found = v2_parts(GREY, 600, ends=True)
    assert found == {"embed": 1536, "encoder": 1_549_776, "decoder": 10_497_553, "reward": 1_131_601, "continue": 1_131_601}
    assert v2_rssm(600, 18, 1536) == 5_664_848
    assert model_total(found, v2_rssm(600, 18, 1536)) == 19_975_379
    assert mlp(1624, 18, V2_MLP) == 1_138_418


def test_dreamer_v2_dmc_totals():
    vision = v2_parts(RGB, 200, ends=False)
    assert model_total(vision, v2_rssm(200, 6, vision["embed"])) == 13_656_772
    proprio = v2_parts(vector(24), 200, ends=False)
    assert model_total(proprio, v2_rssm(200, 6, proprio["embed"])) == 3_463_673
    assert mlp(1224, 12, V2_MLP) == 976_012
    assert mlp(1224, 1, V2_MLP) == 971_601


def test_dreamer_v2_crafter_total_without_the_norms_of_its_mlps_and_convolutions():
    found = v2_parts(RGB, 1024, ends=True)
    assert model_total(found, v2_rssm(1024, 17, found["embed"])) == 28_444_933


def test_several_vectors_of_a_dict_cost_what_one_of_their_size_costs():
    several = spaces.Dict(position=vector(14), speed=vector(9), height=vector(1))
    assert v2_parts(several, 200, ends=False) == v2_parts(vector(24), 200, ends=False)  # type: ignore[arg-type]


# ---- Dreamer V3 --------------------------------------------------------------------------------------------------------

SIZES = {"1m": 64, "12m": 256, "25m": 384, "50m": 512, "100m": 768, "200m": 1024, "400m": 1536}
ATARI = spaces.Box(0, 255, (96, 96, 1), np.uint8)
COLUMNS = {  # observation space, outputs of the actor, width of a model action
    "vision": (RGB, 12, 6),
    "proprio": (vector(24), 12, 6),
    "cartpole": (vector(4), 2, 2),
    "crafter": (RGB, 17, 17),
    "atari": (ATARI, 18, 18),
}
TOTALS = {
    "1m": (686_846, 640_867, 637_381, 687_875, 769_762),
    "12m": (10_494_158, 9_738_019, 9_724_165, 10_498_259, 11_808_850),
    "25m": (23_489_326, 21_782_947, 21_762_181, 23_495_475, 26_444_402),
    "50m": (41_650_062, 38_612_003, 38_584_325, 41_658_259, 46_900_882),
    "100m": (93_468_238, 86_622_499, 86_580_997, 93_480_531, 105_276_626),
    "200m": (165_948_686, 153_769_507, 153_714_181, 165_965_075, 186_936_082),
    "400m": (372_896_398, 345_473_059, 345_390_085, 372_920_979, 420_106_130),
}


def v3_mlp(d: int, layers: int) -> MLPConfig:
    return MLPConfig(layers, d, "silu", "rms")


def v3_parts(space: spaces.Box, d: int) -> dict[str, int]:
    conv = ConvConfig("pooled", d // 16, "silu", "rms")
    decoder = ObservationDecoderConfig(conv, v3_mlp(d, 3), "squared")
    heads = DreamerHeadsConfig(decoder, v3_mlp(d, 1), "two-hot", continue_head=v3_mlp(d, 1))
    return parts(space, ObservationEncoderConfig(conv, v3_mlp(d, 3), symlog=True), heads, 2 * d, 8 * d)


def v3_rssm(d: int, actions: int, embed: int) -> int:
    D, S = 8 * d, 2 * d
    inputs = sum(width * d + 2 * d for width in (D, S, actions))
    block_gru = (D + 24 * d) * D // 8 + 2 * D + D * 3 * D // 8 + 3 * D
    logits = d * S + S
    prior = D * d + 2 * d + d * d + 2 * d + logits
    return inputs + block_gru + prior + (D + embed) * d + 2 * d + logits


def test_dreamer_v3_parts_of_the_smallest_size():
    vision, proprio = v3_parts(RGB, 64), v3_parts(vector(24), 64)
    assert vision == {"embed": 256, "encoder": 14_304, "decoder": 80_595, "reward": 57_663, "continue": 41_153}
    assert (proprio["encoder"], proprio["decoder"]) == (10_112, 51_096)
    assert (v3_rssm(64, 6, 256), v3_rssm(64, 6, 64)) == (376_704, 364_416)
    assert (mlp(640, 12, v3_mlp(64, 3)), mlp(640, 255, v3_mlp(64, 3))) == (50_316, 66_111)


@pytest.mark.parametrize("size", SIZES)
def test_dreamer_v3_totals(size):
    d = SIZES[size]
    found = []
    for space, actor_outputs, actions in COLUMNS.values():
        model = v3_parts(space, d)
        agent = mlp(10 * d, actor_outputs, v3_mlp(d, 3)) + mlp(10 * d, 255, v3_mlp(d, 3))
        found.append(model_total(model, v3_rssm(d, actions, model["embed"])) + agent)
    assert tuple(found) == TOTALS[size]
