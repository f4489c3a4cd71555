"""fit: collect real experience, learn the world, learn to act inside it, judge awake, keep the best. Resumable to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, get_args

import gymnasium as gym
import torch

from dreamgym.data.replay import Replay
from dreamgym.envs import make_env, make_spec
from dreamgym.formats.spaces import encode_space
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Preprocess, Spec
from dreamgym.training.online import OnlineTrainer
from dreamgym.training.online_config import OnlinePreset
from dreamgym.training.online_presets import ONLINE_PRESETS, Size, online_preset
from dreamgym.training.presets import PRESETS, Preset
from dreamgym.training.trainer import Trainer
from dreamgym.training.world_models import WorldModelsTrainer
from dreamgym.training.world_models_config import WorldModelsPreset
from dreamgym.training.world_models_presets import WORLD_MODELS_PRESETS, world_models_preprocess, world_models_preset

__all__ = ["Run", "fit"]

Recipe: TypeAlias = "Preset | OnlinePreset | WorldModelsPreset"


@dataclass(frozen=True)
class Run:
    """What fit leaves behind: the model and agent, the numbers, and the folder that holds them all.

    agent is an ActorCritic or ("world-models") a LinearController on the model's features, or a planner on its states ("planet");
    `dreamgym.agents.BeliefPolicy` lets any of them act awake. Where the preset validates awake and keeps the best, they are that pair;
    otherwise the last ones.
    """

    model: WorldModel
    agent: Any
    metrics: dict[str, Any]
    folder: Path


def fit(
    env_or_dataset: str | Replay,
    preset: str | Recipe = "ensemble",
    *,
    size: Size = "tiny",
    env_steps: int | None = None,
    preprocess: Preprocess | None = None,
    seed: int = 0,
    device: str = "cpu",
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    workers: int = 1,
    max_minutes: float | None = None,
    env_kwargs: dict[str, Any] | None = None,
) -> Run:
    """Train a world model and an agent inside it.

    env_or_dataset is a gymnasium id (real experience is collected, env_steps of the environment's own steps in all; the staged presets
    count validation in, the papers' evaluate on top) or a filled Replay (offline: nothing is collected, nothing judged awake).
    preset is a name, a Preset, an OnlinePreset or a WorldModelsPreset. Staged: "ensemble" for vector observations, "vae-rssm" for 64x64
    images, and so are "world-models" (the paper) and "world-models-fast" (hours on a CPU), whose env_steps bound the random episodes;
    validation, calibration and iterations come on top. Papers, for images, vectors and Dicts of both: "planet", "dreamer-v1",
    "dreamer-v2", "dreamer-v3", at `size` "tiny" (a CPU, minutes) or "paper".
    preprocess says how the env is to be seen (grey, stacked, cropped images, action repeat); without it the id's own way, with the
    preset's action repeat and images resized to 64 where the preset needs that.
    The run folder `out` (default runs/<env>-<preset>-<seed>) holds config.json, metrics.jsonl, TensorBoard files, checkpoint.pt,
    replay/, and at the end model/ (a bundle) and agent/.
    resume continues an interrupted run of the same settings exactly where it stood; a finished one is loaded. Ctrl-C leaves model/.
    workers > 1 collects random experience of staged presets in that many processes, with the same result; it pays for slow environments
    and needs the caller's script to be guarded by `if __name__ == "__main__":`. env_kwargs go to gymnasium.make.
    max_minutes (papers' presets only) stops this call after so much wall-clock time, at the end of an episode: model/ and agent/ are
    left as they then stand, metrics["finished"] is False, and the same call made again goes on exactly where this one stopped.

    Raises ValueError for an unknown preset or size, spaces that do not fit, a budget that the papers' random prefill would use up, or
    a folder that holds a different run; TypeError for spaces that no model folder can hold; NonFiniteLossError where training meets NaN.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch finds no CUDA device here; pass device='cpu'.")
    _check_preset(preset, size, env_steps, max_minutes)
    if not isinstance(env_or_dataset, (str, Replay)):
        raise TypeError(f"env_or_dataset is a {type(env_or_dataset).__name__}; expected a gymnasium id such as 'Pendulum-v1', or a Replay.")
    with ExitStack() as closing:
        if isinstance(env_or_dataset, Replay):
            env, spec = None, env_or_dataset.spec
            chosen = _choose_preset(preset, spec, size, env_steps)
        else:
            env, spec, chosen = _make_world(
                env_or_dataset, preprocess, env_kwargs or {}, lambda spec: _choose_preset(preset, spec, size, env_steps)
            )
            closing.callback(env.close)
        folder = Path(out) if out is not None else Path("runs") / f"{spec.env_id.replace('/', '-')}-{chosen.name}-{seed}"
        _check_world(chosen, spec, lived=env is not None)
        fresh = _open_folder(folder, _described(spec, chosen, seed, env_kwargs, preprocess), chosen, resume=resume)
        options: dict[str, Any] = {"seed": seed, "device": device, "folder": folder, "progress": progress, "env": env}
        if isinstance(chosen, OnlinePreset):
            trainer: OnlineTrainer | Trainer | WorldModelsTrainer = OnlineTrainer(
                spec, chosen, env_kwargs=env_kwargs, max_minutes=max_minutes, **options
            )
        elif isinstance(chosen, WorldModelsPreset):
            trainer = WorldModelsTrainer(spec, chosen, env_kwargs=env_kwargs, workers=workers, **options)
        else:
            trainer = Trainer(spec, chosen, env_kwargs=env_kwargs, workers=workers, **options)
        closing.callback(trainer.close)
        if isinstance(env_or_dataset, Replay):
            trainer.use_dataset(env_or_dataset)
        if not fresh:
            trainer.resume()
        try:
            metrics = trainer.run()
        except KeyboardInterrupt:
            trainer.export()
            raise
    return Run(trainer.model, trainer.agent, metrics, folder)


def _check_preset(preset: str | Recipe, size: Size, env_steps: int | None, max_minutes: float | None) -> None:
    if size not in get_args(Size):
        raise ValueError(f"size is {size!r}; expected {' or '.join(get_args(Size))}.")
    staged = (*PRESETS, *WORLD_MODELS_PRESETS)
    if isinstance(preset, str) and preset not in staged and preset not in ONLINE_PRESETS:
        raise ValueError(f"no preset {preset!r}; there are {', '.join(sorted([*staged, *ONLINE_PRESETS]))}.")
    if env_steps is not None and env_steps < 100:
        raise ValueError(f"env_steps is {env_steps}; expected at least 100 steps of the real environment.")
    if max_minutes is not None and not max_minutes > 0.0:
        raise ValueError(f"max_minutes is {max_minutes}; expected None or a positive number of minutes.")
    if max_minutes is not None and (isinstance(preset, (Preset, WorldModelsPreset)) or preset in staged):
        raise ValueError(f"max_minutes is for {', '.join(ONLINE_PRESETS)}; a staged preset is bounded by env_steps.")


def _check_world(preset: Recipe, spec: Spec, *, lived: bool) -> None:
    """Raises for a preset and spaces that could not be trained or saved, before anything is written. lived: real steps are to be taken."""
    with torch.device("meta"):
        WorldModel(spec, preset.model)
    for space in (spec.observation_space, spec.action_space):
        encode_space(space)
    if lived and isinstance(preset, OnlinePreset):
        _check_budget(preset, spec)


def _check_budget(preset: OnlinePreset, spec: Spec) -> None:
    training, repeat = preset.training, spec.preprocess.action_repeat
    if training.env_steps // repeat <= training.prefill:
        raise ValueError(
            f"env_steps is {training.env_steps}, or {training.env_steps // repeat} agent steps at action repeat {repeat}; preset "
            f"{preset.name!r} acts at random for the first {training.prefill} of them, so nothing would be learned: expected more than "
            f"{training.prefill * repeat} env_steps, or a preset with a smaller prefill."
        )


def _choose_preset(preset: str | Recipe, spec: Spec, size: Size, env_steps: int | None) -> Recipe:
    if isinstance(preset, str):
        preset = _named_preset(preset, spec, size)
    if env_steps is None:
        return preset
    if isinstance(preset, OnlinePreset):
        return replace(preset, training=replace(preset.training, env_steps=env_steps))
    if isinstance(preset, WorldModelsPreset):
        return replace(preset, collection=replace(preset.collection, env_steps=env_steps))
    return replace(preset, collection=replace(preset.collection, env_steps=env_steps))


def _named_preset(name: str, spec: Spec, size: Size) -> Recipe:
    if name in WORLD_MODELS_PRESETS:
        return world_models_preset(name, spec)
    return PRESETS[name] if name in PRESETS else online_preset(name, spec, size)


def _make_world(
    env_id: str, preprocess: Preprocess | None, env_kwargs: dict[str, Any], choose: Callable[[Spec], Recipe]
) -> tuple[gym.Env[Any, Any], Spec, Recipe]:
    """The env as the caller or else the preset wants it: with its action repeat, and images that its convolutions can read."""
    env = make_env(env_id, preprocess=preprocess, **env_kwargs)
    with ExitStack() as unsuited:
        unsuited.callback(env.close)
        spec = make_spec(env, env_id)
        chosen = choose(spec)
        wanted = spec.preprocess
        if preprocess is None:
            wanted = _wanted_preprocess(spec, chosen)
        if wanted == spec.preprocess:
            unsuited.pop_all()
            return env, spec, chosen
    return _make_world(env_id, wanted, env_kwargs, choose)


def _wanted_preprocess(spec: Spec, preset: Recipe) -> Preprocess:
    wanted = spec.preprocess
    if isinstance(preset, WorldModelsPreset):
        return world_models_preprocess(preset.name, spec)
    if isinstance(preset, Preset):
        return wanted
    if preset.action_repeat is not None:
        wanted = replace(wanted, action_repeat=preset.action_repeat)
    sizes = {(spec.observation_parts[name].shape or ())[:2] for name in spec.image_names}
    if sizes and not sizes <= {(edge, edge) for edge in _IMAGE_SIZES}:
        wanted = replace(wanted, size=64)
    return wanted


_IMAGE_SIZES = (32, 64, 128)


def _described(spec: Spec, preset: Recipe, seed: int, env_kwargs: dict[str, Any] | None, preprocess: Preprocess | None) -> dict[str, Any]:
    """What config.json says of a run, and what a call must say again to resume it."""
    described: dict[str, Any] = {"env_id": spec.env_id, "seed": seed, "preset": json.loads(json.dumps(asdict(preset)))}
    described["kinds"] = _kinds(preset)
    if env_kwargs:
        described["env_kwargs"] = env_kwargs
    if preprocess is not None:
        described["preprocess"] = json.loads(json.dumps(asdict(preprocess)))
    return described


def _open_folder(folder: Path, described: dict[str, Any], preset: Recipe, *, resume: bool) -> bool:
    """Write config.json of a new run, or make sure that the one there is the same run. True if there is nothing to resume."""
    path = folder / "config.json"
    if path.exists():
        written = json.loads(path.read_text())
        if "kinds" not in written:  # begun before they were noted
            described = {name: value for name, value in described.items() if name != "kinds"}
        _forget_later_fields(described["preset"], written.get("preset"), preset)
        if written != described:
            raise ValueError(f"{folder} holds a different run (see its config.json); choose another `out`, or delete it.")
        if not resume:
            raise ValueError(f"{folder} holds this run already; pass resume=True to continue it, or delete it.")
        return not (folder / "checkpoint.pt").exists()
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(described, indent=2) + "\n")
    return True


def _forget_later_fields(described: dict[str, Any], written: Any, config: Any) -> None:
    """Drop from a preset's description what the run's own does not know and what is at its default: fields that came after it began."""
    for entry in fields(config):
        value = getattr(config, entry.name)
        if not isinstance(written, dict):
            return
        if entry.name in written:
            if is_dataclass(value):
                _forget_later_fields(described[entry.name], written[entry.name], value)
        elif value == entry.default:
            del described[entry.name]


def _kinds(config: Any, where: str = "preset") -> dict[str, str]:
    """The classes inside a preset, by where they stand: without their names a GRUConfig and a LayerNormGRUConfig are both {}."""
    kinds = {where: type(config).__name__}
    for entry in fields(config):
        value = getattr(config, entry.name)
        if is_dataclass(value):
            kinds |= _kinds(value, f"{where}.{entry.name}")
    return kinds
