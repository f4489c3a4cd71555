"""Films are h264 that browsers play, of as many frames as steps, and show dream and reality."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from dreamgym import errors
from dreamgym.dreams.env import DreamEnv
from dreamgym.evaluation.comparison import awake_env
from dreamgym.evaluation.player import film_dream, has_display, keyboard, play_by_hand
from dreamgym.evaluation.policies import constant_policies
from dreamgym.evaluation.video import REPLAY_BYTES, compose, film, film_replay, write_video
from tests.evaluation.line import ACTION, ENV_ID, LineModel, register

encoder = pytest.importorskip("imageio_ffmpeg")


@pytest.fixture(autouse=True)
def line_is_registered() -> Iterator[None]:
    register()
    yield
    gym.registry.pop(ENV_ID, None)


def facts(path: Path) -> dict[str, Any]:
    reader = encoder.read_frames(str(path))
    found: dict[str, Any] = next(reader)
    reader.close()
    return found


def test_mp4_is_h264_in_yuv420p_with_every_frame(tmp_path: Path) -> None:
    frames = [np.full((20, 30, 3), 10 * index, np.uint8) for index in range(7)]
    assert write_video(tmp_path / "deep" / "film.mp4", frames, fps=10) == 7
    found = facts(tmp_path / "deep" / "film.mp4")
    assert (found["codec"], found["size"], found["fps"]) == ("h264", (30, 20), 10.0)
    assert found["pix_fmt"].startswith("yuv420p")
    assert encoder.count_frames_and_secs(str(tmp_path / "deep" / "film.mp4"))[0] == 7


def test_gif_keeps_its_frames(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    frames = [np.full((20, 30, 3), 30 * index, np.uint8) for index in range(5)]
    write_video(tmp_path / "film.gif", frames, fps=10)
    assert image.open(tmp_path / "film.gif").n_frames == 5


def test_a_film_without_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "film.mp4", [], fps=10)


def test_panels_are_stacked_in_even_sizes_and_not_painted_over() -> None:
    top, bottom = np.full((11, 33, 3), 200, np.uint8), np.full((21, 21, 3), 90, np.uint8)
    stacked = compose([("real", top), ("reconstruction", bottom)], "step 1")
    assert stacked.shape[0] % 2 == stacked.shape[1] % 2 == 0
    assert stacked.shape[1] == 20
    assert (stacked == 200).all(-1).any() and (stacked == 90).all(-1).any()
    assert stacked[:16].max() > 100  # the label


def test_film_of_an_episode_awake_counts_its_steps_and_reward(tmp_path: Path) -> None:
    env = awake_env(LineModel(), render_mode="rgb_array")
    filmed = film(constant_policies(ACTION)["always 2"], env, tmp_path / "film.mp4", seed=3, size=64)
    assert (filmed.steps, filmed.reward) == (5, pytest.approx(1.5))
    assert encoder.count_frames_and_secs(str(filmed.path))[0] == 6
    assert facts(filmed.path)["fps"] == 10.0


def test_the_open_loop_dream_adds_a_panel(tmp_path: Path) -> None:
    policy = constant_policies(ACTION)["always 0"]
    sizes = []
    for open_loop in (False, True):
        env = awake_env(LineModel(bias=0.1), render_mode="rgb_array")
        path = film(policy, env, tmp_path / f"{open_loop}.mp4", seed=0, size=64, max_steps=8, open_loop=open_loop).path
        assert encoder.count_frames_and_secs(str(path))[0] == 9
        sizes.append(facts(path)["size"][1])
    assert sizes[1] == sizes[0] + 64 + 16


def test_a_film_needs_a_render_mode_and_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        film(constant_policies(ACTION)["always 0"], awake_env(LineModel()), tmp_path / "film.mp4", seed=0)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(errors.MissingDependencyError, match=r"dreamgym\[viz\]"):
        write_video(tmp_path / "film.mp4", [np.zeros((2, 2, 3), np.uint8)], fps=1)


def test_a_replay_is_small_h264_of_even_size_with_reality_above_the_dream(tmp_path: Path) -> None:
    filmed = film_replay(constant_policies(ACTION)["always 2"], LineModel(), tmp_path / "model", size=64)
    assert filmed.path == tmp_path / "model" / "replay.mp4" and filmed.steps == 5
    found = facts(filmed.path)
    assert (found["codec"], found["size"][0] % 2, found["size"][1] % 2) == ("h264", 0, 0)
    assert found["pix_fmt"].startswith("yuv420p")
    assert found["size"][1] > 2 * 64  # three panels
    assert filmed.path.stat().st_size <= REPLAY_BYTES


def test_a_bound_on_bits_is_kept_by_frames_that_cannot_be_compressed(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 256, (128, 128, 3), np.uint8) for _ in range(40)]
    sizes = []
    for rate in (None, 100_000.0):
        write_video(tmp_path / "film.mp4", noise, fps=10, bits_per_second=rate)
        sizes.append((tmp_path / "film.mp4").stat().st_size)
    assert sizes[0] > 2 * sizes[1]
    assert sizes[1] <= 100_000 / 8 * 5  # four seconds, and one of buffer


def test_a_film_that_cannot_be_made_small_enough_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    env = awake_env(LineModel(), render_mode="rgb_array")
    with pytest.raises(ValueError, match="more than 10; pass fewer max_steps"):
        film(constant_policies(ACTION)["always 0"], env, tmp_path / "film.mp4", seed=0, size=64, max_bytes=10)
    assert not list(tmp_path.iterdir())


def test_film_of_a_dream_goes_on_over_episodes(tmp_path: Path) -> None:
    env = DreamEnv(LineModel(), obs_type="latent", render_mode="rgb_array", render_size=64, horizon=20, max_uncertainty=np.inf)
    filmed = film_dream(env, constant_policies(ACTION)["always 2"], tmp_path / "dream.mp4", seed=0, steps=12)
    assert filmed.steps == 12
    assert encoder.count_frames_and_secs(str(filmed.path))[0] == 13


def test_keys_push_the_ends_of_a_box_and_none_is_its_middle() -> None:
    box = gym.spaces.Box(np.array([-1, 0], np.float32), np.array([1, 4], np.float32))
    keys, noop = keyboard(box)
    assert noop.tolist() == [0, 2]
    assert {key: action.tolist() for key, action in keys.items()} == {
        "a": [-1, 2], "d": [1, 2], "s": [0, 0], "w": [0, 4],
        "as": [-1, 0], "aw": [-1, 4], "ds": [1, 0], "dw": [1, 4],
    }  # fmt: skip
    assert all(box.contains(action) for action in [noop, *keys.values()])


def test_digits_choose_classes() -> None:
    keys, noop = keyboard(gym.spaces.Discrete(3, start=5))
    assert (keys, noop) == ({"1": 5, "2": 6, "3": 7, "a": 5, "d": 7}, 5)


def test_no_window_opens_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not has_display()
    with pytest.raises(OSError, match="no display"):
        play_by_hand(DreamEnv(LineModel(), render_mode="rgb_array"))
