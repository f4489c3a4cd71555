"""fit from end to end on tiny settings: what it leaves behind, how it stops, and that resuming changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import dreamgym
from dreamgym.data import Replay
from dreamgym.errors import NonFiniteLossError
from dreamgym.models.rssm import LayerNormGRUConfig
from dreamgym.structs import Preprocess
from dreamgym.training import trainer as training
from dreamgym.training.loop import fit
from dreamgym.training.online import OnlineTrainer
from tests.training.online_toys import TRAINING, tiny_preset
from tests.training.tiny import tiny_ensemble, tiny_vae_rssm


class Squares(gym.Env):
    """A 64x64 world whose square moves with the action; ends truncated after 40 steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.at = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-0.5, 0.5, 2)
        return self._paint(), {}

    def step(self, action):
        self.at = np.clip(self.at + 0.1 * np.asarray(action), -1, 1)
        return self._paint(), float(1.0 - np.abs(self.at).sum()), False, False, {}

    def _paint(self):
        image = np.zeros((64, 64, 3), np.uint8)
        y, x = (28 + 28 * self.at).astype(int)
        image[y : y + 8, x : x + 8] = 255
        return image


gym.register("DreamgymTests/Squares-v0", entry_point=Squares, max_episode_steps=40)


def _weights(run):
    return {**run.model.state_dict(), **{f"agent.{k}": v for k, v in run.agent.state_dict().items()}}


def _assert_identical(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pendulum") / "run"
    return fit("Pendulum-v1", tiny_ensemble(), seed=3, out=folder, progress=False)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squares") / "run"
    return fit("DreamgymTests/Squares-v0", tiny_vae_rssm(), seed=1, out=folder, progress=False)


def test_a_run_stays_within_its_budget_of_real_steps(pendulum, squares):
    assert pendulum.metrics["env_steps"] == 400 + 2 * (200 + 200)
    assert squares.metrics["env_steps"] <= 600


def test_a_run_folder_says_what_was_run(pendulum):
    config = json.loads((pendulum.folder / "config.json").read_text())
    assert config["env_id"] == "Pendulum-v1" and config["seed"] == 3 and config["preset"]["name"] == "ensemble"
    lines = [json.loads(line) for line in (pendulum.folder / "metrics.jsonl").read_text().splitlines()]
    assert {"prefill", "learn", "awake"} <= {line["stage"] for line in lines}


@pytest.mark.parametrize("name", ["pendulum", "squares"])
def test_the_saved_model_is_the_returned_one_and_can_be_dreamt(name, request):
    run = request.getfixturevalue(name)
    loaded = dreamgym.WorldModel.from_pretrained(run.folder / "model")
    _assert_identical(run.model.state_dict(), loaded.state_dict())
    env = dreamgym.DreamEnv(loaded, obs_type="latent")
    obs, _ = env.reset(seed=0)
    action, _ = run.agent.predict(obs, deterministic=True)
    assert np.isfinite(env.step(action)[1])


def test_the_best_validation_round_is_kept(squares):
    validation = squares.metrics["validation"]
    assert validation["round"] in (0, 1) and np.mean(validation["returns"]) == pytest.approx(validation["mean"])


def test_the_same_seed_gives_the_same_run(pendulum, tmp_path):
    again = fit("Pendulum-v1", tiny_ensemble(), seed=3, out=tmp_path / "again", progress=False)
    _assert_identical(_weights(pendulum), _weights(again))


def test_a_run_leaves_the_callers_generators_alone(tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = (torch.rand(3), np.random.rand())
    torch.manual_seed(5)
    np.random.seed(5)
    fit("Pendulum-v1", tiny_ensemble(), seed=4, out=tmp_path / "run", progress=False)
    assert torch.equal(torch.rand(3), expected[0]) and np.random.rand() == expected[1]


@pytest.mark.parametrize("after", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("kind", ["pendulum", "squares"])
def test_a_killed_run_resumes_to_the_bit(kind, after, request, tmp_path, monkeypatch):
    """The run dies right after its `after`-th checkpoint, has half a stage of work thrown away, and goes on."""
    whole = request.getfixturevalue(kind)
    env_id, preset, seed = {
        "pendulum": ("Pendulum-v1", tiny_ensemble(), 3),
        "squares": ("DreamgymTests/Squares-v0", tiny_vae_rssm(), 1),
    }[kind]
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", 3)
    written = 0
    checkpoint = training.Trainer.checkpoint

    def dies(self):
        nonlocal written
        if written == after:
            raise RuntimeError("killed")  # work since the last checkpoint is lost
        written += 1
        checkpoint(self)

    with monkeypatch.context() as patched:
        patched.setattr(training.Trainer, "checkpoint", dies)
        with pytest.raises(RuntimeError, match="killed"):
            fit(env_id, preset, seed=seed, out=tmp_path / "run", progress=False)
    resumed = fit(env_id, preset, seed=seed, out=tmp_path / "run", progress=False)
    _assert_identical(_weights(whole), _weights(resumed))
    assert resumed.metrics["validation"] == whole.metrics["validation"]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"hello" * 100, lambda data: data[:3000] + b"?" * 64 + data[3064:]])
@pytest.mark.parametrize("preset", [tiny_ensemble(), tiny_preset()], ids=["staged", "online"])
def test_a_damaged_checkpoint_is_named(preset, damage, tmp_path, monkeypatch):
    monkeypatch.setattr(OnlineTrainer, "run", OnlineTrainer.checkpoint)
    monkeypatch.setattr(training.Trainer, "run", training.Trainer.checkpoint)
    fit("Pendulum-v1", preset, out=tmp_path, progress=False)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged .* delete it"):
        fit("Pendulum-v1", preset, out=tmp_path, progress=False)


def test_a_finished_run_is_loaded_and_not_repeated(pendulum):
    before = (pendulum.folder / "metrics.jsonl").read_text()
    again = fit("Pendulum-v1", tiny_ensemble(), seed=3, out=pendulum.folder, progress=False)
    _assert_identical(_weights(pendulum), _weights(again))
    assert (pendulum.folder / "metrics.jsonl").read_text() == before


def test_ctrl_c_leaves_a_loadable_model(tmp_path, monkeypatch):
    step = training.AgentLearner.step

    def interrupted(self, states, allowed, number):
        if number == 4:
            raise KeyboardInterrupt
        return step(self, states, allowed, number)

    monkeypatch.setattr(training.AgentLearner, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit("Pendulum-v1", tiny_ensemble(), seed=0, out=tmp_path / "run", progress=False)
    assert dreamgym.WorldModel.from_pretrained(tmp_path / "run" / "model").initial_states is not None


def test_nan_stops_with_the_term_the_step_and_the_checkpoint(tmp_path, monkeypatch):
    step = training.ModelLearner.step

    def poisoned(self, batch, number):
        metrics, states = step(self, batch, number)
        return ({**metrics, "transition": torch.tensor(float("nan"))} if number == 5 else metrics), states

    monkeypatch.setattr(training.ModelLearner, "step", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"transition .* step .*checkpoint\.pt"):
        fit("Pendulum-v1", tiny_ensemble(), seed=0, out=tmp_path / "run", progress=False)


def test_a_folder_with_another_run_is_refused(pendulum):
    with pytest.raises(ValueError, match="different run"):
        fit("Pendulum-v1", tiny_ensemble(), seed=4, out=pendulum.folder, progress=False)


def test_other_parts_of_the_same_numbers_are_a_different_run(tmp_path, monkeypatch):
    """A plain GRU's config and a layer-norm GRU's hold no numbers at all."""
    monkeypatch.setattr(OnlineTrainer, "run", lambda trainer: {})
    plain = tiny_preset()
    other = replace(plain, model=replace(plain.model, core=replace(plain.model.core, cell=LayerNormGRUConfig())))
    fit("Pendulum-v1", plain, out=tmp_path, progress=False)
    fit("Pendulum-v1", plain, out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="different run"):
        fit("Pendulum-v1", other, out=tmp_path, progress=False)


def test_a_run_begun_before_kinds_were_noted_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(OnlineTrainer, "run", lambda trainer: {})
    fit("Pendulum-v1", tiny_preset(), out=tmp_path, progress=False)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written.pop("kinds")["preset.model.core.cell"] == "GRUConfig"
    (tmp_path / "config.json").write_text(json.dumps(written))
    fit("Pendulum-v1", tiny_preset(), out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="different run"):
        fit("Pendulum-v1", tiny_preset(), seed=1, out=tmp_path, progress=False)


def test_a_run_begun_before_a_setting_existed_goes_on_if_it_is_at_its_default(tmp_path, monkeypatch):
    monkeypatch.setattr(OnlineTrainer, "run", lambda trainer: {})
    preset = tiny_preset()
    other = replace(preset, model=replace(preset.model, defaults=replace(preset.model.defaults, belief="sample")))
    fit("Pendulum-v1", preset, out=tmp_path, progress=False)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["preset"]["model"]["defaults"].pop("belief") == "mean"
    (tmp_path / "config.json").write_text(json.dumps(written))
    fit("Pendulum-v1", preset, out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="different run"):
        fit("Pendulum-v1", other, out=tmp_path, progress=False)


@pytest.mark.parametrize("prefill", [50, 51])
def test_a_budget_that_random_actions_use_up_is_refused_before_anything_is_written(prefill, tmp_path):
    preset = tiny_preset(replace(TRAINING, prefill=prefill))
    with pytest.raises(ValueError, match=rf"env_steps is 101, or 50 agent steps .* more than {2 * prefill} env_steps"):
        fit("Pendulum-v1", preset, env_steps=101, preprocess=Preprocess(action_repeat=2), out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


class Switches(Squares):
    """Two switches of a type that no model folder holds."""

    action_space = spaces.MultiDiscrete([2, 2], dtype=np.int32)


gym.register("DreamgymTests/Switches-v0", entry_point=Switches, max_episode_steps=40)


def test_a_world_whose_model_could_not_be_saved_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="cannot be stored"):
        fit("DreamgymTests/Switches-v0", tiny_vae_rssm(), out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


class Tracked(Squares):
    """Squares that know which of them nobody closed."""

    made = 0
    left_open: ClassVar[set[gym.Env]] = set()

    def __init__(self, **options) -> None:
        super().__init__(**options)
        Tracked.made += 1
        self.left_open.add(self)

    def close(self) -> None:
        self.left_open.discard(self)


gym.register("DreamgymTests/Tracked-v0", entry_point=Tracked, max_episode_steps=40)
gym.register("DreamgymTests/Endless-v0", entry_point=Tracked)


@pytest.fixture
def tracked():
    Tracked.made = 0
    Tracked.left_open.clear()
    return Tracked


@pytest.mark.parametrize(
    ("env_id", "preset", "message"),
    [
        ("DreamgymTests/Endless-v0", tiny_vae_rssm(), "max_episode_steps"),
        ("DreamgymTests/Tracked-v0", tiny_ensemble(), "one-dimensional"),
        ("DreamgymTests/Tracked-v0", tiny_preset(replace(TRAINING, prefill=500)), "nothing would be learned"),
        ("DreamgymTests/Tracked-v0", tiny_vae_rssm(), "holds a different run"),
    ],
    ids=["no time limit", "no model", "no budget", "no folder"],
)
def test_an_env_is_closed_where_fit_refuses_it(env_id, preset, message, tracked, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=message):
        fit(env_id, preset, out=tmp_path, progress=False)
    assert tracked.made > 0 and not tracked.left_open


def test_the_env_and_the_log_are_closed_where_a_checkpoint_cannot_be_read(tracked, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(training.Trainer, "run", lambda trainer: {})
    monkeypatch.setattr(training.Trainer, "close", lambda trainer: closed.append(bool(tracked.left_open)))
    fit("DreamgymTests/Tracked-v0", tiny_vae_rssm(), out=tmp_path, progress=False)
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="damaged"):
        fit("DreamgymTests/Tracked-v0", tiny_vae_rssm(), out=tmp_path, progress=False)
    assert tracked.made == 2 and not tracked.left_open and closed == [True, True]  # the trainer before its env


def test_both_envs_are_closed_where_a_preset_wants_the_env_made_anew(tracked, tmp_path, monkeypatch):
    monkeypatch.setattr(OnlineTrainer, "run", lambda trainer: {})
    fit("DreamgymTests/Tracked-v0", replace(tiny_preset(), action_repeat=2), out=tmp_path, progress=False)
    assert tracked.made == 2 and not tracked.left_open


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match=r"dreamer-v1, .*ensemble, planet, vae-rssm"):
        fit("Pendulum-v1", "dreamer-v9")


def test_images_need_an_image_preset(tmp_path):
    with pytest.raises(ValueError, match="vae-rssm"):
        fit("DreamgymTests/Squares-v0", "ensemble", out=tmp_path / "run", progress=False)


def test_a_stored_replay_is_learned_from_offline(pendulum, tmp_path):
    dataset = Replay(pendulum.model.spec, pendulum.folder / "replay" / "train")
    run = fit(dataset, replace(tiny_ensemble(), notes="offline"), seed=0, out=tmp_path / "run", progress=False)
    assert run.metrics["env_steps"] == 0 and run.metrics["validation"] is None
    assert Path(run.folder / "model" / "config.json").exists()


def test_an_interrupted_copy_of_a_dataset_is_made_anew(pendulum, tmp_path):
    dataset = Replay(pendulum.model.spec, pendulum.folder / "replay" / "train")
    once, twice = ([], [])
    for found, attempts in ((once, 1), (twice, 2)):
        for attempt in range(attempts):
            options = {"seed": 0, "device": "cpu", "folder": tmp_path / str(attempts), "progress": False, "env": None}
            trainer = training.Trainer(dataset.spec, tiny_ensemble(), **options)
            trainer.use_dataset(dataset)
            if attempt < attempts - 1:
                trainer.replay.keep(1)  # what a kill leaves
                trainer.held_out.keep(0)
        found += [len(trainer.replay), len(trainer.held_out), trainer.recent_from]
    assert once == twice and once[2] == once[0] > 0


def test_a_preset_that_does_not_fit_leaves_the_folder_usable(tmp_path):
    with pytest.raises(ValueError, match="one-dimensional"):
        fit("DreamgymTests/Squares-v0", "ensemble", out=tmp_path / "run", progress=False)
    fit("DreamgymTests/Squares-v0", tiny_vae_rssm(), out=tmp_path / "run", progress=False)


def test_an_env_object_is_refused_with_the_next_move():
    with pytest.raises(TypeError, match="gymnasium id"):
        fit(gym.make("Pendulum-v1"))
