"""The command line: dreamgym fit | play | evaluate | report | demo. Each command is one call of a public function.

Everything heavy is imported inside the commands, so that `dreamgym --help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import tyro

from dreamgym.errors import DreamGymError

__all__ = ["main"]

# The commands' docstrings are what --help prints, hence their "Args".


def fit(
    env: tyro.conf.Positional[str],
    preset: str = "ensemble",
    *,
    size: Literal["tiny", "paper"] = "tiny",
    env_steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    out: Path | None = None,
    resume: bool = True,
) -> None:
    """Learn a world model of an environment, and an agent inside it.

    Args:
        env: A gymnasium id, such as Pendulum-v1 or CarRacing-v3.
        preset: ensemble for vector observations, vae-rssm for images; world-models-fast for images too, such as VizdoomTakeCover-v1
            (collection, V, M, a controller evolved in the dream and two iterations: hours on a CPU), world-models with the paper's
            numbers (days); planet, dreamer-v1, dreamer-v2 or dreamer-v3 for images and vectors.
        size: Of the papers' presets: tiny for a CPU, paper for a GPU.
        env_steps: How many of the real environment's own steps may be spent, with world-models on random episodes; the preset's by
            default.
        seed: Seed of everything.
        device: cpu or cuda.
        out: Run folder; runs/<env>-<preset>-<seed> by default.
        resume: Continue the run in the folder if there is one.
    """
    from dreamgym.training.loop import fit as run_fit

    run = run_fit(env, preset, size=size, env_steps=env_steps, seed=seed, device=device, out=out, resume=resume)
    print(json.dumps(run.metrics, indent=1, default=str))
    print(f"model: {run.folder / 'model'}   agent: {run.folder / 'agent'}")


def play(
    model: tyro.conf.Positional[str] = "CarRacing",
    *,
    agent: str = "random",
    algorithm: str = "PPO",
    out: Path = Path("dream.mp4"),
    steps: int = 200,
    seed: int = 0,
    temperature: float | None = None,
    window: bool = False,
) -> None:
    """Walk in a dream: film an agent's dream, or steer it yourself in a window.

    Args:
        model: A bundled name or a model folder.
        agent: random, an SB3 .zip (open only files you trust), or a folder with agent.json.
        algorithm: SB3's class that wrote the .zip.
        out: The film, .mp4 or .gif.
        steps: Length of the film in agent steps.
        seed: Seed of the dream.
        temperature: How uncertain the dream is; the model's own by default.
        window: Steer by keyboard (a d s w, or digits) instead of filming.
    """
    from dreamgym.dreams.env import DreamEnv
    from dreamgym.evaluation.player import film_dream, play_by_hand

    world = _load_model(model)
    policy, obs_type = _load_agent(agent, world, algorithm)
    env = DreamEnv(world, obs_type=obs_type, render_mode="rgb_array", temperature=temperature)
    if window:
        play_by_hand(env, seed=seed, fps=world.spec.fps)
        return
    filmed = film_dream(env, policy, out, seed=seed, steps=steps, fps=world.spec.fps)
    print(f"{filmed.path}: {filmed.steps} steps, reward {filmed.reward:.1f}")


def evaluate(
    model: tyro.conf.Positional[str],
    agent: str = "random",
    *,
    algorithm: str = "PPO",
    episodes: int = 20,
    first_seed: int | None = None,
    thresholds: tuple[float, ...] = (),
    processes: int = 1,
    out: Path | None = None,
) -> None:
    """Judge one policy in the dream and awake, beside random actions.

    Args:
        model: A bundled name or a model folder.
        agent: random, an SB3 .zip (open only files you trust), or a folder with agent.json.
        algorithm: SB3's class that wrote the .zip.
        episodes: Episodes in each world.
        first_seed: Seeds count up from here; 1,000,000 by default, which nothing trains on.
        thresholds: Returns worth counting, such as 800.
        processes: Real environments side by side.
        out: Where to write the numbers as JSON, for `dreamgym report`.
    """
    from dreamgym.evaluation.comparison import awake_env, compare
    from dreamgym.evaluation.policies import random_policy
    from dreamgym.evaluation.returns import report_seeds

    world = _load_model(model)
    seeds = report_seeds(episodes) if first_seed is None else range(first_seed, first_seed + episodes)
    baselines = {"random actions": random_policy(world.spec.action_space)}
    policy, obs_type = _load_agent(agent, world, algorithm)
    env = awake_env(world, num_envs=min(processes, max(1, episodes)), obs_type=obs_type)
    try:
        options: dict[str, Any] = {"thresholds": thresholds, "baselines": baselines, "obs_type": obs_type}
        compared = compare(policy, world, env, seeds=seeds, progress=True, **options)
    finally:
        env.close()
    print(compared.table())
    if out is not None:
        out.write_text(json.dumps(compared.to_json(), indent=1) + "\n", encoding="utf-8")


def report(
    evaluation: tyro.conf.Positional[Path],
    *,
    out: Path = Path("report.html"),
    video: Path | None = None,
    title: str | None = None,
) -> None:
    """Write a self-contained HTML page from what `dreamgym evaluate --out` wrote.

    Args:
        evaluation: The JSON file.
        out: The page.
        video: An .mp4 to show in it.
        title: Headline.
    """
    from dreamgym.evaluation.comparison import Comparison
    from dreamgym.evaluation.report import Report, write_report

    compared = Comparison.from_json(json.loads(evaluation.read_text(encoding="utf-8")))
    command = f"dreamgym report {evaluation} --out {out}"
    print(write_report(Report(title or f"{compared.env_id}, learned in a dream", compared, video=video, command=command), out))


def demo(
    *, out: Path = Path("demo"), steps: int = 400_000, minutes: float = 5.0, tracks: int = 20, seed: int = 0, model: str = "CarRacing"
) -> None:
    """Learn to drive in the bundled dream, drive the real CarRacing-v3, write a report and a film.

    Args:
        out: Folder of report.html, drive.mp4 and agent.zip.
        steps: Most dream steps to learn from.
        minutes: Most minutes to learn for.
        tracks: Real episodes to be judged on.
        seed: Seed of the learning.
        model: Bundled dream to learn in.
    """
    from dreamgym.demo import run_demo

    run_demo(out, steps=steps, minutes=minutes, tracks=tracks, seed=seed, model=model)


# What a mistaken argument ends in: wrong values, unknown names, missing files, environments that do not exist.
_MISTAKES = (ValueError, TypeError, LookupError, OSError, gym.error.Error)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if it succeeded. Errors become one line: 1 for those of dreamgym.errors, 2 for what else a mistake ends in.

    --debug anywhere, or DREAMGYM_DEBUG=1, lets them through with their traceback.
    """
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given or os.environ.get("DREAMGYM_DEBUG", "") not in ("", "0")
    commands: dict[str, Callable[..., Any]] = {"fit": fit, "play": play, "evaluate": evaluate, "report": report, "demo": demo}
    described = (
        "Trained world models as standard gymnasium environments: train any agent inside the dream, act awake. "
        "--debug shows where an error comes from."
    )
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands, prog="dreamgym", description=described, args=[argument for argument in given if argument != "--debug"]
        )
    except (DreamGymError, *_MISTAKES) as error:
        if debug:
            raise
        ours = isinstance(error, DreamGymError)
        print(f"dreamgym: {_one_line(error)}" + ("" if ours else " (--debug shows where)"), file=sys.stderr)
        return 1 if ours else 2
    return 0


def _one_line(error: Exception) -> str:
    message = f"unknown or missing: {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(message.split()) or type(error).__name__


def _load_model(name: str) -> Any:
    from dreamgym.hub.bundle import from_pretrained

    return from_pretrained(name)


def _load_agent(name: str, world: Any, algorithm: str) -> tuple[Any, str | None]:
    """An agent by name or path, and the obs_type it reads: latent, or None for the world's own observations (planners filter themselves).

    SB3's archives hold pickles, which run code when they are opened: the help says so.
    """
    from dreamgym.errors import ModelNotFoundError, require

    if name == "random":
        from dreamgym.evaluation.policies import random_policy

        return random_policy(world.spec.action_space), "latent"
    if (Path(name) / "agent.json").is_file():
        from dreamgym.agents import BeliefPolicy, load_agent

        agent = load_agent(name, world)
        return (agent, "latent") if hasattr(agent, "predict") else (BeliefPolicy(agent, world), None)
    if not Path(name).is_file():
        raise ModelNotFoundError(f"no agent {name!r}; expected random, an SB3 .zip or a folder with agent.json.")
    sb3 = require("stable_baselines3", extra="sb3", purpose="loading an SB3 agent")
    kind = getattr(sb3, algorithm.upper(), None)
    if kind is None:
        raise ModelNotFoundError(f"stable_baselines3 has no algorithm {algorithm!r}; expected PPO, A2C, SAC, TD3, DDPG or DQN.")
    return kind.load(name, device="cpu"), "latent"


if __name__ == "__main__":
    sys.exit(main())
