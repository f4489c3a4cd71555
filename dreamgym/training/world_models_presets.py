"""World Models as presets: "world-models" is the paper, every number with its place; "world-models-fast" is what a CPU can do in hours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from gymnasium import spaces

from dreamgym.agents.evolution import CMAESConfig
from dreamgym.agents.linear import ArgmaxActions, BoxActions, LinearControllerConfig, PedalActions, ThresholdActions
from dreamgym.models.encoders import CodeStatsConfig
from dreamgym.models.mdn_heads import MDNHeadsConfig, MLPReward, SurvivalReward
from dreamgym.models.mdn_rnn import MDNRNNConfig
from dreamgym.models.mixture_objective import MixtureObjective
from dreamgym.models.mixture_overshooting import MixtureOvershooting
from dreamgym.models.vae import VAEConfig
from dreamgym.models.world_model import WorldModelConfig
from dreamgym.structs import DreamDefaults, Preprocess, Spec
from dreamgym.training.world_models_config import (
    BehaviourTraining,
    Calibration,
    CodeTraining,
    ControllerTraining,
    EpisodeCollection,
    Iterations,
    MemoryTraining,
    WorldModelsPreset,
)

__all__ = ["WORLD_MODELS_PRESETS", "world_models_controller", "world_models_preprocess", "world_models_preset"]

WORLD_MODELS_PRESETS = ("world-models", "world-models-fast")

# "Section n" is that of specs/world-models.md; "prototype" is prototypes/takecover.md.
_PAPER_END = 1.0 / 11.0  # ends where the logit is above 0; with ends weighted by 10, that is a chance of 1/11 (section 7.1)
_TAKE_COVER_ORDER = (2, 0, 1)  # left, none, right; the paper's thirds of [-1,1], section 5


def world_models_preprocess(name: str, spec: Spec) -> Preprocess:
    """How a preset wants a world of pictures to be seen, given how it is seen by default."""
    seen = spec.preprocess
    if name == "world-models" and _is_take_cover(spec):
        return Preprocess(size=64)  # section 1.5: without a status bar there is nothing to crop; every tic is a step
    if name == "world-models" and _is_car_racing(spec):
        # Section 1.1: the upper 84 rows, squeezed to 64x64; every frame a step; three pedals. A finished lap is no death for M to learn.
        return replace(seen, size=64, crop=(0, 84, 0, 96), masks=(), action_repeat=1, merge_pedals=False)
    return replace(seen, size=64) if spec.is_image and (spec.observation_space.shape or ())[:2] != (64, 64) else seen


def world_models_preset(name: str, spec: Spec) -> WorldModelsPreset:
    """The preset for a world; TakeCover and CarRacing have their own numbers, other worlds of pictures take CarRacing's networks.

    Deviations from the paper, in both presets: classes of actions reach M as one-hots, not as the number C put out (so that any agent
    can act in the dream); ends are not foretold across episodes' borders; worlds other than TakeCover have a reward head, for without
    one nothing could be learned in their dreams (section 7.3); M's best weights on held-out episodes are kept.
    Raises ValueError for an unknown name.
    """
    if name not in WORLD_MODELS_PRESETS:
        raise ValueError(f"no preset {name!r}; there are {', '.join(WORLD_MODELS_PRESETS)}.")
    return _paper(spec) if name == "world-models" else _fast(spec)


def _paper(spec: Spec) -> WorldModelsPreset:
    survival = _is_take_cover(spec)
    return WorldModelsPreset(
        name="world-models",
        model=WorldModelConfig(
            encoder=_codes(spec, 64 if survival else 32),  # section 0
            core=MDNRNNConfig(
                units=512 if survival else 256,
                mixtures=5,
                mixture="per_dim",  # section 4.2: the released code's; Tallec's is "shared"
                first_flag=survival,  # Doom's M is told where an episode begins, CarRacing's is not
                features="zch" if survival else "zh",
            ),
            heads=MDNHeadsConfig(reward=_reward(spec), terminal_weight=10.0, members=1),  # restart_factor, section 4.3; no ensemble
            objective=MixtureObjective(),
            defaults=_defaults(spec, end_probability=_PAPER_END),
        ),
        controller=world_models_controller(spec),  # 1088 parameters without a bias, 867 with one: section 5
        collection=EpisodeCollection(
            episodes=10_000,
            # The paper trains V on all 3.08 million frames, 38 GB; these are 6 GB, and V's errors on frames it never saw are logged.
            pixel_frames=500_000,
            collector="sticky" if spec.is_discrete else "network",  # sections 2.2 and 2.1
            holds=(10,),  # section 2.2: 1 to 10 frames
            least=101 if survival else 1,  # section 2.2: episodes of 100 frames or fewer are discarded
        ),
        code_training=CodeTraining(
            steps=308_000 if survival else 100_000,  # the paper says one epoch, its code and log ten; of 10 million frames one is 100,000
            batch=100,
            learning_rate=1e-4,
            rate="constant",
            reconstruction_weight=(1.0, 1.0),
            kl_tolerance=0.5,
        ),
        memory_training=_paper_memory(survival),
        calibration=Calibration(logistic=False, threshold=False),
        evolution=CMAESConfig(population=64, sigma=0.1),  # section 6
        # Temperature 1.15 is the paper's headline, 1.25 its released code's constant (section 7.1). CarRacing's C was never trained asleep.
        controller_training=ControllerTraining(
            generations=1800,
            rollouts=16,
            temperature=1.15 if survival else 1.0,
            attempts=1,
            evaluate_every=25,
            judge_dreams=1024,  # section 6: of the distribution's mean, as in the released code; the paper says the best agent
            validation_episodes=100,
        ),
        iterations=Iterations(count=0),  # section 8: one pass was enough
        notes="Ha and Schmidhuber 2018; days on a CPU.",
    )


def _paper_memory(survival: bool) -> MemoryTraining:
    """Section 4.4, by the code, whose log shows these numbers; the text says 20 epochs for both."""
    if survival:
        return MemoryTraining(
            steps=24_400,
            batch=100,
            sequences="streams",
            length=500,
            learning_rate=1e-3,
            rate="exponential",
            final_rate=1e-5,
            decay=0.99999,
            clip_value=1.0,
        )
    return MemoryTraining(steps=4000, batch=100, sequences="episodes", learning_rate=1e-3, rate="constant", clip_value=1.0)


def _fast(spec: Spec) -> WorldModelsPreset:
    survival, cars = _is_take_cover(spec), _is_car_racing(spec)
    dropout = 0.05 if survival or cars else 0.0  # section 12: dreams without randomisation taught nothing of CarRacing (3), with it 789
    return WorldModelsPreset(
        name="world-models-fast",
        model=WorldModelConfig(
            encoder=_codes(spec, 64 if survival else 32),
            core=MDNRNNConfig(
                units=384 if survival else 256,  # prototype
                mixtures=5,
                mixture="per_dim",
                first_flag=True,
                features="zh",  # prototype: 448 parameters; z alone scored 376 where z and h scored 883
                input_dropout=dropout,
                recurrent_dropout=dropout,
            ),
            heads=MDNHeadsConfig(reward=_reward(spec), terminal_weight=10.0, members=5, member_units=64),
            objective=MixtureObjective(),
            # what M foretells of its own dreams is a chance, which no threshold turns into lives of the right length (docs/log.md)
            defaults=_defaults(spec, end_probability=_PAPER_END, termination="sample" if survival else "threshold"),
        ),
        controller=world_models_controller(spec),
        collection=_fast_collection(spec),
        code_training=CodeTraining(
            steps=6000,  # after 5,000 fireballs are clear at every distance (prototype); 8,000 gained little more (docs/log.md)
            batch=100,
            learning_rate=8e-4,
            rate="cosine",
            reconstruction_weight=(30.0, 5.0),  # prototype: at the paper's 1 small fireballs stay invisible for long
            kl_tolerance=0.5,
        ),
        memory_training=MemoryTraining(
            steps=4500,  # 22 times through 10,000 episodes; held-out ends are foretold best after 8 of them, codes still better after 25
            batch=48,
            sequences="episodes",
            learning_rate=1e-3,
            rate="cosine",
            weight_decay=0.01,
            clip_value=None,
            clip_norm=1.0,
            evaluate_every=500,
            overshooting=MixtureOvershooting(steps=16, starts=320) if survival else None,  # without, ends fade in dreams (docs/log.md)
            overshooting_share=1.0 / 3.0,
        ),
        calibration=Calibration(
            logistic=True, threshold=survival, temperatures=(1.0, 1.1, 1.2) if survival else (), sweep=(1, 2) if survival else None
        ),
        # Prototype: 32 x 8 is as good per result as 64 x 16 and four times cheaper. TPA: what cma itself takes for so many parameters.
        evolution=CMAESConfig(population=32, sigma=0.1, step_size="tpa"),
        controller_training=ControllerTraining(
            generations=100,
            rollouts=8 if survival else 16,
            temperature=1.15 if survival else 1.0,
            dropout=0.1 if cars else None,  # section 12: trained with less, dreamt best with 0.1
            attempts=3,  # three seeds scored 956, 937 and 817 in the prototype
            evaluate_every=10,
            judge_dreams=256,
            validation_episodes=100 if survival else 20,
        ),
        behaviour_training=BehaviourTraining()
        if survival
        else None,  # what sees: C is blind where deaths are the only signal (docs/log.md)
        iterations=Iterations(count=1 if survival else 0, memory_steps=2000),  # by then held-out losses have stopped falling (docs/log.md)
        bfloat16=True,
        notes="World Models on two CPU cores in hours.",
    )


def _fast_collection(spec: Spec) -> EpisodeCollection:
    if _is_car_racing(spec):  # as preset vae-rssm: short episodes keep random driving near the road
        lengths = ((60, 0.35), (100, 0.35), (160, 0.2), (250, 0.1))
        collector: Any = "driving" if spec.preprocess.merge_pedals else ("sticky" if spec.is_discrete else "brownian")
        return EpisodeCollection(episodes=2000, pixel_frames=150_000, collector=collector, holds=(8,), episode_steps=lengths)
    holds = (2, 4, 8)  # prototype: in agent steps, the most drawn per episode
    return EpisodeCollection(episodes=10_000, pixel_frames=250_000, collector="sticky", holds=holds)


def _codes(spec: Spec, size: int) -> CodeStatsConfig:
    if not spec.is_image:
        raise ValueError(f"the world-models presets read one image, not {spec.observation_space}; take preset ensemble or a dreamer.")
    return CodeStatsConfig(vae=VAEConfig(code=size, channels=int((spec.observation_space.shape or ())[-1])))


def _reward(spec: Spec) -> SurvivalReward | MLPReward:
    if _is_take_cover(spec):
        return SurvivalReward(per_step=float(spec.preprocess.action_repeat))  # one per tic alive
    return MLPReward(layers=2, units=200, scale=5.0 if _is_car_racing(spec) else 1.0)


def _defaults(spec: Spec, *, end_probability: float, termination: Literal["threshold", "sample"] = "threshold") -> DreamDefaults:
    return DreamDefaults(
        # CarRacing's M knows no end: leaving the playfield is too rare for random driving to show it
        termination="never" if _is_car_racing(spec) else termination,
        end_probability=end_probability,
        belief="sample",  # section 5: awake, C reads a sample of the code, as in the dream
    )


def world_models_controller(spec: Spec) -> LinearControllerConfig:
    """A linear controller of all features, whose outputs mean what they mean in the paper; TakeCover's has no bias (section 5)."""
    space = spec.action_space
    actions: ThresholdActions | ArgmaxActions | BoxActions | PedalActions
    if _is_take_cover(spec) and isinstance(space, spaces.Discrete) and int(space.n) == len(_TAKE_COVER_ORDER):
        actions = ThresholdActions(order=_TAKE_COVER_ORDER)
    elif spec.is_discrete:
        actions = ArgmaxActions()
    elif _is_car_racing(spec) and spec.action_size == 3:
        actions = PedalActions()
    else:
        actions = BoxActions()
    return LinearControllerConfig(bias=not _is_take_cover(spec), actions=actions)


def _is_take_cover(spec: Spec) -> bool:
    return spec.env_id.startswith("VizdoomTakeCover")


def _is_car_racing(spec: Spec) -> bool:
    return spec.env_id.startswith("CarRacing")


def iterated(
    preset: WorldModelsPreset,
    count: int,
    *,
    episodes: int | None = None,
    curiosity: float = 0.0,
    next_action: bool = False,
    code_steps: int = 0,
) -> WorldModelsPreset:
    """The preset with `count` iterations after its first C (section 8), each of so many `episodes` awake (None: the preset's).

    curiosity and code_steps as in Iterations. next_action: M also foretells what the agent does, so that it comes to imitate C.
    """
    iterations = replace(preset.iterations, count=count, curiosity=curiosity, code_steps=code_steps)
    if episodes is not None:
        iterations = replace(iterations, episodes=episodes)
    heads = preset.model.heads
    assert isinstance(heads, MDNHeadsConfig)
    return replace(preset, iterations=iterations, model=replace(preset.model, heads=replace(heads, next_action=next_action)))
