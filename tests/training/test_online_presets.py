"""The papers' presets by name, in the worlds a user brings: they run, what they leave can be loaded, and their sizes are the papers'."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import nn

import dreamgym
from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.critics import SlowAverage, SlowCopy
from dreamgym.agents.returns import PercentileScale
from dreamgym.data.collectors import StickyRandom
from dreamgym.envs.make import make_from_spec
from dreamgym.formats.codec import decode, encode
from dreamgym.models.world_model import WorldModel
from dreamgym.nn.policies import BoundedNormalConfig, TanhNormalConfig, TruncatedNormalConfig
from dreamgym.structs import Spec
from dreamgym.training import loop, online
from dreamgym.training.loop import Run
from dreamgym.training.online_config import OptimiserConfig
from dreamgym.training.online_presets import ONLINE_PRESETS, online_preset
from tests.training.dict_world import ENV_ID as GARDEN
from tests.training.dict_world import STEPS
from tests.training.tiny import shrink

CARTPOLE, WALKER = "dm_control/cartpole-swingup", "dm_control/walker-walk"
PONG, CAR = "ALE/Pong-v5", "CarRacing-v3"
NEEDS = {"dm_control/": "dm_control", "ALE/": "ale_py", CAR: "Box2D"}

# The world, the preset, and frames until an episode is cut off: 20 agent steps or so.
RUNS = [
    (f"{CARTPOLE}-v0", "planet", 160),
    (f"{CARTPOLE}-v0", "dreamer-v2", 80),
    (f"{CARTPOLE}-dict-v0", "dreamer-v1", 80),
    (PONG, "dreamer-v2", 100),
    (CAR, "dreamer-v1", 60),
    (CAR, "dreamer-v3", 60),
    ("CartPole-v1", "dreamer-v1", 20),
    ("CartPole-v1", "dreamer-v3", 20),
    ("Pendulum-v1", "dreamer-v2", 20),
    (GARDEN, "planet", STEPS),
    (GARDEN, "dreamer-v2", STEPS),
    (GARDEN, "dreamer-v3", STEPS),
]


@dataclass(frozen=True)
class Left:
    """What a run returned and left behind, opened again."""

    run: Run
    model: WorldModel
    agent: Any


def _needs(env_id: str) -> None:
    for prefix, package in NEEDS.items():
        if env_id.startswith(prefix):
            pytest.importorskip(package)


@pytest.fixture(scope="module", params=RUNS, ids=lambda run: f"{run[0]}-{run[1]}")
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A tiny preset's run by name, with a budget of four episodes."""
    env_id, preset, frames = request.param
    _needs(env_id)
    folder = tmp_path_factory.mktemp("run") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "online_preset", lambda name, spec, size: shrink(online_preset(name, spec, size), spec))
        patch.setattr(online, "_LOG_EVERY", 1)
        run = dreamgym.fit(env_id, preset, size="tiny", out=folder, progress=False, env_kwargs={"max_episode_steps": frames})
    model = WorldModel.from_pretrained(folder / "model")
    return Left(run, model, dreamgym.load_agent(folder / "agent", model))


def test_it_learns_and_every_number_it_logs_is_finite(left):
    assert left.run.metrics["updates"] >= 4 and left.run.metrics["episodes"] >= 4
    lines = [json.loads(line) for line in (left.run.folder / "metrics.jsonl").read_text().splitlines()]
    assert {"prefill", "explore", "learn", "evaluation"} <= {line["stage"] for line in lines}
    for line in lines:
        assert all(np.isfinite(value) for value in line.values() if isinstance(value, (int, float))), line
    assert all(np.isfinite(left.run.metrics["uncertainty"]))


def test_what_is_loaded_is_what_was_trained(left):
    kept = [(left.run.model, left.model)]
    if isinstance(left.agent, nn.Module):
        kept.append((left.run.agent, left.agent))
    for trained, loaded in kept:
        trained_weights, loaded_weights = trained.state_dict(), loaded.state_dict()
        assert trained_weights.keys() == loaded_weights.keys()
        assert all(torch.equal(trained_weights[name], loaded_weights[name]) for name in trained_weights)
    assert left.agent.config == left.run.agent.config and left.model.config == left.run.model.config
    assert left.model.spec == left.run.model.spec


def test_the_loaded_agent_acts_in_the_real_world(left):
    """From the model's spec alone, as a stranger who downloads both would."""
    env = make_from_spec(left.model.spec)
    policy = dreamgym.BeliefPolicy(left.agent, left.model)
    obs, _ = env.reset(seed=0)
    assert obs in left.model.spec.observation_space
    for step in range(5):
        action, _ = policy.predict(obs, episode_start=np.array([step == 0]), deterministic=True)
        assert action in env.action_space
        obs, reward, terminated, truncated, _ = env.step(action)
        assert obs in left.model.spec.observation_space and np.isfinite(reward) and not terminated and not truncated
    env.close()


def test_the_loaded_agent_acts_in_the_dream(left):
    reads_features = hasattr(left.agent, "predict")
    policy = left.agent if reads_features else dreamgym.BeliefPolicy(left.agent, left.model)
    env = gym.make("dreamgym/Dream-v0", model=left.run.folder / "model", obs_type="latent" if reads_features else None)
    obs, _ = env.reset(seed=0)
    for step in range(5):
        action, _ = policy.predict(obs, episode_start=np.array([step == 0]), deterministic=True)
        assert action in env.action_space
        obs, reward, terminated, truncated, info = env.step(action)
        assert obs in env.observation_space and np.isfinite(reward) and 0.0 <= info["continue_prob"] <= 1.0
        if terminated or truncated:
            obs, _ = env.reset()
    env.close()


def test_a_dream_of_the_model_is_an_env_without_fault(left):
    env = gym.make("dreamgym/Dream-v0", model=left.run.folder / "model", render_mode="rgb_array" if left.model.spec.image_names else None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(Box observation|Box action|infinity).*")  # the real world's spaces are so
        check_env(env.unwrapped, skip_render_check=not left.model.spec.image_names)
    assert env.observation_space == left.model.spec.observation_space and env.action_space == left.model.spec.action_space
    env.close()


def test_a_finished_run_is_loaded_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "online_preset", lambda name, spec, size: shrink(online_preset(name, spec, size), spec))
    options: dict[str, Any] = {"out": tmp_path / "out", "progress": False, "env_kwargs": {"max_episode_steps": 20}}
    first = dreamgym.fit("Pendulum-v1", "dreamer-v1", **options)
    again = dreamgym.fit("Pendulum-v1", "dreamer-v1", **options)
    assert again.metrics == first.metrics
    pairs = zip(first.agent.state_dict().values(), again.agent.state_dict().values(), strict=True)
    assert all(torch.equal(mine, its) for mine, its in pairs)


@pytest.mark.parametrize("preset", ["planet", "dreamer-v3"])
def test_a_dict_worlds_stored_replay_is_learned_from_without_the_world(preset, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "online_preset", lambda name, spec, size: shrink(online_preset(name, spec, size), spec))
    spec, _ = _world(GARDEN, preset, "tiny")
    env = make_from_spec(spec)
    replay = dreamgym.Replay(spec)
    dreamgym.collect(env, StickyRandom(spec.action_space), replay, episodes=5, seed=0)
    env.close()
    run = dreamgym.fit(replay, preset, out=tmp_path / "run", progress=False)
    model = WorldModel.from_pretrained(tmp_path / "run" / "model")
    assert run.metrics["env_steps"] == 0 and run.metrics["updates"] > 0
    assert model.spec == spec and dreamgym.load_agent(tmp_path / "run" / "agent", model) is not None


# ---- what a world asks of a preset ----------------------------------------------------------------------------------------------


def _world(env_id: str, preset: str, size: str = "paper", **kwargs: Any) -> tuple[Spec, Any]:
    """The spec and preset that fit would use."""
    _needs(env_id)
    env, spec, chosen = loop._make_world(env_id, None, kwargs, lambda spec: online_preset(preset, spec, size))  # type: ignore[arg-type]
    env.close()
    return spec, chosen


@pytest.mark.parametrize("preset", ONLINE_PRESETS)
def test_pictures_no_convolution_reads_are_resized_to_64(preset):
    spec, _ = _world(GARDEN, preset, "tiny")
    assert spec.preprocess.size == 64 and spec.observation_space["camera"].shape == (64, 64, 3)
    assert spec.observation_space["body"].shape == (2,) and spec.observation_space["side"].start == 1


def test_pictures_that_fit_and_vectors_are_left_alone():
    assert _world(f"{CARTPOLE}-pixels-v0", "dreamer-v2")[0].preprocess.size is None
    assert _world("CartPole-v1", "dreamer-v2")[0].preprocess.size is None


@pytest.mark.parametrize("size", ["tiny", "paper"])
@pytest.mark.parametrize("preset", ONLINE_PRESETS)
def test_episodes_that_may_end_ask_for_a_continue_head(preset, size):
    """Only DeepMind Control's never do; V3 has the head everywhere (specs/dreamer.md A.4, B.6, C.4)."""
    heads = {env_id: _world(env_id, preset, size)[1].model.heads for env_id in ("CartPole-v1", f"{CARTPOLE}-v0")}
    assert heads["CartPole-v1"].continue_head is not None
    assert (heads[f"{CARTPOLE}-v0"].continue_head is None) == (preset != "dreamer-v3")


@pytest.mark.parametrize("size", ["tiny", "paper"])
@pytest.mark.parametrize("preset", ONLINE_PRESETS)
def test_gamma_in_the_continue_target_is_the_agents_own(preset, size):
    """Else it would count twice, or never (specs/dreamer.md E.2)."""
    for env_id in ("CartPole-v1", GARDEN):
        chosen = _world(env_id, preset, size)[1]
        if isinstance(chosen.agent, ActorCriticConfig):
            assert chosen.model.heads.discount_in_target == chosen.agent.discount


@pytest.mark.parametrize("size", ["tiny", "paper"])
@pytest.mark.parametrize("preset", ONLINE_PRESETS)
def test_models_of_every_preset_survive_their_file_format(preset, size):
    for env_id in (GARDEN, "CartPole-v1"):
        config = _world(env_id, preset, size)[1].model
        assert decode(type(config), json.loads(json.dumps(encode(config)))) == config


def test_an_unknown_size_is_refused_before_anything_happens(tmp_path):
    for preset in ("dreamer-v2", "ensemble"):
        with pytest.raises(ValueError, match="size is 'huge'; expected tiny or paper"):
            dreamgym.fit("Pendulum-v1", preset, size="huge", env_steps=100, out=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


# ---- the papers' sizes ------------------------------------------------------------------------------------------------------------

V1_ACTOR, V1_CRITIC = 578_412, 413_601  # of 6 actions
PAPER = {  # model, actor and critic; specs/dreamer.md F.5 and C.9, specs/planet.md 2.5 with the 600 second biases of torch's GRU
    (f"{CARTPOLE}-pixels-v0", "planet"): (5_292_220 + 600, 0, 0),
    (f"{WALKER}-pixels-v0", "planet"): (5_293_220 + 600, 0, 0),
    (f"{CARTPOLE}-pixels-v0", "dreamer-v1"): (5_295_820, 574_402, V1_CRITIC),
    (f"{WALKER}-pixels-v0", "dreamer-v1"): (5_296_820, V1_ACTOR, V1_CRITIC),
    (f"{WALKER}-pixels-v0", "dreamer-v2"): (13_656_772, 976_012, 971_601),
    (f"{WALKER}-v0", "dreamer-v2"): (3_463_673, 976_012, 971_601),
    (PONG, "dreamer-v2"): (19_975_379, 1_138_418, 1_131_601),
}
PAPER_TOTAL = {  # of everything but the slow critic: size12m
    (f"{WALKER}-pixels-v0", "dreamer-v3"): 10_494_158,
    (f"{WALKER}-v0", "dreamer-v3"): 9_738_019,
    ("CartPole-v1", "dreamer-v3"): 9_724_165,
}


def _counts(env_id: str, preset: str) -> tuple[int, int, int]:
    """Parameters of model, actor and critic at the paper's size; nothing is allocated."""
    kwargs = {"full_action_space": True} if env_id == PONG else {}  # the published count has all 18 actions
    spec, chosen = _world(env_id, preset, **kwargs)
    with torch.device("meta"):
        model = WorldModel(spec, chosen.model)
        if not isinstance(chosen.agent, ActorCriticConfig):
            return _count(model), 0, 0
        agent = ActorCritic(spec, model.core.feature_size, chosen.agent, seed=0)
    return _count(model), _count(agent.actor), _count(agent.critic)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("env_id", "preset"), PAPER)
def test_model_actor_and_critic_have_the_published_sizes(env_id, preset):
    assert _counts(env_id, preset) == PAPER[env_id, preset]


@pytest.mark.parametrize(("env_id", "preset"), PAPER_TOTAL)
def test_dreamer_v3_has_the_published_total(env_id, preset):
    assert sum(_counts(env_id, preset)) == PAPER_TOTAL[env_id, preset]


def test_a_continue_head_adds_what_v1s_pcont_does():
    with_ends, without = _counts(CAR, "dreamer-v1"), _counts(f"{CARTPOLE}-pixels-v0", "dreamer-v1")
    of_the_second_action = 200  # one more input of the RSSM
    assert with_ends[0] - without[0] == 413_601 + of_the_second_action


@pytest.mark.parametrize("env_id", [f"{CARTPOLE}-dict-v0", PONG, CAR, "Pendulum-v1", GARDEN])
@pytest.mark.parametrize("preset", ONLINE_PRESETS)
def test_every_preset_builds_for_every_kind_of_world(env_id, preset):
    model, actor, critic = _counts(env_id, preset)
    assert model > 1_000_000 and (preset == "planet") == (actor + critic == 0)


def test_tiny_is_much_smaller_than_the_paper():
    for preset in ONLINE_PRESETS:
        sizes = []
        for size in ("tiny", "paper"):
            spec, chosen = _world(GARDEN, preset, size)
            with torch.device("meta"):
                sizes.append(_count(WorldModel(spec, chosen.model)))
        assert sizes[0] < 0.3 * sizes[1]


# ---- the papers' other numbers ----------------------------------------------------------------------------------------------------

THREE_ADAMS = ("model_optimiser", "actor_optimiser", "critic_optimiser")
UNSEEN_IN_TABLES = {  # what docs/papers' tables of sizes, which tests/test_papers.py checks, do not show
    (f"{CARTPOLE}-pixels-v0", "planet"): {  # specs/planet.md 0, 3, 4
        "model.encoder.bits": 5,
        "model.core.latent.min_std": 0.1,
        "model.objective.reward_scale": 10.0,
        "model.objective.kl.global_prior": 0.0,
        "model.objective.kl.overshoots": False,
        "agent.init_std": 1.0,
        "agent.discount": 1.0,
        "agent.warm_start": False,
        "agent.futures": "own",
        "training.explore_noise": 0.3,
        "training.belief_sample": True,
        "training.sampling": "episodes",
        "model_optimiser": OptimiserConfig(learning_rate=1e-3, eps=1e-4, clip=1000.0),
    },
    (f"{WALKER}-pixels-v0", "dreamer-v1"): {  # specs/dreamer.md A.3 to A.7
        "model.encoder.bits": 8,
        "agent.policy": TanhNormalConfig(5.0, 5.0, 1e-4),
        "agent.indexing": "v1",
        "agent.slow_critic": None,
        "agent.reward_scale": 1.0,
        "training.pretrain": 100,
        "training.explore_noise": 0.3,
        "training.sampling": "episodes",
    }
    | {name: OptimiserConfig(learning_rate=rate, eps=1e-7, clip=100.0) for name, rate in zip(THREE_ADAMS, (6e-4, 8e-5, 8e-5))},
    (CAR, "dreamer-v1"): {"model.objective.continue_scale": 10.0, "model.heads.discount_in_target": 0.99},
    (f"{WALKER}-pixels-v0", "dreamer-v2"): {  # B.2 to B.6
        "model.heads.reward_transform": "none",
        "agent.policy": TruncatedNormalConfig(0.1),
        "agent.indexing": "v2",
        "agent.slow_critic": SlowCopy(100),
        "agent.critic_target": "slow",
        "agent.unimix": 0.0,
        "training.pretrain": 100,
        "training.capacity": 2_000_000,
        "training.explore_noise": 0.0,
    }
    | {
        name: OptimiserConfig(learning_rate=rate, eps=1e-5, clip=100.0, weight_decay=1e-6)
        for name, rate in zip(THREE_ADAMS, (3e-4, 8e-5, 8e-5))
    },
    (PONG, "dreamer-v2"): {
        "model.heads.reward_transform": "tanh",
        "model.heads.discount_in_target": 0.999,
        "model.objective.continue_scale": 5.0,
        "training.pretrain": 1,
    },
    ("CartPole-v1", "dreamer-v2"): {"model.objective.continue_scale": 1.0, "agent.entropy": 2e-3},
    (f"{WALKER}-v0", "dreamer-v3"): {  # C.2 to C.8
        "model.core.latent.unimix": 0.01,
        "model.core.cell.blocks": 8,
        "model.core.prior_layers": 2,
        "model.core.posterior_layers": 1,
        "model.core.norm": "rms",
        "model.encoder.symlog": True,
        "model.heads.decoder.likelihood": "squared",
        "model.heads.reward_distribution": "two-hot",
        "model.heads.discount_in_target": 1.0 - 1.0 / 333.0,
        "agent.policy": BoundedNormalConfig(0.1, 1.0),
        "agent.unimix": 0.01,
        "agent.indexing": "v3",
        "agent.reinforce": 1.0,
        "agent.critic_distribution": "two-hot",
        "agent.actor_output_scale": 0.01,
        "agent.critic_output_scale": 0.0,
        "agent.return_scale": PercentileScale(0.01, 0.05, 0.95, 1.0),
        "agent.slow_critic": SlowAverage(0.02, 1.0),
        "agent.critic_target": "fast",
        "agent.replay_value": 0.3,
        "training.env_steps": 500_000,
        "training.capacity": 5_000_000,
        "training.carry": "stored",
        "training.online_queue": True,
        "training.updates_joint": True,
        "model_optimiser": OptimiserConfig("laprop", 4e-5, 1e-20, None, 0.3, 0.0, 1000),
    },
}


@pytest.mark.parametrize(("env_id", "preset"), UNSEEN_IN_TABLES)
def test_the_other_numbers_are_the_papers_too(env_id, preset):
    _, chosen = _world(env_id, preset)
    expected = UNSEEN_IN_TABLES[env_id, preset]
    assert {path: attrgetter(path)(chosen) for path in expected} == expected
