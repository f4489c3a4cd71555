"""Minari datasets in and out, against Minari itself; and what somebody might hide in an HDF5 file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from dreamgym.data import Replay
from dreamgym.data.minari import from_minari, to_minari
from dreamgym.errors import InvalidDataError, ModelNotFoundError
from dreamgym.structs import Preprocess, Spec
from tests.data import toys

h5py = pytest.importorskip("h5py")
minari = pytest.importorskip("minari")
from minari.data_collector import EpisodeBuffer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")  # it wants authors and permalinks of everybody


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Minari keeps its datasets during a test."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may build one."""

    def made(*arguments: Any, **options: Any) -> None:
        raise AssertionError("an environment was built")

    monkeypatch.setattr(gym, "make", made)


def buffer(steps: int, *, mark: float = 0.0, terminated: bool = False, **changes: Any) -> Any:
    """An episode as Minari has it: observations [mark, t, 0] at t, actions t/10, rewards 100 mark + t, of the step to t + 1."""
    t = np.arange(steps + 1, dtype=np.float64)
    ends = np.arange(steps) == steps - 1
    columns = {
        "observations": np.stack([np.full(steps + 1, mark), t, 0 * t], 1),
        "actions": (t[1:, None] / 10).astype(np.float32),
        "rewards": 100 * mark + t[1:],
        "terminations": ends & terminated,
        "truncations": ends & (not terminated),
    }
    return EpisodeBuffer(**{**columns, **changes})


UNBOUNDED = spaces.Box(-np.inf, np.inf, (3,), np.float64)
TORQUE = spaces.Box(-2.0, 2.0, (1,), np.float32)


def theirs(*buffers: Any, name: str = "toy/hand-v0", observation_space: Any = UNBOUNDED, action_space: Any = TORQUE, **more: Any) -> Path:
    """A dataset that Minari wrote."""
    made = minari.create_dataset_from_buffers(name, list(buffers), observation_space=observation_space, action_space=action_space, **more)
    return Path(made.storage.data_path).parent


# ---- theirs to ours -----------------------------------------------------------------------------------------------------


def test_rows_hold_the_reward_and_the_action_that_led_there() -> None:
    theirs(buffer(3, mark=1, terminated=True))
    replay = from_minari("toy/hand-v0")
    rows = replay.sequence(0, 4)[0]
    assert rows.obs[:, 1].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(rows.prev_action[:, 0], [0, 0.05, 0.1, 0.15], rtol=1e-6)  # actions 0.1, 0.2, 0.3 of -2 to 2
    assert rows.reward.tolist() == [0, 101, 102, 103]
    assert rows.is_first.tolist() == [True, False, False, False]
    assert rows.is_last.tolist() == rows.is_terminal.tolist() == [False, False, False, True]


def test_terminations_and_truncations_stay_apart() -> None:
    theirs(buffer(2, terminated=True), buffer(4), buffer(3, truncations=np.zeros(3, bool)))
    replay = from_minari("toy/hand-v0")
    assert replay.episodes == ((0, 3), (3, 8), (8, 12))
    assert replay.column("is_terminal").nonzero()[0].tolist() == [2]  # what merely stopped was cut


def test_vectors_look_as_make_env_shows_them() -> None:
    theirs(buffer(2, mark=3e7))
    replay = from_minari("toy/hand-v0")
    assert replay.spec.observation_space == spaces.Box(-1e6, 1e6, (3,), np.float32)
    assert replay.column("obs")[0].tolist() == [1e6, 0, 0]


def test_the_env_spec_is_read_for_an_id_and_a_time_limit_and_never_made() -> None:
    spec = gym.envs.registration.EnvSpec("Evil-v3", entry_point="os:system", kwargs={"command": "touch x"}, max_episode_steps=70)
    folder = theirs(buffer(5))
    edit_metadata(folder, lambda metadata: metadata.update(env_spec=spec.to_json()))
    found = from_minari("toy/hand-v0").spec
    assert (found.env_id, found.max_episode_steps, found.fps) == ("Evil-v3", 70, 30)
    assert not Path("x").exists()


def test_without_an_env_spec_the_dataset_names_the_world_and_its_longest_episode_the_limit() -> None:
    theirs(buffer(5), buffer(7))
    found = from_minari("toy/hand-v0").spec
    assert (found.env_id, found.max_episode_steps) == ("toy/hand-v0", 7)


def test_the_caller_knows_better() -> None:
    folder = theirs(buffer(5))
    found = from_minari(folder, env_id="Mine-v1", max_episode_steps=40, fps=12.0)
    assert (found.spec.env_id, found.spec.max_episode_steps, found.spec.fps) == ("Mine-v1", 40, 12.0)
    assert found.source == "minari:toy/hand-v0"


def test_actions_outside_their_space_are_clipped_with_a_warning() -> None:
    theirs(buffer(3, actions=np.array([[0.0], [2.5], [-9.0]], np.float32)))
    with pytest.warns(UserWarning, match="2 actions lay outside"):
        replay = from_minari("toy/hand-v0")
    assert replay.column("prev_action")[:, 0].tolist() == [0, 0, 1, -1]


def test_classes_keep_their_first_one() -> None:
    theirs(buffer(3, actions=np.array([1, 4, 2])), action_space=spaces.Discrete(4, start=1))
    assert from_minari("toy/hand-v0").column("prev_action").argmax(1).tolist() == [0, 0, 3, 1]


def test_parts_and_choices_are_read() -> None:
    theirs(buffer(4, observations=toys.parts(4, mark=7), actions=np.stack([np.arange(4) % 2, 5 + np.arange(4) % 3], 1)),
           observation_space=toys.PARTS, action_space=toys.CHOICES.action_space)  # fmt: skip
    replay = from_minari("toy/hand-v0")
    assert replay.spec.observation_parts.keys() == {"camera", "gear", "speed"}
    rows = replay.sequence(0, 5)[0]
    assert rows.obs["gear"].tolist() == [-1, 0, 1, -1, 0] and (rows.obs["camera"] == 7).all()
    assert rows.prev_action.tolist() == [[0] * 5, [1, 0, 1, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]


@pytest.mark.parametrize("shape", [(32, 40, 3), (32, 40)])
@pytest.mark.parametrize("jpeg", [True, False])
def test_images_are_read_raw_and_as_jpeg(shape: tuple[int, ...], jpeg: bool) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 200, 40).astype(np.uint8).reshape(1, 1, 40, *(1,) * (len(shape) - 2)), (4, *shape))
    made = minari.dataset.minari_storage.MinariStorage.new(data_folder("toy/images-v0"), space, TORQUE, jpeg_encoding=jpeg)
    made.update_episodes([buffer(3, observations=np.array(ramp))])
    replay = from_minari("toy/images-v0")
    assert replay.spec.is_image and replay.spec.observation_space.shape == (32, 40, shape[2] if shape[2:] else 1)
    error = np.abs(replay.column("obs").astype(int) - ramp.reshape(4, *replay.spec.observation_space.shape))
    assert error.max() <= (8 if jpeg else 0)  # JPEG is never exact


def data_folder(name: str) -> Path:
    folder = Path(os.environ["MINARI_DATASETS_PATH"]) / name / "data"
    folder.mkdir(parents=True)
    return folder


def test_rows_go_to_a_folder_of_the_callers(tmp_path: Path) -> None:
    theirs(buffer(3), buffer(2))
    from_minari("toy/hand-v0", folder=tmp_path / "rows")
    assert Replay(from_minari("toy/hand-v0").spec, tmp_path / "rows").episodes == ((0, 4), (4, 7))
    with pytest.raises(ValueError, match="choose an empty folder"):
        from_minari("toy/hand-v0", folder=tmp_path / "rows")


# ---- ours to theirs and back --------------------------------------------------------------------------------------------


def lived(spec: Spec) -> Replay:
    """Episodes of every ending, by two policies, one of whose observations mean nothing."""
    replay = Replay(spec)
    rng = np.random.default_rng(0)
    spec.action_space.seed(0)
    for number, steps in enumerate((3, 1, 5)):
        obs: Any = toys.parts(steps, mark=number) if spec is toys.CHOICES else rng.normal(size=(steps + 1, 3))
        if spec.is_image:
            obs = rng.integers(0, 256, (steps + 1, *spec.observation_space.shape), dtype=np.uint8)
        actions = np.stack([spec.action_space.sample() for _ in range(steps)])
        valid = np.arange(steps + 1) < steps if number == 1 else None
        replay.add_episode(obs, actions, rng.normal(size=steps), number == 0, number > 0, valid, f"policy{number % 2}")
    return replay


BIG = Spec(
    "Toy-v0", spaces.Box(0, 255, (32, 32, 3), np.uint8), spaces.Discrete(2), 10, 15.0, Preprocess(size=32, action_repeat=2)
)  # Minari would make JPEGs of these
WORLDS = {"vectors": toys.VECTOR, "classes": toys.CLASSES, "parts and choices": toys.CHOICES, "small": toys.IMAGE, "images": BIG}


@pytest.mark.parametrize("spec", WORLDS.values(), ids=WORLDS.keys())
def test_a_replay_goes_out_and_comes_back_the_same(spec: Spec) -> None:
    replay = lived(spec)
    to_minari(replay, "toy/ours-v0")
    back = from_minari("toy/ours-v0")
    assert (back.spec, back.episodes, back.policies) == (spec, replay.episodes, replay.policies)
    for name in ("reward", "is_first", "is_last", "is_terminal", "valid"):
        assert (back.column(name) == replay.column(name)).all(), name
    np.testing.assert_allclose(back.column("prev_action"), replay.column("prev_action"), atol=1e-6)
    mine, its = replay.column("obs"), back.column("obs")
    for part in mine if isinstance(mine, dict) else [slice(None)]:
        assert (mine[part] == its[part]).all()


@pytest.mark.parametrize("spec", WORLDS.values(), ids=WORLDS.keys())
def test_minari_opens_what_we_wrote(spec: Spec) -> None:
    replay = lived(spec)
    to_minari(replay, "toy/ours-v0", author="somebody", description="by hand")
    opened = minari.load_dataset("toy/ours-v0")
    assert (opened.total_episodes, opened.total_steps, opened.observation_space) == (3, 9, spec.observation_space)
    for (start, stop), episode in zip(replay.episodes, opened.iterate_episodes()):
        rows = replay.sequence(start, stop)[0]
        assert len(episode.rewards) == stop - start - 1 and np.allclose(episode.rewards, rows.reward[1:])
        assert bool(episode.terminations[-1]) == bool(rows.is_terminal[-1]) != bool(episode.truncations[-1])
        assert all(spec.action_space.contains(action) for action in episode.actions)
        assert np.allclose(episode.actions, spec.to_env_action(rows.prev_action[1:]))
        mine = rows.obs if isinstance(rows.obs, dict) else {"": rows.obs}
        its = episode.observations if isinstance(episode.observations, dict) else {"": episode.observations}
        assert all((its[name] == mine[name].numpy()).all() for name in mine)


def test_minari_can_add_to_what_we_wrote() -> None:
    to_minari(lived(toys.VECTOR), "toy/ours-v0")
    minari.load_dataset("toy/ours-v0").update_dataset_from_buffer([buffer(4)])
    assert from_minari("toy/ours-v0").num_steps == 9 + 4


def test_a_folder_is_written_and_read_as_one(tmp_path: Path) -> None:
    folder = to_minari(lived(toys.VECTOR), tmp_path / "ours-v2")
    assert folder == tmp_path / "ours-v2" and sorted(os.listdir(folder / "data")) == ["main_data.hdf5", "metadata.json"]
    assert from_minari(folder).source == "minari:ours-v2"
    assert from_minari(str(folder / "data")).num_steps == 9
    with pytest.raises(ValueError, match="holds a dataset already"):
        to_minari(lived(toys.VECTOR), folder)


@pytest.mark.parametrize("name", ["no version", "toy", "toy-v", "toy.x-v0"])
def test_names_that_minari_would_refuse_are_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"-v0|not a Minari id"):
        to_minari(lived(toys.VECTOR), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_nothing_is_written_of_an_empty_replay_or_with_unknown_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot write 0 episodes"):
        to_minari(Replay(toys.VECTOR), tmp_path / "a-v0")
    with pytest.raises(ValueError, match="env_spec"):
        to_minari(lived(toys.VECTOR), tmp_path / "a-v0", env_spec="x")


# ---- what might be hidden in a dataset ----------------------------------------------------------------------------------


def edit_metadata(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize("name", ["toy/none-v0", Path("none")])
def test_a_dataset_that_is_not_there_is_not_found(name: str | Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        from_minari(name if isinstance(name, str) else tmp_path / name)


@pytest.mark.parametrize("name", ["../../etc-v0", "toy/../x-v0", "/etc/x-v0", "https://x.org/y-v0", "", "toy\0-v0"])
def test_an_id_is_never_a_path(name: str) -> None:
    with pytest.raises((ValueError, ModelNotFoundError)):
        from_minari(name)


METADATA: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no observation space, so an env would have to be built": (lambda data: data.pop("observation_space"), "observation_space' is None"),
    "no action space": (lambda data: data.pop("action_space"), "action_space' is None"),
    "another kind of space": (lambda data: data.update(action_space='{"type": "Text"}'), "type 'Text'; expected Box"),
    "code as a space": (lambda data: data.update(action_space='{"type": "os:system"}'), "type 'os:system'"),
    "a huge space": (
        lambda data: data.update(action_space='{"type":"Box","dtype":"float32","shape":[1000000,1000000],"low":0,"high":1}'),
        "more than 10000000 elements",
    ),
    "a space with extras": (lambda data: data.update(action_space='{"type":"Discrete","n":2,"x":1}'), "unknown key 'x'"),
    "NaN bounds": (
        lambda data: data.update(action_space='{"type":"Box","dtype":"float32","shape":[1],"low":NaN,"high":1}'),
        "NaN, infinite or too large",
    ),
    "arrow": (lambda data: data.update(data_format="arrow"), "'data_format' is 'arrow'; expected hdf5"),
    "no episodes": (lambda data: data.update(total_episodes=0), "'total_episodes' is 0"),
    "endless episodes": (lambda data: data.update(total_episodes=10**12), "'total_episodes' is"),
    "more episodes than there are": (lambda data: data.update(total_episodes=3), r"episode_2: missing"),
    "a spec that is no text": (lambda data: data.update(env_spec={"id": "x"}), "'env_spec' is"),
    "a spec that is no JSON": (lambda data: data.update(env_spec="("), "'env_spec' is not JSON"),
    "another spec of ours": (lambda data: data.update(dreamgym_spec={}), "'dreamgym_spec' lacks the key"),
}  # fmt: skip


@pytest.mark.parametrize("change,word", METADATA.values(), ids=METADATA.keys())
def test_forged_metadata_is_refused_by_name(change: Callable[[dict[str, Any]], Any], word: str) -> None:
    folder = theirs(buffer(3), buffer(2))
    edit_metadata(folder, change)
    with pytest.raises(InvalidDataError, match=word) as caught:
        from_minari(folder)
    assert str(caught.value).startswith(f"{folder}/data/")


def test_a_spec_of_ours_with_other_spaces_is_refused() -> None:
    folder = to_minari(lived(toys.VECTOR), "toy/ours-v0")
    edit_metadata(folder, lambda data: data.update(action_space='{"type":"Discrete","dtype":"int64","n":2,"start":0}'))
    with pytest.raises(InvalidDataError, match="other spaces than the dataset"):
        from_minari(folder)


ELSEWHERE = "elsewhere/secret"  # relative and absent: nothing must come to harm where a check fails


def replaced(name: str, **options: Any) -> Callable[[Any], None]:
    """Put another dataset in the place of one of the first episode."""

    def change(file: Any) -> None:
        group = file["episode_0"]
        if name in group:
            del group[name]
        group.create_dataset(name, **options)

    return change


def linked(name: str, link: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file["episode_0"][name]
        file["episode_0"][name] = link

    return change


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(ELSEWHERE, "x", (3,))
    del file["episode_0/rewards"]
    file["episode_0"].create_virtual_dataset("rewards", layout)


def plugin(file: Any) -> None:
    """A dataset that some compression plugin would have to open."""
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((3,))
    made.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
    del file["episode_0/rewards"]
    h5py.h5d.create(file["episode_0"].id, b"rewards", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((3,)), dcpl=made)


HDF5: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a link into another file": (linked("rewards", h5py.ExternalLink(ELSEWHERE, "x")), "rewards: a ExternalLink"),
    "a soft link": (linked("rewards", h5py.SoftLink("/episode_1/rewards")), "rewards: a SoftLink"),
    "numbers in another file": (
        replaced("rewards", shape=(3,), dtype="f8", external=[(ELSEWHERE, 0, 24)]), "rewards: its numbers lie in other files"
    ),
    "a virtual dataset": (virtual, "rewards: its numbers lie in other files"),
    "a compression plugin": (plugin, r"compression plugins \[32015\]"),
    "terabytes of zeros": (replaced("rewards", shape=(10**12,), dtype="f8", chunks=(1000,)), "take more than 2147483648 bytes"),
    "a group for an array": (
        lambda file: (file["episode_0"].pop("rewards"), file["episode_0"].create_group("rewards")), "a Group; expected a Dataset"
    ),
    "an array for a group": (
        lambda file: (file.pop("episode_0"), file.create_dataset("episode_0", data=[1])), "a Dataset; expected a Group"
    ),
    "no observations": (lambda file: file["episode_0"].pop("observations"), "observations: missing"),
    "observations without the last": (replaced("observations", data=np.zeros((3, 3))), r"shape is \(3, 3\); expected \(4, 3\)"),
    "actions of another length": (replaced("actions", data=np.zeros((4, 1))), r"shape is \(4, 1\); expected \(3, 1\)"),
    "text for numbers": (replaced("rewards", data=[b"a", b"b", b"c"]), "dtype is"),
    "objects for numbers": (replaced("rewards", data=["a", "b", "c"], dtype=h5py.string_dtype()), "dtype is object"),
    "NaN observed": (replaced("observations", data=np.full((4, 3), np.nan)), "episode_0: observation is NaN"),
    "NaN reward": (replaced("rewards", data=np.full(3, np.nan)), "episode_0: reward is NaN"),
    "NaN action": (replaced("actions", data=np.full((3, 1), np.nan)), "episode_0: action is NaN"),
    "dies and lives on": (replaced("terminations", data=np.array([True, False, True])), "terminations: true at step 0 of 3"),
    "flags that are none": (replaced("truncations", data=np.array([0, 0, 7])), "truncations: dtype is int64"),
    "no step": (lambda file: [replaced(name, data=np.zeros((0, 1)[:rank]))(file) for name, rank in (("rewards", 1), ("actions", 2))],
                "terminations: shape is|expected T"),
}  # fmt: skip


@pytest.mark.parametrize("change,word", HDF5.values(), ids=HDF5.keys())
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_forged_files_are_refused_by_name(change: Callable[[Any], Any], word: str, tmp_path: Path) -> None:
    folder = theirs(buffer(3), buffer(2))
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        change(file)
    with pytest.raises(InvalidDataError, match=word) as caught:
        from_minari(folder, folder=tmp_path / "rows")
    assert str(caught.value).startswith(f"{folder}/data/main_data.hdf5/episode_0")
    assert not (tmp_path / "rows").exists() or not os.path.getsize(tmp_path / "rows" / "commits.jsonl")


@pytest.mark.parametrize("content", [b"", b"\x80\x04cos\nsystem\n", b"\x89HDF\r\n\x1a\n" + b"\0" * 500])
def test_what_is_no_hdf5_is_refused(content: bytes) -> None:
    folder = theirs(buffer(3))
    (folder / "data" / "main_data.hdf5").write_bytes(content)
    with pytest.raises(InvalidDataError, match=r"main_data\.hdf5: not consistent HDF5"):
        from_minari(folder)


def test_links_to_files_and_pipes_are_not_opened(tmp_path: Path) -> None:
    folder = theirs(buffer(3))
    main = folder / "data" / "main_data.hdf5"
    main.rename(tmp_path / "elsewhere.hdf5")
    main.symlink_to(tmp_path / "elsewhere.hdf5")
    with pytest.raises(InvalidDataError, match="not a regular file"):
        from_minari(folder)
    main.unlink()
    os.mkfifo(main)
    with pytest.raises(InvalidDataError, match="not a regular file"):
        from_minari(folder)


def test_more_rows_than_allowed_are_refused() -> None:
    theirs(buffer(100))
    with pytest.raises(InvalidDataError, match="take more than 2000 bytes, the limit, which max_bytes= raises"):
        from_minari("toy/hand-v0", max_bytes=2000)


@pytest.mark.parametrize("size,mode", [((5000, 5000), "RGB"), ((32, 32), "L"), ((40, 32), "RGB")])
def test_a_jpeg_that_is_larger_than_its_space_is_not_decoded(size: tuple[int, int], mode: str, tmp_path: Path) -> None:
    from PIL import Image

    space = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    folder = theirs(buffer(2, observations=np.zeros((3, 32, 32, 3), np.uint8)), observation_space=space)
    Image.new(mode, size).save(tmp_path / "large.jpeg")
    data = np.frombuffer((tmp_path / "large.jpeg").read_bytes(), np.uint8)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/observations"]
        stored = file.create_dataset("episode_0/observations", (3,), dtype=h5py.vlen_dtype(np.uint8))
        for row in range(3):
            stored[row] = data
    with pytest.raises(InvalidDataError, match=r"at row 0: (not a JPEG that fits|a JPEG of)"):
        from_minari(folder)


def test_pictures_in_other_formats_are_not_decoded(tmp_path: Path) -> None:
    from PIL import Image

    space = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    folder = theirs(buffer(2, observations=np.zeros((3, 32, 32, 3), np.uint8)), observation_space=space)
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    data = np.frombuffer((tmp_path / "x.png").read_bytes(), np.uint8)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/observations"]
        file.create_dataset("episode_0/observations", data=np.stack([data] * 3))
    with pytest.raises(InvalidDataError, match="at row 0: not a JPEG that fits"):
        from_minari(folder)


def test_spaces_that_models_cannot_use_are_named() -> None:
    theirs(buffer(2), action_space=spaces.Box(-np.inf, np.inf, (1,), np.float32))
    with pytest.raises(TypeError, match="finite bounds"):
        from_minari("toy/hand-v0")


def test_a_replay_with_another_spec_is_not_mistaken_for_ours() -> None:
    """float64 stays float64 in what we wrote ourselves, and infinite bounds stay infinite."""
    spec = replace(toys.VECTOR, observation_space=spaces.Box(-np.inf, np.inf, (3,), np.float64))
    replay = Replay(spec)
    replay.add_episode(np.full((2, 3), 1e9 + 0.1), np.zeros((1, 1)), np.zeros(1), True, False)
    to_minari(replay, "toy/ours-v0")
    assert (from_minari("toy/ours-v0").column("obs") == 1e9 + 0.1).all()
