"""The command line: dreamgym fit | play | evaluate | fidelity | temperature | report | push | pull | info | check | demo.

Each command is one call of a public function. Everything heavy is imported inside the commands, so that `dreamgym --help` answers at once.
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
            (collection, V, M, a controller evolved in the dream and an iteration: hours on a CPU), world-models with the paper's
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
        model: A bundled name, a model folder, or user/repo on the Hub.
        agent: random, an SB3 .zip (open only files you trust), a folder with agent.json, or user/repo on the Hub.
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
    controls: bool = False,
    control_episodes: int = 300,
    periods: tuple[int, ...] = (),
    processes: int = 1,
    out: Path | None = None,
) -> None:
    """Judge one policy in the dream and awake, beside random actions; with --controls, beside what a blind one would get.

    Args:
        model: A bundled name, a model folder, or user/repo on the Hub.
        agent: random, an SB3 .zip (open only files you trust), a folder with agent.json, or user/repo on the Hub.
        algorithm: SB3's class that wrote the .zip.
        episodes: Episodes in each world.
        first_seed: Seeds count up from here; 1,000,000 by default, which nothing trains on.
        thresholds: Returns worth counting, such as 800.
        controls: Also search the best blind policy and play against it, give an unseen twin the same actions (does seeing help?), and
            check how long random episodes last in both worlds. Thousands of real episodes.
        control_episodes: Episodes, and pairs of episodes, of each control.
        periods: Of the controls: after how many steps the blind sweeps that are tried turn round; 1 to 64 by default.
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
    numbers = compared.to_json()
    if controls:
        from dreamgym.evaluation.policies import SWEEP_PERIODS
        from dreamgym.evaluation.scrutiny import run_controls

        asked: dict[str, Any] = {"episodes": control_episodes, "periods": periods or SWEEP_PERIODS, "obs_type": obs_type}
        scrutiny = run_controls(policy, world, num_envs=min(processes, max(1, control_episodes)), progress=True, **asked)
        print(f"\n{scrutiny.table()}")
        numbers["controls"] = scrutiny.to_json()
    if out is not None:
        _write_json(out, numbers)


def fidelity(
    model: tyro.conf.Positional[str],
    *,
    episodes: int = 20,
    first_seed: int | None = None,
    periods: tuple[int, ...] = (),
    temperature: float | None = None,
    dropout: float | None = None,
    end_probability: float | None = None,
    processes: int = 1,
    out: Path | None = None,
) -> None:
    """Play policies that never look in the dream and awake: does the dream rank them as the world does, and end as soon?

    Args:
        model: A bundled name, a model folder, or user/repo on the Hub.
        episodes: Episodes of each policy in each world.
        first_seed: Seeds count up from here; 1,000,000 by default, which nothing trains on.
        periods: After how many steps the sweeps that are tried, beside constants, turn round; by default 1, 4, 16 and 64, and random
            actions too.
        temperature: How uncertain the dream is; the model's own by default.
        dropout: Rate of dropout while dreaming, for models that have it; the model's own by default.
        end_probability: Chance of an end above which the dream ends; the model's own by default.
        processes: Real environments side by side.
        out: Where to write the numbers as JSON.
    """
    from dreamgym.evaluation.comparison import awake_env
    from dreamgym.evaluation.fidelity import fixed_policy_fidelity
    from dreamgym.evaluation.returns import REPORT_SEEDS_FROM

    world = _load_model(model)
    options = {"temperature": temperature, "dropout": dropout, "end_probability": end_probability}
    found = fixed_policy_fidelity(
        world,
        lambda: awake_env(world, num_envs=processes, obs_type=None),
        episodes=episodes,
        seed=REPORT_SEEDS_FROM if first_seed is None else first_seed,
        periods=periods or None,
        dream_options={name: value for name, value in options.items() if value is not None},
        progress=True,
    )
    print(found.table())
    if out is not None:
        _write_json(out, {"env_id": world.spec.env_id, "episodes": episodes, **options, **found.to_json()})


def temperature(
    model: tyro.conf.Positional[str],
    *,
    taus: tuple[float, ...] = (0.1, 0.5, 1.0, 1.15, 1.3),
    dropouts: tuple[float, ...] = (),
    searches: int = 3,
    first_search: int = 0,
    generations: int = 100,
    population: int = 32,
    step_size: Literal["csa", "tpa"] = "tpa",
    rollouts: int = 8,
    gradient_updates: int = 0,
    episodes: int = 100,
    agent: Path | None = None,
    baselines: bool = True,
    periods: tuple[int, ...] = (),
    fresh_episodes: int = 0,
    plot: bool = True,
    device: str = "cpu",
    out: Path | None = None,
) -> None:
    """Evolve controllers in ever hotter dreams and judge each in its dream and awake: World Models' table of temperatures.

    What is recorded in the folder is not done again, and a search that was killed goes on; so temperatures, searches and generations
    may be added later, and two processes may share a folder if they search for different cells.

    Args:
        model: A bundled name or a model folder, such as model/ of a run with preset world-models-fast.
        taus: Temperatures to dream at.
        dropouts: Rates of dropout while dreaming, for models trained with dropout; the model's own by default.
        searches: Searches by CMA-ES at each setting, with seeds of their own.
        first_search: Seed of the first of them; the others count up.
        generations: Of each search.
        population: Candidates of a generation.
        step_size: What sets how widely a search samples: the path of its shifts (csa, the paper's) or two trials along the last (tpa).
        rollouts: Dreams by which a candidate is judged; all candidates have the same.
        gradient_updates: Above 0, searches do not begin at zero but at the linear map closest to an actor-critic, which learned from so
            many batches of short dreams at the same setting; see docs/papers/world-models.md. 2500 take four minutes of a CPU core.
        episodes: Dreams, and real episodes, by which each search's controller is judged; not those it was chosen by.
        agent: A folder with agent.json of a linear controller, to build ours like it; by default the one beside the model if there is
            one, else a linear map of all the model's features.
        baselines: Play random actions and the best blind sweep awake too. Thousands of real episodes.
        periods: After how many steps the blind sweeps that are tried turn round; 1 to 64 by default.
        fresh_episodes: Above 0, the best setting's controllers are judged awake in so many more episodes, whose seeds did not choose it.
        plot: Draw study.png. Needs matplotlib.
        device: cpu or cuda.
        out: Folder of the study; runs/temperature-<env> by default.
    """
    from dreamgym.agents.evolution import CMAESConfig
    from dreamgym.errors import require
    from dreamgym.evaluation.policies import SWEEP_PERIODS
    from dreamgym.training.gradient_start import GradientStart
    from dreamgym.training.temperature import StudyConfig, controller_config, temperature_study

    if plot:
        require("matplotlib.figure", extra="viz", purpose="The plot (leave it out with --no-plot)")  # now, not after hours
    world = _load_model(model, device)
    controller = controller_config(world, Path(model), agent)
    evolution = CMAESConfig(population, step_size=step_size)
    begin = GradientStart(updates=gradient_updates) if gradient_updates else None
    config = StudyConfig(controller, evolution, generations=generations, rollouts=rollouts, episodes=episodes, begin=begin)
    folder = out or Path("runs") / f"temperature-{world.spec.env_id.replace('/', '-')}"
    study = temperature_study(
        world,
        config,
        taus=taus,
        dropouts=dropouts,
        seeds=range(first_search, first_search + searches),
        folder=folder,
        baselines=baselines,
        periods=periods or SWEEP_PERIODS,
        fresh_episodes=fresh_episodes,
    )
    print(study.table())
    _write_json(folder / "study.json", study.to_json())
    print(f"numbers: {folder / 'study.json'}" + (f"   plot: {study.plot(folder / 'study.png')}" if plot else ""))


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


def push(
    folder: tyro.conf.Positional[str],
    repo: tyro.conf.Positional[str],
    *,
    license: str,
    model: str | None = None,
    fidelity: Path | None = None,
    replay: Path | None = None,
    revision: str | None = None,
    tag: str | None = None,
    private: bool = False,
    message: str | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    allow_unevaluated: bool = False,
) -> None:
    """Share a world model or an agent on the Hugging Face Hub: one commit, with a card made from what was measured.

    Needs a token with the right to write: hf auth login, or HF_TOKEN.

    Args:
        folder: A model folder, or one with agent.json.
        repo: user/name on the Hub; made if it is not there.
        license: Such as mit, apache-2.0 or cc-by-4.0.
        model: Of an agent, the world model it sees through: user/repo@commit, or a bundled name.
        fidelity: What was measured: a fidelity.json, or what `dreamgym evaluate --out` wrote; by default the one in the folder.
        replay: A film of at most 10 MB, .mp4.
        revision: The branch, main by default.
        tag: A name for the new commit, such as v1.
        private: Make the repository a private one.
        message: Of the commit.
        dtype: How a model's weights are stored.
        allow_unevaluated: Share it although nobody has measured it; the card will say so.
    """
    told: dict[str, Any] = {"license": license, "fidelity": fidelity, "replay": replay, "revision": revision, "tag": tag}
    told |= {"private": private or None, "message": message, "allow_unevaluated": allow_unevaluated}
    if (Path(folder) / "agent.json").is_file():
        from dreamgym.agents import load_agent

        if model is None:
            raise ValueError("an agent needs its world model: --model user/repo@commit, or a bundled name.")
        world = _load_model(model)
        pushed = load_agent(Path(folder), world).push_to_hub(repo, model=world, **told)
    else:
        import torch

        pushed = _load_model(str(Path(folder).absolute())).push_to_hub(repo, dtype=getattr(torch, dtype), **told)
    print(f"{pushed.url}   commit: {pushed.commit}")


def pull(repo: tyro.conf.Positional[str], *, revision: str | None = None, out: Path | None = None) -> None:
    """Fetch a world model or an agent from the Hugging Face Hub, check it, and keep it in the cache or in a folder of yours.

    Args:
        repo: user/name, or user/name@revision.
        revision: A branch, a tag or a commit; main by default.
        out: A folder to copy it to.
    """
    from dreamgym.errors import ModelNotFoundError
    from dreamgym.hub.sharing import pull_agent_files, pull_model

    try:
        source = pull_model(repo, revision=revision, folder=out)
    except ModelNotFoundError as error:
        try:
            source = pull_agent_files(repo, revision=revision, folder=out)
        except ModelNotFoundError:
            raise error from None
    print(source + ("" if out is None else f"   copied to: {out}"))


def info(model: tyro.conf.Positional[str], *, revision: str | None = None) -> None:
    """Say what a world model or an agent is and what was measured of it, without loading its weights.

    Args:
        model: A folder, a bundled name, or user/name on the Hub.
        revision: A branch, a tag or a commit of the repository; main by default.
    """
    from dreamgym.hub.info import describe

    print(describe(model, revision=revision))


def check(model: tyro.conf.Positional[str], *, revision: str | None = None, steps: int = 200, seed: int = 0) -> None:
    """Examine a world model: does it keep the contract that dreams rely on? Exits with 1 where it does not.

    Args:
        model: A folder, a bundled name, or user/name on the Hub.
        revision: A branch, a tag or a commit of the repository; main by default.
        steps: Length of the dreams that are examined.
        seed: Seed of the examination.
    """
    from dreamgym.testing import check_world_model

    report = check_world_model(model, seed=seed, steps=steps, **({} if revision is None else {"revision": revision}))
    print(report)
    if not report.ok:
        raise SystemExit(1)


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
    commands: dict[str, Callable[..., Any]] = {
        command.__name__: command for command in (fit, play, evaluate, fidelity, temperature, report, push, pull, info, check, demo)
    }
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


def _write_json(path: Path, numbers: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def _load_model(name: str, device: str = "cpu") -> Any:
    from dreamgym.hub.bundle import from_pretrained

    return from_pretrained(name, device=device)


def _load_agent(name: str, world: Any, algorithm: str) -> tuple[Any, str | None]:
    """An agent by name or path, and the obs_type it reads: latent, or None for the world's own observations (planners filter themselves).

    SB3's archives hold pickles, which run code when they are opened: the help says so.
    """
    from dreamgym.errors import ModelNotFoundError, require

    if name == "random":
        from dreamgym.evaluation.policies import random_policy

        return random_policy(world.spec.action_space), "latent"
    if (Path(name) / "agent.json").is_file() or _is_repository(name):
        from dreamgym.agents import BeliefPolicy, load_agent

        agent = load_agent(name, world)
        return (agent, "latent") if hasattr(agent, "predict") else (BeliefPolicy(agent, world), None)
    if not Path(name).is_file():
        raise ModelNotFoundError(f"no agent {name!r}; expected random, an SB3 .zip, a folder with agent.json, or user/repo.")
    sb3 = require("stable_baselines3", extra="sb3", purpose="loading an SB3 agent")
    kind = getattr(sb3, algorithm.upper(), None)
    if kind is None:
        raise ModelNotFoundError(f"stable_baselines3 has no algorithm {algorithm!r}; expected PPO, A2C, SAC, TD3, DDPG or DQN.")
    return kind.load(name, device="cpu"), "latent"


def _is_repository(name: str) -> bool:
    from dreamgym.hub.repository import parse_repo

    try:
        parse_repo(name)
    except ValueError:
        return False
    return not Path(name).exists()
