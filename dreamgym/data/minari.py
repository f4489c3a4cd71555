"""Minari datasets in and out: the arrays alone. No environment is built, and none of its EnvSpec is used but the id, as text.

Minari itself is not needed: its files are HDF5 (read by h5py, extra "minari") and JSON. It keeps T+1 observations beside T actions and
rewards; a Replay's row t holds obs_t with the reward and the action that led there.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from dreamgym.data.hdf5 import Allowance, Node, open_file
from dreamgym.data.minari_spaces import MAX_JSON, as_seen, dumps, parse_space, seen
from dreamgym.data.replay import Replay, all_or_none
from dreamgym.errors import InvalidDataError, InvalidModelError, data_errors, require
from dreamgym.formats.codec import decode_at, encode
from dreamgym.formats.files import FileSet, lies_at
from dreamgym.formats.strict_json import Place, escape, loads, quote
from dreamgym.structs import Observation, Spec, map_obs

__all__ = ["from_minari", "to_minari"]

MAX_BYTES = 2 * 1024**3  # of rows, unless the caller allows more
_METADATA, _MAIN = "metadata.json", "main_data.hdf5"
_OURS = "dreamgym_spec"  # a key of metadata.json that Minari passes over
_VERSION = "0.5.4"  # of Minari, whose files these are: the first that can leave images uncompressed
_ID = re.compile(r"(?:[A-Za-z0-9_-][\w/-]*/)?[A-Za-z0-9_-]+-v\d+", re.ASCII)
_ABOUT = ("author", "author_email", "code_permalink", "algorithm_name", "description")
_MAX_EPISODES = 1_000_000


# ---- reading ------------------------------------------------------------------------------------------------------------


def from_minari(
    dataset: str | os.PathLike[str],
    *,
    env_id: str | None = None,
    max_episode_steps: int | None = None,
    fps: float | None = None,
    folder: str | os.PathLike[str] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Replay:
    """The episodes of a Minari dataset on this machine as a Replay: offline experience for `fit`.

    dataset: an id such as "D4RL/door/human-v2" that `minari download` fetched, or the dataset's folder (a Path, or text written as one).
    Observations become what `make_env` shows: float32 vectors, uint8 images; JPEG images are decoded; infos are left behind. Actions
    outside their space are clipped, as environments do, with a warning. env_id, max_episode_steps, fps: None, what the dataset says (or
    its own id, its longest episode, and 30). folder, max_bytes: as `dreamgym.hub.datasets.load_rollouts`.

    Raises ModelNotFoundError if it is not there, InvalidDataError naming the file for what is damaged, forged, misaligned or not HDF5,
    TypeError for spaces that models cannot use, MissingDependencyError without h5py.
    """
    place = _data_folder(dataset)
    files = FileSet(place, escape(str(place)), None, "Minari dataset")
    with data_errors():
        top = Place(files.where(_METADATA))
        metadata = loads(files.read(_METADATA, limit=MAX_JSON), top.where, limit=MAX_JSON)
        world = _World(metadata, top)
        with open_file(place / _MAIN) as root:
            episodes = _Episodes(root, world, Allowance(max_bytes))
            given = {"env_id": env_id, "max_episode_steps": max_episode_steps, "fps": fps}
            spec = world.spec(max(1, episodes.longest()), {name: value for name, value in given.items() if value is not None})
            replay = Replay(spec, None if folder is None else Path(folder).expanduser())
            if replay.episodes:
                raise ValueError(f"the replay in {folder} holds {len(replay.episodes)} episodes already; choose an empty folder.")
            with all_or_none(replay):
                episodes.store(replay)
    replay.source = f"minari:{world.dataset_id}"
    return replay


class _World:
    """What metadata.json says, checked; its env_spec is read for an id and a time limit, both data."""

    def __init__(self, metadata: Any, top: Place) -> None:
        if not isinstance(metadata, dict):
            raise top.error(f"is {quote(metadata)}; expected an object")
        if metadata.get("data_format", "hdf5") != "hdf5":
            raise top.key("data_format").error(
                f"is {quote(metadata['data_format'])}; expected hdf5: with Minari, MinariStorage.new(..., data_format='hdf5') and "
                "update_from_storage convert it"
            )
        self.observation_space, self.action_space = (
            parse_space(metadata.get(name), top.key(name)) for name in ("observation_space", "action_space")
        )
        episodes = metadata.get("total_episodes")
        if type(episodes) is not int or not 1 <= episodes <= _MAX_EPISODES:
            raise top.key("total_episodes").error(f"is {quote(episodes)}; expected 1 to {_MAX_EPISODES}")
        self.episodes: int = episodes
        self.dataset_id = _name(metadata.get("dataset_id")) or "unknown"
        self._top, self._metadata = top, metadata
        self.ours = self._ours()  # the whole spec, if `to_minari` wrote the dataset

    def _ours(self) -> Spec | None:
        if _OURS not in self._metadata:
            return None
        place = self._top.key(_OURS)
        spec = decode_at(Spec, self._metadata[_OURS], place)
        if (spec.observation_space, spec.action_space) != (self.observation_space, self.action_space):
            raise place.error("has other spaces than the dataset")
        return spec

    def spec(self, longest: int, given: dict[str, Any]) -> Spec:
        """How the world looks to a model. longest: steps of the longest episode. Raises TypeError for spaces that models cannot use."""
        spec = self.ours
        if spec is None:
            known = self._env_spec()
            limit = known.get("max_episode_steps")
            spec = Spec(
                env_id=_name(known.get("id")) or self.dataset_id,
                observation_space=as_seen(self.observation_space),
                action_space=self.action_space,
                max_episode_steps=limit if type(limit) is int and limit >= longest else longest,
            )
        spec = replace(spec, **given)
        spec.observation_parts  # noqa: B018 - raises
        spec.to_model_action(spec.to_env_action(torch.zeros(spec.action_size)))
        return spec

    def _env_spec(self) -> dict[str, Any]:
        text = self._metadata.get("env_spec")
        if text is None:
            return {}
        place = self._top.key("env_spec")
        if not isinstance(text, str):
            raise place.error(f"is {quote(text)}; expected text")
        try:
            found = json.loads(text)  # only an id and a number are taken from it, so it may say what it likes
        except (ValueError, RecursionError) as error:
            raise place.error("is not JSON") from error
        return found if isinstance(found, dict) else {}


class _Episodes:
    """The groups episode_0, episode_1, ... of the file."""

    def __init__(self, root: Node, world: _World, allowance: Allowance) -> None:
        self._root, self._world, self._allowance = root, world, allowance
        self._clipped = 0

    def longest(self) -> int:
        """Steps of the longest episode, by its rewards."""
        return max(self._root.group(f"episode_{number}").rows("rewards") for number in range(self._world.episodes))

    def store(self, replay: Replay) -> None:
        """Add every episode to the replay."""
        for number in range(self._world.episodes):
            episode = self._root.group(f"episode_{number}")
            try:
                self._store_one(episode, replay)
            except (InvalidDataError, InvalidModelError):
                raise
            except ValueError as error:
                raise InvalidDataError(f"{episode.where}: {error}") from error
        if self._clipped:
            warnings.warn(f"{self._clipped} actions lay outside of {replay.spec.action_space} and were clipped.", stacklevel=4)

    def _store_one(self, episode: Node, replay: Replay) -> None:
        rewards = episode.array("rewards", self._allowance, shape=(None,), kinds="fiu")
        steps = len(rewards)
        actions = self._actions(episode, steps)
        terminated, truncated = (self._end(episode, name, steps) for name in ("terminations", "truncations"))
        valid = None
        if self._world.ours is not None and episode.has("infos"):
            valid = episode.group("infos").array("valid", self._allowance, shape=(steps + 1,), kinds="b")
        replay.add_episode(self._obs(episode, steps + 1), actions, rewards, terminated, truncated, valid, episode.text("policy", 200))

    def _end(self, episode: Node, name: str, steps: int) -> bool:
        """Whether the episode ended so; only its last step may say it."""
        flags = episode.array(name, self._allowance, shape=(steps,), kinds="b")
        if flags[:-1].any():
            raise InvalidDataError(f"{episode.where}/{name}: true at step {int(flags.argmax())} of {steps}; only the last may be")
        return bool(flags[-1:].any())

    def _actions(self, episode: Node, steps: int) -> NDArray[Any]:
        space = self._world.action_space
        shape = space.shape
        if shape is None or isinstance(space, spaces.Dict):
            raise TypeError(f"action space {space} is not supported; expected Discrete, or MultiDiscrete or Box of one dimension.")
        actions = episode.array("actions", self._allowance, shape=(steps, *shape), kinds="f" if isinstance(space, spaces.Box) else "iu")
        if isinstance(space, spaces.Box):
            slack = 1e-3 * (space.high - space.low)
            self._clipped += int(((actions < space.low - slack) | (actions > space.high + slack)).any(-1).sum())
        return actions

    def _obs(self, episode: Node, rows: int) -> Observation:
        space = self._world.observation_space
        if not isinstance(space, spaces.Dict):
            return self._part(episode, "observations", space, rows)
        parts = episode.group("observations")
        return {name: self._part(parts, name, part, rows) for name, part in space.items()}

    def _part(self, node: Node, name: str, space: spaces.Space[Any], rows: int) -> NDArray[Any]:
        shape = tuple(space.shape or ())
        if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(shape) in (2, 3):
            values: NDArray[Any] = node.pictures(name, self._allowance, rows=rows, shape=shape)
        else:
            values = node.array(name, self._allowance, shape=(rows, *shape), kinds="fiu" if isinstance(space, spaces.Box) else "iu")
        return values if self._world.ours is not None else seen(values, space)


def _name(value: Any) -> str | None:
    """Text that may be shown and kept; ids that would import a module are refused by make_env, not here."""
    return value if isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable() else None


# ---- finding ------------------------------------------------------------------------------------------------------------


def _data_folder(dataset: str | os.PathLike[str]) -> Path:
    """Where metadata.json lies: the folder `data` of a dataset's folder."""
    if isinstance(dataset, str) and not dataset.startswith(("./", "../", "~")) and not Path(dataset).is_absolute():
        return _of_id(dataset)
    folder = Path(dataset).expanduser()
    return folder if lies_at(folder / _METADATA) else folder / "data"


def _of_id(dataset_id: str) -> Path:
    if not _ID.fullmatch(dataset_id):
        raise ValueError(
            f"{quote(dataset_id)} is not a Minari id; expected a form like D4RL/door/human-v2, or a folder written as ./folder or a Path."
        )
    root = os.environ.get("MINARI_DATASETS_PATH")
    return (Path(root) if root else Path.home() / ".minari" / "datasets") / dataset_id / "data"


# ---- writing ------------------------------------------------------------------------------------------------------------


def to_minari(replay: Replay, dataset: str | os.PathLike[str], **about: str) -> Path:
    """Write all episodes as a Minari dataset that `minari.load_dataset` opens; returns its folder.

    dataset: an id such as "toy/random-v0", put where Minari keeps its own, or a folder whose name ends like one, -v0. about: author,
    author_email, code_permalink, algorithm_name, description. Images are kept as they are, not as JPEG. What Minari has no place for
    (which observations mean nothing, who acted, the preprocessing) is written beside, so that `from_minari` gives the same replay,
    actions up to rounding.

    Raises ValueError for an id that Minari would not accept, an empty replay, other words than those or a dataset that is there already;
    MissingDependencyError without h5py.
    """
    place = _data_folder(dataset).absolute()
    folder = place.parent if place.name == "data" else place
    dataset_id = dataset if isinstance(dataset, str) and _ID.fullmatch(dataset) else folder.name
    unknown = sorted(set(about) - set(_ABOUT))
    if not _ID.fullmatch(dataset_id) or unknown or not replay.episodes:
        raise ValueError(
            f"cannot write {len(replay.episodes)} episodes as {quote(dataset_id)} with {unknown}; expected at least one, a name that ends "
            f"in a version like -v0, and of words about it {', '.join(_ABOUT)}."
        )
    if (folder / "data").exists():
        raise ValueError(f"{escape(str(folder))} holds a dataset already; delete it, or choose another version.")
    require("h5py", extra="minari", purpose="writing a Minari dataset")
    metadata = _metadata(replay, dataset_id, about)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as staging:
        draft = Path(staging, "data")
        draft.mkdir()
        _write_main(replay, draft / _MAIN)
        metadata["dataset_size"] = round((draft / _MAIN).stat().st_size / 1e6, 1)
        (draft / _METADATA).write_text(json.dumps(metadata))
        os.replace(draft, folder / "data")
    return folder


def _metadata(replay: Replay, dataset_id: str, about: dict[str, str]) -> dict[str, Any]:
    spec = replay.spec
    people: dict[str, Any] = {name: [about[name]] for name in ("author", "author_email") if name in about}
    return {
        "total_episodes": len(replay.episodes),
        "total_steps": replay.num_steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": dumps(spec.observation_space),
        "action_space": dumps(spec.action_space),
        "dataset_id": dataset_id,
        "minari_version": _VERSION,
        **about,
        **people,
        _OURS: encode(spec),
    }


def _write_main(replay: Replay, path: Path) -> None:
    import h5py

    with h5py.File(path, "w", track_order=True) as file:
        for number, ((start, stop), policy) in enumerate(zip(replay.episodes, replay.policies)):
            rows = replay.sequence(start, stop)[0]
            group = file.create_group(f"episode_{number}")
            group.attrs.update({"id": number, "total_steps": stop - start - 1, "policy": policy})
            obs = map_obs(torch.Tensor.numpy, rows.obs)
            arrays: dict[str, Any] = (
                {f"observations/{name}": part for name, part in obs.items()} if isinstance(obs, dict) else {"observations": obs}
            )
            arrays["actions"] = _env_actions(rows.prev_action[1:], replay.spec)
            arrays["rewards"] = rows.reward[1:].numpy().astype(np.float64)
            ends = np.arange(start + 1, stop) == stop - 1
            terminated = bool(rows.is_terminal[-1])
            arrays |= {"terminations": ends & terminated, "truncations": ends & (not terminated)}
            if not rows.valid.all():
                arrays["infos/valid"] = rows.valid.numpy()
            for name, values in arrays.items():
                file.create_dataset(f"episode_{number}/{name}", data=values, chunks=True, compression="gzip", shuffle=True)


def _env_actions(actions: torch.Tensor, spec: Spec) -> NDArray[Any]:
    """Env actions [T,...] in the type of their space."""
    env_actions: NDArray[Any] = spec.to_env_action(actions).numpy().astype(spec.action_space.dtype)
    if isinstance(spec.action_space, spaces.Box):
        env_actions = np.clip(env_actions, spec.action_space.low, spec.action_space.high)
    return env_actions
