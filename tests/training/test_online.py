"""The online loop on toy worlds: what it counts, when it learns, what it leaves, and that resuming changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dreamgym
from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.agents.planning import load_planner
from dreamgym.data import Replay
from dreamgym.errors import NonFiniteLossError
from dreamgym.training.online_learner import OnlineLearner
from tests.training.online_toys import (
    STEPS,
    TRAINING,
    ClassLine,
    Line,
    SeenLine,
    spec_of,
    tiny_planet,
    tiny_preset,
    tiny_v2,
    tiny_v3,
    trainer_of,
)

RECIPES = {"v1": tiny_preset, "planet": tiny_planet, "v2": tiny_v2, "v3": tiny_v3}


def _lines(folder: Path, *, stage: str | None = None) -> list[dict]:
    """The log without what the wall clock put there."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [line for line in lines if stage in (None, line["stage"])]
    return [{name: value for name, value in line.items() if "second" not in name} for line in kept]


def _assert_identical(a, b, where=""):
    """Equal to the last bit, however nested."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for name in a:
            _assert_identical(a[name], b[name], f"{where}.{name}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for number, (mine, its) in enumerate(zip(a, b)):
            _assert_identical(mine, its, f"{where}[{number}]")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    else:
        assert a == b, where


def _checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Finished runs of 6 episodes, by recipe: (folder, metrics, env)."""
    runs = {}
    for name, recipe in RECIPES.items():
        folder, env = tmp_path_factory.mktemp(name) / "run", Line()
        runs[name] = (folder, trainer_of(folder, recipe(), env).run(), env)
    return runs


# ---- counting -------------------------------------------------------------------------------------------------------------


def test_a_run_spends_its_budget_of_env_steps_to_the_step(tmp_path):
    env = Line()
    preset = tiny_preset(replace(TRAINING, env_steps=131, evaluate_every=0))
    metrics = trainer_of(tmp_path, preset, env, spec=spec_of(env, action_repeat=2)).run()
    assert (env.lived, metrics["agent_steps"], metrics["env_steps"]) == (65, 65, 130)


def test_updates_follow_the_train_ratio(whole):
    """3 before, then 2 at every 5th of steps 24 to 71."""
    assert whole["v1"][1]["updates"] == 3 + 2 * len(range(25, 72, 5))


@pytest.mark.parametrize("batch", [2, 5])
def test_planet_collects_one_episode_per_so_many_updates_whatever_the_batch(batch, tmp_path):
    """specs/planet.md 8.1 (14): 2 random episodes, then 7 updates and an episode in turn."""
    training = replace(TRAINING, prefill=2 * STEPS, env_steps=5 * STEPS, updates=7, batch=batch, evaluate_every=0)
    metrics = trainer_of(tmp_path, tiny_planet(training), Line()).run()
    assert (metrics["episodes"], metrics["updates"]) == (5, 3 * 7)
    explored = _lines(tmp_path, stage="explore")
    assert [line["updates"] for line in explored] == [7, 14, 21]
    replays = [Replay(spec_of(Line()), tmp_path / "replay" / part) for part in ("train", "held_out")]
    assert sum(len(replay.episodes) for replay in replays) == 5


def test_every_third_episode_is_kept_out_of_training(whole):
    folder = whole["v1"][0]
    train, held_out = (Replay(spec_of(Line()), folder / "replay" / part) for part in ("train", "held_out"))
    assert (len(train.episodes), len(held_out.episodes)) == (4, 2)
    assert set(train.policies) == {"StickyRandom", "Explorer"}


def test_episode_seeds_depend_on_the_runs_seed_and_the_episode_alone(whole, tmp_path):
    """Another recipe, with other updates, lives through the same worlds."""
    env = Line()
    trainer_of(tmp_path, tiny_preset(replace(TRAINING, evaluate_every=0, pretrain=1)), env).run()
    lived = [seed for seed in whole["v1"][2].seeds if seed in env.seeds]
    assert lived == env.seeds and len(set(env.seeds)) == 6
    other = Line()
    trainer_of(tmp_path / "other", tiny_preset(replace(TRAINING, evaluate_every=0)), other, seed=4).run()
    assert not set(other.seeds) & set(env.seeds)


def test_judging_is_neither_counted_nor_remembered(whole):
    folder, metrics, env = whole["v1"]
    evaluations = _lines(folder, stage="evaluation")
    assert env.lived == 72 + 2 * STEPS * len(evaluations) and metrics["episodes"] == 6
    assert [line["env_steps"] for line in evaluations] == [36, 48, 60, 72]  # never before the random episodes are over


def test_a_run_leaves_the_callers_generators_alone(tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = (torch.rand(3), np.random.rand())
    torch.manual_seed(5)
    np.random.seed(5)
    trainer_of(tmp_path, tiny_preset(), Line()).run()
    assert torch.equal(torch.rand(3), expected[0]) and np.random.rand() == expected[1]


# ---- resuming -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_killed_run_resumes_to_the_bit(recipe, whole, tmp_path):
    """The env breaks in the middle of episode 4; the run goes on from the end of episode 3."""
    folder, metrics, _ = whole[recipe]
    env = Line()
    trainer = trainer_of(tmp_path, RECIPES[recipe](), env)
    evaluation = 2 * STEPS  # one took place after episode 3
    env.fails_at = 3 * STEPS + evaluation + 7
    with pytest.raises(RuntimeError, match="killed"):
        trainer.run()
    trainer.close()
    again = trainer_of(tmp_path, RECIPES[recipe](), Line())
    again.resume()
    assert again.counters.episodes == 3
    assert again.run() == metrics
    _assert_identical(_checkpoint(folder), _checkpoint(tmp_path))
    assert _lines(folder) == _lines(tmp_path)
    for part in ("train", "held_out"):
        assert (folder / "replay" / part / "rows.bin").read_bytes() == (tmp_path / "replay" / part / "rows.bin").read_bytes()
        assert (folder / "replay" / part / "obs.bin").read_bytes() == (tmp_path / "replay" / part / "obs.bin").read_bytes()


def test_a_run_killed_before_its_first_checkpoint_starts_over(whole, tmp_path):
    preset = tiny_preset(replace(TRAINING, checkpoint_every=1000))
    env = Line()
    env.fails_at = 3 * STEPS + 2 * STEPS + 7
    with pytest.raises(RuntimeError, match="killed"):
        trainer_of(tmp_path, preset, env).run()
    assert trainer_of(tmp_path, preset, Line()).run() == whole["v1"][1]
    _assert_identical(_checkpoint(whole["v1"][0]), _checkpoint(tmp_path))
    assert _lines(whole["v1"][0]) == _lines(tmp_path)


def test_a_checkpoint_holds_all_that_a_run_changes(whole):
    content = _checkpoint(whole["v3"][0])
    assert {"weights", "optimisers", "latents", "fresh_from", "best", "stored", "counters", "log_lines"} <= content.keys()
    assert content["fresh_from"] > 0 and len(content["latents"]["deter"]) == 4 * (STEPS + 1)
    assert content["optimisers"]["model"]["steps"] == content["counters"]["updates"]


def test_a_finished_run_is_loaded_and_not_repeated(whole):
    folder, metrics, _ = whole["v1"]
    before = (folder / "metrics.jsonl").read_text()
    again = trainer_of(folder, tiny_preset(), Line())
    again.resume()
    assert again.run() == metrics and (folder / "metrics.jsonl").read_text() == before


def test_the_same_seed_gives_the_same_run(whole, tmp_path):
    trainer_of(tmp_path, tiny_preset(), Line()).run()
    _assert_identical(_checkpoint(whole["v1"][0]), _checkpoint(tmp_path))


# ---- what it leaves -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_model_it_leaves_can_be_dreamt_and_its_agent_acts(recipe, whole):
    folder = whole[recipe][0]
    model = dreamgym.WorldModel.from_pretrained(folder / "model")
    env = dreamgym.DreamEnv(model, obs_type="latent")
    obs, _ = env.reset(seed=0)
    if recipe == "planet":
        action = load_planner(folder / "agent", model).config.horizon
        assert action == 3
        return
    action, _ = ActorCritic.load(folder / "agent", model.spec).predict(obs, deterministic=True)
    assert np.isfinite(env.step(action)[1])


def test_uncertainty_is_calibrated_on_episodes_nobody_trained_on(whole):
    median, scale = whole["v1"][1]["uncertainty"]
    assert median > 0.0 and 0.0 < scale < 1.0


def test_the_range_of_rewards_and_observations_is_that_of_the_training_rows(whole):
    folder = whole["v1"][0]
    model = dreamgym.WorldModel.from_pretrained(folder / "model")
    replay = Replay(model.spec, folder / "replay" / "train")
    reward, obs = replay.column("reward"), replay.column("obs")
    assert model.reward_range.tolist() == [float(reward.min()), float(reward.max())]
    assert np.array_equal(model.encoder.scaling.low.numpy(), obs.min(0)) and np.array_equal(model.encoder.scaling.high.numpy(), obs.max(0))


def test_the_best_judged_weights_are_the_ones_exported(tmp_path):
    trainer = trainer_of(tmp_path, tiny_preset(replace(TRAINING, keep_best=True)), Line())
    metrics = trainer.run()
    evaluations = _lines(tmp_path, stage="evaluation")
    best = max(evaluations, key=lambda line: (line["return_mean"], line["env_steps"]))
    assert metrics["validation"]["env_steps"] == best["env_steps"] and metrics["validation"]["mean"] == best["return_mean"]
    exported = dreamgym.WorldModel.from_pretrained(tmp_path / "model").state_dict()
    for name in ("core.cell.input.weight", "heads.reward_net.0.weight"):
        assert torch.equal(exported[name], trainer.best["weights"]["model"][name])


def test_without_keep_best_the_last_weights_are_exported(whole):
    folder = whole["v1"][0]
    exported = dreamgym.WorldModel.from_pretrained(folder / "model").state_dict()
    last = _checkpoint(folder)["weights"]["model"]
    assert torch.equal(exported["core.cell.input.weight"], last["core.cell.input.weight"])


def test_the_log_tells_of_learning_judging_and_open_loop_errors(tmp_path):
    training = replace(TRAINING, updates=12)
    trainer_of(tmp_path, tiny_preset(training), Line()).run()
    learnt, evaluation = _lines(tmp_path, stage="learn")[0], _lines(tmp_path, stage="evaluation")[0]
    assert {"kl", "reward", "actor_loss", "critic_loss", "model_norm", "env_steps"} <= learnt.keys() and learnt["step"] == 50
    assert {"return_mean", "env_steps", "updates"} <= evaluation.keys()
    raw = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    judged = [line for line in raw if line["stage"] == "evaluation"]
    assert all(line["env_steps_per_second"] > 0 and line["updates_per_second"] > 0 for line in judged)
    looked = _lines(tmp_path, stage="open_loop")[-1]
    assert looked["obs_rmse_1"] > 0 and looked["reward_mae_5"] > 0


def test_a_planners_log_tells_what_its_first_plan_promised_and_what_came_of_it(whole):
    """specs/planet.md 8.2: how far the model is exploited."""
    folder = whole["planet"][0]
    replays = [Replay(spec_of(Line()), folder / "replay" / part) for part in ("train", "held_out")]
    lived = [float(replay.column("reward")[start + 1 : start + 4].sum()) for replay in replays for start, _ in replay.episodes]
    explored = _lines(folder, stage="explore")
    assert len(explored) == 4 and all(np.isfinite(line["planned"]) and line["realised"] in lived for line in explored)
    assert not any("planned" in line for line in [*_lines(folder, stage="prefill"), *_lines(whole["v1"][0], stage="explore")])


# ---- other worlds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_episodes_that_terminate_early_and_classes_of_actions_are_learned_from(recipe, tmp_path):
    metrics = trainer_of(tmp_path, RECIPES[recipe](replace(TRAINING, env_steps=60)), ClassLine(edge=1.0)).run()
    replay = Replay(spec_of(ClassLine()), tmp_path / "replay" / "train")
    assert replay.column("is_terminal").any() and metrics["agent_steps"] == 60 and metrics["updates"] > 0


def test_pictures_and_numbers_together_are_learned_from_and_filmed(tmp_path):
    pytest.importorskip("tensorboard")
    trainer_of(tmp_path, tiny_preset(replace(TRAINING, env_steps=40)), SeenLine()).run()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (film,) = events.Images("open_loop/film")
    assert film.encoded_image_string.startswith(b"GIF") and (film.width, film.height) == (3 * 32, 3 * 32)


# ---- offline --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["v1", "v3"])
def test_a_stored_replay_is_learned_from_without_an_env(recipe, whole, tmp_path):
    spec = spec_of(Line())
    dataset = Replay(spec, whole["v1"][0] / "replay" / "train")
    trainer = trainer_of(tmp_path, RECIPES[recipe](replace(TRAINING, checkpoint_every=10)), spec=spec)
    trainer.use_dataset(dataset)
    metrics = trainer.run()
    assert metrics["updates"] == 3 + 2 * (72 // 5) and metrics["env_steps"] == 0 and metrics["validation"] is None
    assert (len(trainer.replay.episodes), len(trainer.held_out.episodes)) == (3, 1)
    assert dreamgym.WorldModel.from_pretrained(tmp_path / "model").initial_states is not None


def test_an_offline_run_resumes_to_the_bit(whole, tmp_path, monkeypatch):
    spec = spec_of(Line())
    dataset = Replay(spec, whole["v1"][0] / "replay" / "train")
    preset = tiny_v3(replace(TRAINING, checkpoint_every=10))
    for name in ("once", "twice"):
        trainer = trainer_of(tmp_path / name, preset, spec=spec)
        trainer.use_dataset(dataset)
        if name == "twice":
            with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
                patched.setattr(OnlineLearner, "update", _dies_at(15, OnlineLearner.update))
                trainer.run()
            trainer = trainer_of(tmp_path / name, preset, spec=spec)
            trainer.use_dataset(dataset)
            trainer.resume()
            assert trainer.counters.updates == 10
        trainer.run()
    _assert_identical(_checkpoint(tmp_path / "once"), _checkpoint(tmp_path / "twice"))


def _dies_at(number, update):
    def dies(self, batch, carry, at, **options):
        if at == number:
            raise RuntimeError("killed")
        return update(self, batch, carry, at, **options)

    return dies


def test_a_dataset_of_one_episode_is_refused(tmp_path):
    dataset = Replay(spec_of(Line()))
    with pytest.raises(ValueError, match="at least 2"):
        trainer_of(tmp_path, tiny_preset(), spec=dataset.spec).use_dataset(dataset)


# ---- mishaps --------------------------------------------------------------------------------------------------------------


def test_nan_stops_with_the_term_the_update_and_the_checkpoint(tmp_path, monkeypatch):
    update = OnlineLearner.update

    def poisoned(self, batch, carry, number, **options):
        metrics, states = update(self, batch, carry, number, **options)
        return (metrics | {"kl": torch.tensor(float("nan"))} if number == 4 else metrics), states

    monkeypatch.setattr(OnlineLearner, "update", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"kl became NaN .* update 5.*checkpoint\.pt"):
        trainer_of(tmp_path, tiny_preset(), Line()).run()


def test_an_interrupted_run_leaves_a_loadable_model(tmp_path, monkeypatch):
    def interrupted(self, batch, carry, number, update=OnlineLearner.update, **options):
        if number == 9:
            raise KeyboardInterrupt
        return update(self, batch, carry, number, **options)

    monkeypatch.setattr(OnlineLearner, "update", interrupted)
    trainer = trainer_of(tmp_path, tiny_preset(), Line())
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    trainer.export()  # as fit does
    assert dreamgym.WorldModel.from_pretrained(tmp_path / "model").initial_states is not None


def test_a_dataset_shorter_than_a_window_is_refused(whole, tmp_path):
    dataset = Replay(spec_of(Line()), whole["v1"][0] / "replay" / "train")
    trainer = trainer_of(tmp_path, tiny_preset(replace(TRAINING, length=60)), spec=dataset.spec)
    trainer.use_dataset(dataset)
    with pytest.raises(ValueError, match="a window needs 60"):
        trainer.run()
