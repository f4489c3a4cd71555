"""The ids: cheap to register, honest about time limits, and one set of weights per process."""

import json
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from dreamgym import registration
from dreamgym.errors import ModelNotFoundError
from dreamgym.structs import DreamDefaults
from tests.toys import CounterWorld, PictureWorld


@pytest.fixture(autouse=True)
def ids():
    registration.register_all()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that "holds" a toy, read by a stand-in for the hub that counts."""
    from dreamgym.hub import bundle

    (tmp_path / "config.json").write_text("{}")
    loads = []
    monkeypatch.setattr(registration, "_models", {})
    monkeypatch.setattr(bundle, "load", lambda path: loads.append(path) or CounterWorld(sigma=0.2, steps=4))
    monkeypatch.setattr(bundle, "load_bundled", lambda name, **_: loads.append(name) or PictureWorld())
    return tmp_path, loads


def test_registering_twice_changes_nothing_and_warns_of_nothing(recwarn):
    before = dict(gym.registry)
    registration.register_all()
    assert dict(gym.registry) == before and not recwarn.list


def test_registering_needs_no_torch_and_any_route_finds_the_ids():
    code = (
        "import sys, gymnasium as gym\n"
        "from dreamgym.registration import register_all, ids; register_all()\n"
        "assert 'torch' not in sys.modules\n"
        "print(*ids())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == registration.ids() and "dreamgym/Dream-v0" in said and "dreamgym/Dream-CarRacing-Latent-v0" in said


@pytest.mark.parametrize(("name", "steps"), [("Pendulum", 200), ("CartPole", 500), ("CarRacing", 250)])
def test_ids_know_their_time_limit_and_are_json(name, steps):
    for variant in ("", "-Latent"):
        spec = gym.spec(f"dreamgym/Dream-{name}{variant}-v0")
        assert spec.max_episode_steps == steps
        assert json.loads(spec.to_json())["kwargs"]["model"] == f"bundled:{name}"


def test_make_and_make_vec_build_dreams_of_a_folder(folder):
    path, _ = folder
    env = gym.make("dreamgym/Dream-v0", model=str(path), obs_type="latent")
    assert env.reset(seed=0)[0].shape == (2,) and env.spec.kwargs["model"] == str(path)
    many = gym.make_vec("dreamgym/Dream-v0", num_envs=3, model=str(path), output="torch", autoreset_mode="SameStep")
    assert type(many.reset(seed=0)[0]).__name__ == "Tensor"
    assert gym.make_vec(many.spec).num_envs == 3


def test_bundled_ids_load_the_bundled_model_and_truncate_alike(folder):
    env, many = gym.make("dreamgym/Dream-Pendulum-v0"), gym.make_vec("dreamgym/Dream-Pendulum-Latent-v0", num_envs=2, max_episode_steps=3)
    assert env.observation_space.shape == (36, 36, 3) and many.single_observation_space.shape == (2,)
    many.reset(seed=0)
    assert [many.step(np.zeros((2, 1)))[3].all() for _ in range(3)] == [False, False, True]


def test_environments_of_one_folder_share_one_model_until_it_is_written_anew(folder):
    path, loads = folder
    one, other = (gym.make("dreamgym/Dream-v0", model=str(path)).unwrapped for _ in range(2))
    assert one.model is other.model and len(loads) == 1
    (path / "model.safetensors").write_bytes(b"new")
    assert gym.make("dreamgym/Dream-v0", model=path).unwrapped.model is not one.model and len(loads) == 2


def test_a_folder_that_bears_a_bundled_name_does_not_stand_in_for_an_id(folder, monkeypatch):
    path, loads = folder
    (path / "Pendulum").mkdir()
    (path / "Pendulum" / "config.json").write_text("{}")
    monkeypatch.chdir(path)
    gym.make("dreamgym/Dream-Pendulum-v0")
    assert loads == ["Pendulum"]
    registration.load_model("Pendulum")
    assert loads[1:] == [Path("Pendulum")]


def test_a_model_may_be_given_itself():
    world = CounterWorld()
    assert gym.make("dreamgym/Dream-v0", model=world).unwrapped.model is world


def test_a_missing_model_says_where_it_was_looked_for():
    with pytest.raises(ModelNotFoundError, match="/no/such"):
        gym.make("dreamgym/Dream-v0", model="/no/such")


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_unknown_arguments_are_type_errors_that_name_them(make, folder):
    with pytest.raises(TypeError, match="unexpected keyword argument 'frameskip'"):
        make("dreamgym/Dream-v0", model=CounterWorld(), frameskip=1)


def test_human_rendering_is_added_by_gymnasium():
    pytest.importorskip("pygame")
    with pytest.warns(UserWarning, match="HumanRendering"):
        env = gym.make("dreamgym/Dream-v0", model=CounterWorld(), render_mode="human")
    assert isinstance(env, gym.wrappers.HumanRendering) and env.unwrapped.render_mode == "rgb_array"


def test_render_lists_are_added_by_gymnasium():
    env = gym.make("dreamgym/Dream-v0", model=CounterWorld(), render_mode="rgb_array_list")
    env.reset(seed=0)
    assert len(env.render()) == 1


def test_a_plain_name_means_to_make_what_it_means_to_from_pretrained(folder, monkeypatch):
    from dreamgym.hub import bundle

    path, loads = folder
    (path / "CartPole").mkdir()  # no config.json: not a model, and not in the way of one
    monkeypatch.chdir(path)
    monkeypatch.setattr(bundle, "bundled_names", lambda: ["CartPole"])
    registration.load_model("CartPole")
    assert loads == ["CartPole"]
    said = []
    for load in (registration.load_model, bundle.from_pretrained):
        with pytest.raises(ModelNotFoundError, match=r"bundled model: CartPole$") as caught:
            load("Nowhere")
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_without_a_model_the_choices_are_named(make, monkeypatch):
    from dreamgym.hub import bundle

    monkeypatch.setattr(bundle, "bundled_names", lambda: ["CarRacing", "Pendulum"])
    with pytest.raises(ValueError, match=r"model is missing.*folder.*\(CarRacing, Pendulum\)"):
        make("dreamgym/Dream-v0")


def test_made_dreams_are_whole_episodes_unless_they_are_for_training():
    world = CounterWorld(defaults=DreamDefaults(horizon=3), steps=9)
    for training, steps in ((False, 9), (True, 3)):
        many = gym.make_vec("dreamgym/Dream-v0", model=world, num_envs=2, training=training)
        one = gym.make("dreamgym/Dream-v0", model=world, training=training)
        one.reset(seed=0)
        assert many.max_episode_steps == steps
        assert [one.step(np.zeros(1, np.float32))[3] for _ in range(steps)] == [False] * (steps - 1) + [True]
