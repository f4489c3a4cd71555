"""Strangers in a dream: SB3's PPO and SAC in a finished model, beside the built-in actor-critic there and beside themselves awake.

python -m tests.gates.strangers learn --learner dream-ppo --seed 0
python -m tests.gates.strangers missing    # the commands of all cells that have no record yet, one per line, for a queue
python -m tests.gates.strangers all        # those cells, one after another
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import stable_baselines3 as sb3
import tyro
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from dreamgym.demo import CLASSIC_PPO, CLASSIC_STEPS, PPO_DEFAULTS, learn_in_dream
from dreamgym.dreams.sb3 import DreamVecEnv
from dreamgym.envs import make_from_spec
from dreamgym.structs import Spec
from dreamgym.training.behaviour import learn_behaviour
from tests.gates.ablations import (
    SEEDS,
    SWINGUP,
    Cell,
    command_cell,
    dreamer,
    fingerprint,
    judged,
    load,
    other_model,
    recorded,
    without_record,
)
from tests.gates.protocols import RESULTS

Learner = Literal["dream-ppo", "dream-sac", "dream-actor-critic", "real-ppo", "real-sac"]


@dataclass(frozen=True)
class Effort:
    """How long each learner learns. env_steps are those that the model's own data took, so real learners get just as many.

    Dreams cost no reality, so those numbers are the learners' own: PPO's is that of the classic tasks, SAC's makes half as many gradient
    steps as awake, the actor-critic's `updates` are of 80 dreams of 15 steps.
    """

    env_steps: int = 100_000
    ppo_dream_steps: int = CLASSIC_STEPS
    sac_dream_steps: int = 100_000
    updates: int = 2_000
    episodes: int = 20


@dataclass(frozen=True)
class Taught:
    """What came out: the agent, what it reads, and what it took (agent steps)."""

    agent: Any
    obs_type: str | None = "latent"
    dream_steps: int = 0
    real_steps: int = 0


# ---- in the dream -------------------------------------------------------------------------------------------------------------------

SAC_ENVS, SAC_GRADIENT_STEPS = 16, 2  # an eighth of SAC's usual ratio of gradient steps to data, which is free here


def dream_ppo(model: Any, effort: Effort, seed: int) -> Taught:
    """The settings of the classic tasks."""
    learned = learn_in_dream(model, steps=effort.ppo_dream_steps, seed=seed, progress=False, **CLASSIC_PPO)
    return Taught(learned.agent, dream_steps=learned.steps)


def dream_sac(model: Any, effort: Effort, seed: int) -> Taught:
    """SB3's defaults, but for a replay no larger than what it will hold."""
    dreams = DreamVecEnv(model, num_envs=SAC_ENVS)
    try:
        agent = sb3.SAC("MlpPolicy", dreams, gradient_steps=SAC_GRADIENT_STEPS, buffer_size=effort.sac_dream_steps, seed=seed, device="cpu")
        agent.learn(effort.sac_dream_steps)
    finally:
        dreams.close()
    return Taught(agent, dream_steps=agent.num_timesteps)


def dream_actor_critic(model: Any, effort: Effort, seed: int) -> Taught:
    """As in the ablation of horizons."""
    config, starts = dreamer("lambda", 15), 80
    agent = learn_behaviour(model, config, updates=effort.updates, starts=starts, seed=seed)
    return Taught(agent, dream_steps=effort.updates * starts * config.horizon)


# ---- awake --------------------------------------------------------------------------------------------------------------------------

REAL_ENVS, REAL_ROLLOUT = 4, 250


@dataclass(frozen=True)
class Normalised:
    """An agent that learned behind VecNormalize, for worlds without one."""

    agent: Any
    statistics: VecNormalize

    def predict(
        self, observation: NDArray[Any], state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[NDArray[Any], Any]:
        """As SB3's."""
        seen = self.statistics.normalize_obs(observation)
        result: tuple[NDArray[Any], Any] = self.agent.predict(seen, state, episode_start, deterministic)
        return result


def real_ppo(model: Any, effort: Effort, seed: int) -> Taught:
    """As in the dream; rollouts are shorter, since data is scarce, and observations normalised, as latents are by themselves."""
    steps = _agent_steps(model.spec, effort)
    settings = copy.deepcopy({**PPO_DEFAULTS, **CLASSIC_PPO, "n_steps": REAL_ROLLOUT, "batch_size": REAL_ROLLOUT})
    del settings["num_envs"]
    rollout = REAL_ENVS * REAL_ROLLOUT
    if steps % rollout:
        raise ValueError(
            f"{steps} agent steps are no whole number of rollouts of {rollout}, so PPO would take more; choose another env_steps."
        )
    env = VecNormalize(_real(model.spec, REAL_ENVS), gamma=settings["gamma"])
    try:
        agent = sb3.PPO(env=env, seed=seed, **settings)
        agent.learn(steps)
    finally:
        env.close()
    return Taught(Normalised(agent, env), obs_type=None, real_steps=agent.num_timesteps)


def real_sac(model: Any, effort: Effort, seed: int) -> Taught:
    """SB3's defaults: one gradient step for every agent step."""
    steps = _agent_steps(model.spec, effort)
    env = _real(model.spec, 1)
    try:
        agent = sb3.SAC("MlpPolicy", env, buffer_size=steps, seed=seed, device="cpu")
        agent.learn(steps)
    finally:
        env.close()
    return Taught(agent, obs_type=None, real_steps=agent.num_timesteps)


def _agent_steps(spec: Spec, effort: Effort) -> int:
    return effort.env_steps // spec.preprocess.action_repeat


def _real(spec: Spec, num_envs: int) -> DummyVecEnv:
    """The env as the model's data saw it."""
    return DummyVecEnv([lambda: Monitor(make_from_spec(spec))] * num_envs)


# ---- cells --------------------------------------------------------------------------------------------------------------------------

LEARNERS: Mapping[Learner, Callable[[Any, Effort, int], Taught]] = {
    "dream-actor-critic": dream_actor_critic,
    "dream-ppo": dream_ppo,
    "dream-sac": dream_sac,
    "real-ppo": real_ppo,
    "real-sac": real_sac,
}


def learn(learner: Learner, seed: int, model: Path = SWINGUP, effort: Effort = Effort()) -> dict[str, Any]:
    """Teach one learner and judge it awake; one cell."""

    def measure() -> dict[str, Any]:
        world = load(model)
        taught = LEARNERS[learner](world, effort, seed)
        return {
            "learner": learner,
            "seed": seed,
            "dream_steps": taught.dream_steps,
            "real_steps": taught.real_steps,
            "model": fingerprint(model),
            "comparison": judged(taught.agent, world, effort.episodes, taught.obs_type),
        }

    return recorded(RESULTS, f"strangers-{learner}-{seed}", measure)


def cells(model: Path = SWINGUP) -> list[Cell]:
    """Every learner with every seed."""
    return [
        command_cell("learn", learn, f"strangers-{learner}-{seed}", learner=learner, seed=seed, **other_model(model, SWINGUP))
        for seed in SEEDS
        for learner in LEARNERS
    ]


def missing(model: Path = SWINGUP) -> None:
    """Print the commands of the cells that have no record yet."""
    for cell in without_record(RESULTS, cells(model)):
        print(cell.command("tests.gates.strangers"))


def run_all(model: Path = SWINGUP) -> None:
    """Do the cells that have no record yet."""
    for cell in without_record(RESULTS, cells(model)):
        cell.run()


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"learn": learn, "missing": missing, "all": run_all})
