"""fit: collect real experience, learn the world, learn to act inside it, judge awake, keep the best. Resumable to the bit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.data.replay import Replay
from dreamgym.envs import make_env, make_spec
from dreamgym.models.world_model import WorldModel
from dreamgym.training.presets import PRESETS, Preset
from dreamgym.training.trainer import Trainer

__all__ = ["Run", "fit"]


@dataclass(frozen=True)
class Run:
    """What fit leaves behind: the model and agent, the numbers, and the folder that holds them all.

    Where the preset validates awake, they are the pair that did best there (metrics["validation"]); otherwise the last ones.
    """

    model: WorldModel
    agent: ActorCritic
    metrics: dict[str, Any]
    folder: Path


def fit(
    env_or_dataset: str | Replay,
    preset: str | Preset = "ensemble",
    *,
    env_steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    workers: int = 1,
    env_kwargs: dict[str, Any] | None = None,
) -> Run:
    """Train a world model and an agent inside it.

    env_or_dataset is a gymnasium id (real experience is collected, env_steps of the environment's own steps in all, validation
    included) or a filled Replay (offline: nothing is collected, nothing judged awake). preset is a name ("ensemble" for vector
    observations, "vae-rssm" for 64x64 images) or a Preset. The run folder `out` (default runs/<env>-<preset>-<seed>) holds config.json,
    metrics.jsonl, TensorBoard files, checkpoint.pt, replay/, and at the end model/ (a bundle) and agent/.
    resume continues an interrupted run of the same settings exactly where it stood; a finished one is loaded. Ctrl-C leaves model/.
    workers > 1 collects random experience in that many processes, with the same result; it pays for slow environments and needs the
    caller's script to be guarded by `if __name__ == "__main__":`. env_kwargs go to gymnasium.make.

    Raises ValueError for an unknown preset, spaces that do not fit, or a folder that holds a different run;
    NonFiniteLossError where training meets NaN.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch finds no CUDA device here; pass device='cpu'.")
    chosen = _choose_preset(preset, env_steps)
    if not isinstance(env_or_dataset, (str, Replay)):
        raise TypeError(f"env_or_dataset is a {type(env_or_dataset).__name__}; expected a gymnasium id such as 'Pendulum-v1', or a Replay.")
    if isinstance(env_or_dataset, Replay):
        env, spec, name = None, env_or_dataset.spec, env_or_dataset.spec.env_id
    else:
        name = env_or_dataset
        env = make_env(name, **(env_kwargs or {}))
        spec = make_spec(env, name)
    folder = Path(out) if out is not None else Path("runs") / f"{name.replace('/', '-')}-{chosen.name}-{seed}"
    with torch.device("meta"):
        WorldModel(spec, chosen.model)  # a preset that does not fit the spaces fails before anything is written
    described: dict[str, Any] = {"env_id": name, "seed": seed, "preset": json.loads(json.dumps(asdict(chosen)))}
    fresh = _open_folder(folder, described | ({"env_kwargs": env_kwargs} if env_kwargs else {}), resume=resume)
    trainer = Trainer(
        spec, chosen, seed=seed, device=device, folder=folder, progress=progress, env=env, env_kwargs=env_kwargs, workers=workers
    )
    if isinstance(env_or_dataset, Replay):
        trainer.use_dataset(env_or_dataset)
    if not fresh:
        trainer.resume()
    try:
        metrics = trainer.run()
    except KeyboardInterrupt:
        trainer.export()
        raise
    finally:
        trainer.close()
        if env is not None:
            env.close()
    return Run(trainer.model, trainer.agent, metrics, folder)


def _choose_preset(preset: str | Preset, env_steps: int | None) -> Preset:
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ValueError(f"no preset {preset!r}; there are {', '.join(sorted(PRESETS))}.")
        preset = PRESETS[preset]
    if env_steps is None:
        return preset
    if env_steps < 100:
        raise ValueError(f"env_steps is {env_steps}; expected at least 100 steps of the real environment.")
    return replace(preset, collection=replace(preset.collection, env_steps=env_steps))


def _open_folder(folder: Path, described: dict[str, Any], *, resume: bool) -> bool:
    """Write config.json of a new run, or make sure that the one there is the same run. True if there is nothing to resume."""
    path = folder / "config.json"
    if path.exists():
        if json.loads(path.read_text()) != described:
            raise ValueError(f"{folder} holds a different run (see its config.json); choose another `out`, or delete it.")
        if not resume:
            raise ValueError(f"{folder} holds this run already; pass resume=True to continue it, or delete it.")
        return not (folder / "checkpoint.pt").exists()
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(described, indent=2) + "\n")
    return True
