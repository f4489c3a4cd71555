"""PlaNet and Dreamer V1 to V3 as data: what each paper builds and how it trains, at the paper's size and at one for a CPU.

Where paper and released code differ, the code's number stands here and docs/papers/ says why. `tiny` keeps every method (latent, cell,
losses, estimators, optimiser kind) and shrinks widths, batches and update counts; its learning rates are higher, since it updates
ten times less. What tiny changes beyond sizes is said in its `notes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from gymnasium import spaces

from dreamgym.agents import recipes
from dreamgym.agents.actor_critic import ActorCriticConfig
from dreamgym.agents.planning import CEMConfig
from dreamgym.envs import planet_action_repeat
from dreamgym.models.dreamer_heads import DreamerHeadsConfig
from dreamgym.models.latents import CategoricalLatent, GaussianLatent
from dreamgym.models.objectives import DreamerObjective, KLConfig, Reconstruction
from dreamgym.models.observations import ObservationDecoderConfig, ObservationEncoderConfig
from dreamgym.models.rssm import BlockGRUConfig, LayerNormGRUConfig, RSSMConfig
from dreamgym.models.world_model import WorldModelConfig
from dreamgym.nn.convolutions import ConvConfig
from dreamgym.nn.networks import MLPConfig
from dreamgym.structs import DreamDefaults, Spec
from dreamgym.training.online_config import OnlinePreset, OnlineTraining, OptimiserConfig

__all__ = ["ONLINE_PRESETS", "Size", "online_preset"]

Size = Literal["tiny", "paper"]


def online_preset(name: str, spec: Spec, size: Size) -> OnlinePreset:
    """The preset of a paper for a world: images, vectors or both, classes or a Box, with an end or without.

    Raises ValueError for an unknown name or size.
    """
    if name not in ONLINE_PRESETS:
        raise ValueError(f"no online preset {name!r}; there are {', '.join(sorted(ONLINE_PRESETS))}.")
    if size not in ("tiny", "paper"):
        raise ValueError(f"size is {size!r}; expected tiny or paper.")
    preset = ONLINE_PRESETS[name](spec)
    return _tiny(preset, spec) if size == "tiny" else preset


# ---- what a world asks for --------------------------------------------------------------------------------------------------------


def _ends(spec: Spec) -> bool:
    """Whether episodes may end by themselves. DeepMind Control's do not, save lqr's; there the papers have no continue head."""
    return not spec.env_id.startswith("dm_control/") or "/lqr-" in spec.env_id


def _has_images(spec: Spec) -> bool:
    space = spec.observation_space
    return spec.is_image or (isinstance(space, spaces.Dict) and any(len(part.shape or ()) == 3 for part in space.values()))


def _is_atari(spec: Spec) -> bool:
    return spec.env_id.startswith("ALE/")


# ---- paper size -------------------------------------------------------------------------------------------------------------------


def planet(spec: Spec) -> OnlinePreset:
    """PlaNet: CEM in the latent space of an RSSM, one episode every 100 updates. Source: planet/scripts/configs.py; specs/planet.md."""
    reward = MLPConfig(layers=3, units=300, activation="relu")  # the code; the paper says two layers of 200
    vectors = MLPConfig(layers=2, units=400, activation="relu")  # not in the paper, which sees images only
    return OnlinePreset(
        name="planet",
        size="paper",
        model=WorldModelConfig(
            encoder=ObservationEncoderConfig(images=ConvConfig(depth=32, activation="relu"), vectors=vectors, bits=5),
            core=RSSMConfig(latent=GaussianLatent(size=30), deter=200, hidden=200, activation="relu"),
            heads=DreamerHeadsConfig(
                decoder=ObservationDecoderConfig(images=ConvConfig(depth=32, activation="relu"), vectors=vectors),
                reward=reward,
                continue_head=reward if _ends(spec) else None,  # not in PlaNet, whose tasks never end
            ),
            objective=DreamerObjective(kl=KLConfig(1.0, 1.0, free_nats=3.0, free_mode="element"), reward_scale=10.0),
            defaults=_dreams(spec),
        ),
        agent=CEMConfig(),
        training=OnlineTraining(
            env_steps=1_000_000,
            prefill=min(5 * spec.max_episode_steps, 5000),  # 5 episodes of the suite
            pretrain=0,  # the first 100 updates come before the first planned episode anyway
            train_every=0,  # once per episode
            updates=100,
            batch=50,
            length=50,
            sampling="windows" if _ends(spec) else "episodes",
            explore_noise=0.3,
            belief_sample=True,
            evaluate_every=10_000,
        ),
        model_optimiser=OptimiserConfig(kind="adam", learning_rate=1e-3, eps=1e-4, clip=1000.0),
        action_repeat=None if _ends(spec) else planet_action_repeat(spec.env_id),
        notes="No policy and no value network: the agent is a planner.",
    )


def dreamer_v1(spec: Spec) -> OnlinePreset:
    """Dreamer: actor-critic by backpropagation through the dream. Source: danijar/dreamer; specs/dreamer.md A."""
    images, vectors = ConvConfig(depth=32, activation="relu"), MLPConfig(layers=4, units=400, activation="elu")
    agent = recipes.dreamer_v1()
    thousand = max(1, 1000 // spec.preprocess.action_repeat)  # env steps, in agent steps
    return OnlinePreset(
        name="dreamer-v1",
        size="paper",
        model=WorldModelConfig(
            encoder=ObservationEncoderConfig(images=images, vectors=vectors),
            core=RSSMConfig(latent=GaussianLatent(size=30), deter=200, hidden=200, activation="elu"),
            heads=DreamerHeadsConfig(
                decoder=ObservationDecoderConfig(images=images, vectors=vectors),
                reward=MLPConfig(layers=2, units=400),
                continue_head=MLPConfig(layers=3, units=400) if _ends(spec) else None,
                discount_in_target=agent.discount if _ends(spec) else None,
            ),
            objective=DreamerObjective(kl=KLConfig(1.0, 1.0, free_nats=3.0, free_mode="mean"), continue_scale=10.0),
            defaults=_dreams(spec),
        ),
        agent=agent,
        training=OnlineTraining(
            env_steps=5_000_000,
            prefill=5 * thousand,
            pretrain=100,
            train_every=thousand,
            updates=100,
            batch=50,
            length=50,
            sampling="windows" if _ends(spec) else "episodes",  # a uniform episode loses short ones (specs/dreamer.md E.5-7)
            explore_noise=0.4 if spec.is_discrete else 0.3,
            belief_sample=True,
        ),
        model_optimiser=OptimiserConfig(learning_rate=6e-4, eps=1e-7, clip=100.0),
        actor_optimiser=OptimiserConfig(learning_rate=8e-5, eps=1e-7, clip=100.0),
        critic_optimiser=OptimiserConfig(learning_rate=8e-5, eps=1e-7, clip=100.0),
    )


def dreamer_v2(spec: Spec) -> OnlinePreset:
    """DreamerV2: categorical latents, KL balancing. DMC vision, DMC proprio and Atari differ. Source: danijar/dreamerv2; specs B."""
    atari = _is_atari(spec)
    hidden = 600 if atari else 200
    activation: Literal["elu"] = "elu"
    images, network = ConvConfig(depth=48, activation=activation), MLPConfig(layers=4, units=400, activation=activation)
    # Elsewhere 2e-3, the released code's default; all else is the suite's there.
    entropy = 1e-3 if atari else 2e-3 if _ends(spec) else 1e-4
    agent = recipes.dreamer_v2(discount=0.999 if atari else 0.99, entropy=entropy, learning_rate=4e-5 if atari else 8e-5)
    kl = 0.1 if atari else 1.0
    actor_rate, critic_rate = (4e-5, 1e-4) if atari else (8e-5, 8e-5)
    step = {"eps": 1e-5, "clip": 100.0, "weight_decay": 1e-6}
    return OnlinePreset(
        name="dreamer-v2",
        size="paper",
        model=WorldModelConfig(
            encoder=ObservationEncoderConfig(images=images, vectors=network),
            core=RSSMConfig(
                latent=CategoricalLatent(variables=32, classes=32),
                cell=LayerNormGRUConfig(),
                deter=hidden,
                hidden=hidden,
                activation=activation,
            ),
            heads=DreamerHeadsConfig(
                decoder=ObservationDecoderConfig(images=images, vectors=network),
                reward=network,
                reward_transform="tanh" if atari else "none",
                continue_head=network if _ends(spec) else None,
                discount_in_target=agent.discount if _ends(spec) else None,
            ),
            objective=DreamerObjective(
                kl=KLConfig(0.8 * kl, 0.2 * kl, free_nats=0.0 if atari else 1.0, free_mode="mean"),
                continue_scale=5.0 if atari else 1.0,
            ),
            defaults=_dreams(spec),
        ),
        agent=agent,
        training=OnlineTraining(
            env_steps=200_000_000 if atari else 2_000_000,
            prefill=50_000 if atari else 1_000,
            pretrain=1 if atari else 100,
            train_every=16 if atari else 5,
            batch=16,
            length=50,
            capacity=2_000_000,
            belief_sample=True,
        ),
        model_optimiser=OptimiserConfig(learning_rate=2e-4 if atari else 3e-4, **step),  # type: ignore[arg-type]
        actor_optimiser=OptimiserConfig(learning_rate=actor_rate, **step),  # type: ignore[arg-type]
        critic_optimiser=OptimiserConfig(learning_rate=critic_rate, **step),  # type: ignore[arg-type]
        notes="Short episodes are kept, where the released replay throws those under 50 rows away.",
    )


def dreamer_v3(spec: Spec, *, units: int = 256) -> OnlinePreset:
    """DreamerV3 of model dimension `units` (256: size12m, the paper's for DeepMind Control; 1024: size200m, Atari). Source: specs C."""
    network = MLPConfig(layers=3, units=units, activation="silu", norm="rms")
    head = replace(network, layers=1)
    images = ConvConfig(style="pooled", depth=max(2, units // 16), activation="silu", norm="rms")
    agent = recipes.dreamer_v3(units=units)
    return OnlinePreset(
        name="dreamer-v3",
        size="paper",
        model=WorldModelConfig(
            encoder=ObservationEncoderConfig(images=images, vectors=network, symlog=True),
            core=RSSMConfig(
                latent=CategoricalLatent(variables=32, classes=max(2, units // 16), unimix=0.01),
                cell=BlockGRUConfig(blocks=8),
                deter=8 * units,
                hidden=units,
                prior_layers=2,
                posterior_layers=1,
                activation="silu",
                norm="rms",
            ),
            heads=DreamerHeadsConfig(
                decoder=ObservationDecoderConfig(images=images, vectors=network, likelihood="squared"),
                reward=head,
                reward_distribution="two-hot",
                continue_head=head,
                discount_in_target=agent.discount,
            ),
            objective=DreamerObjective(kl=KLConfig(1.0, 0.1, free_nats=1.0, free_mode="element")),
            defaults=_dreams(spec),
        ),
        agent=agent,
        training=OnlineTraining(
            env_steps=500_000 if not _has_images(spec) else 1_000_000,
            prefill=0,
            pretrain=0,
            train_every=2,  # train ratio 512: 16 x 64 replayed rows for 2 agent steps
            batch=16,
            length=64,
            capacity=5_000_000,
            carry="stored",
            online_queue=True,
            belief_sample=True,
            updates_joint=True,
        ),
        model_optimiser=OptimiserConfig(kind="laprop", learning_rate=4e-5, eps=1e-20, clip=None, adaptive_clip=0.3, warmup=1000),
        bfloat16=True,
        notes="One env instead of 16; updates learn from complete episodes.",
    )


def _dreams(spec: Spec) -> DreamDefaults:
    """How the finished model wants to be dreamt by strangers' agents: from anywhere in its data, in pieces it can foretell."""
    return DreamDefaults(horizon=min(60, spec.max_episode_steps), starts="any")


# ---- tiny -------------------------------------------------------------------------------------------------------------------------


def _tiny(preset: OnlinePreset, spec: Spec) -> OnlinePreset:
    """The same methods at a size that a CPU core trains in minutes."""
    units = 128
    model = preset.model
    assert isinstance(model.encoder, ObservationEncoderConfig) and isinstance(model.core, RSSMConfig)
    assert isinstance(model.heads, DreamerHeadsConfig) and isinstance(model.objective, DreamerObjective)
    v3 = preset.name == "dreamer-v3"
    depth = 8
    images = replace(model.encoder.images, depth=depth)
    vectors = replace(model.encoder.vectors, layers=2, units=units)
    head = replace(model.heads.reward, layers=1 if v3 else 2, units=units)
    latent = model.core.latent
    if isinstance(latent, CategoricalLatent):
        latent = replace(latent, variables=16, classes=16)
    reconstruction = Reconstruction(scale=1.0 if _has_images(spec) else 10.0)
    tiny_model = replace(
        model,
        encoder=replace(model.encoder, images=images, vectors=vectors, standardise=not v3),
        core=replace(model.core, latent=latent, deter=256 if v3 else 128, hidden=units),
        heads=replace(
            model.heads,
            decoder=replace(model.heads.decoder, images=images, vectors=vectors),
            reward=head,
            continue_head=None if model.heads.continue_head is None else head,
            members=5,
        ),
        objective=model.objective if v3 else replace(model.objective, observation=reconstruction),
    )
    repeat, every = _tiny_pace(preset, spec)
    training = replace(
        preset.training,
        env_steps=100_000,
        prefill=max(500, min(preset.training.prefill, 2500)),
        prefill_hold=(1, 8),
        pretrain=500,
        train_every=every,
        updates=1 if every else max(1, min(100, spec.max_episode_steps // 4)),
        batch=16,
        length=16 if v3 else 32,
        starts=None if v3 else 256,
        decay_share=0.3,
        evaluate_every=25_000,
    )
    agent: ActorCriticConfig | CEMConfig
    if isinstance(preset.agent, ActorCriticConfig):
        assert preset.agent.actor is not None and preset.agent.critic is not None
        actor, critic = (replace(network, layers=2, units=units) for network in (preset.agent.actor, preset.agent.critic))
        agent = replace(preset.agent, actor=actor, critic=critic)
    else:
        assert isinstance(preset.agent, CEMConfig)
        # One sampled future each, as PlaNet's 1000 candidates have, is luck that 128 cannot average out (docs/log.md).
        agent = replace(preset.agent, iterations=4, candidates=128, elites=16, futures="mean")
    # The papers' own 8e-5 for an actor in a Box: at 3e-4 it saturates before the model is any good, and never comes back (docs/log.md).
    rates = {"model": 4e-4 if v3 else 1e-3, "actor": 3e-4 if spec.is_discrete else 8e-5, "critic": 3e-4}
    return replace(
        preset,
        size="tiny",
        model=tiny_model,
        agent=agent,
        training=training,
        model_optimiser=replace(preset.model_optimiser, learning_rate=rates["model"], warmup=100 if v3 else 0),
        actor_optimiser=None if preset.actor_optimiser is None else replace(preset.actor_optimiser, learning_rate=rates["actor"]),
        critic_optimiser=None if preset.critic_optimiser is None else replace(preset.critic_optimiser, learning_rate=rates["critic"]),
        action_repeat=repeat,
        bfloat16=False,
        notes=(preset.notes + " " + _TINY_NOTES).strip(),
    )


_TINY_NOTES = (
    "tiny: smaller networks, batches and prefill, fewer updates, a higher rate for model and critic, rates that fall at the end; random "
    "actions held for a while; 5 one-step members for uncertainty; vectors standardised and weighed 10 times (not in V3, which squashes "
    "them); 256 imagination starts; longer action repeats."
)


# What differs in particular worlds: (action repeat, agent steps per update). Pendulum: 15 dreamt steps must see a swing through.
_TINY_WORLDS = {"Pendulum-v1": (2, 2)}


def _tiny_pace(preset: OnlinePreset, spec: Spec) -> tuple[int | None, int]:
    """Action repeat and agent steps per update; a planner that learns between episodes (0) keeps its own repeat in the suite."""
    learns_between = preset.training.train_every == 0
    default = (preset.action_repeat if learns_between else 4) if spec.env_id.startswith("dm_control/") else None
    repeat, every = _TINY_WORLDS.get(spec.env_id, (default, 4))
    return repeat, 0 if learns_between else every


ONLINE_PRESETS: dict[str, Callable[[Spec], OnlinePreset]] = {
    "planet": planet,
    "dreamer-v1": dreamer_v1,
    "dreamer-v2": dreamer_v2,
    "dreamer-v3": dreamer_v3,
}
