"""What is pushed comes back on another machine and dreams, or acts, the same; what must not be shared is refused before it leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import dreamgym
from dreamgym import cli, registration
from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.errors import InvalidModelError, ModelNotFoundError
from dreamgym.hub import bundle, client
from dreamgym.models.world_model import WorldModel
from dreamgym.testing import check_world_model
from tests.hub import toys
from tests.hub.conftest import environment, move_to
from tests.hub.loopback_hub import LoopbackHub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client, about its own calls
MEASURED = {"env_id": "CartPole-v1", "data": {"env_steps": 1000, "policies": "random"}}
MODEL_FILES = {"config.json", "model.safetensors", "initial_states.safetensors"}


def push(model: WorldModel | None = None, name: str = "alice/toy", **options: Any) -> Any:
    return (model or toys.ensemble()).push_to_hub(name, license="mit", **{"fidelity": MEASURED, **options})


def files_of(hub: LoopbackHub, name: str = "alice/toy", branch: str = "main") -> dict[str, bytes]:
    return {path: file.data for path, file in hub.repos["model", name].resolve(branch).tree.items()}


def asked_for(hub: LoopbackHub) -> set[str]:
    """Names of the files that were requested of a repository."""
    return {entry["path"].split("/resolve/")[1].partition("/")[2] for entry in hub.log if "/resolve/" in entry["path"]}


def trajectory(env: gym.Env[Any, Any], steps: int = 20) -> list[Any]:
    """All that a seeded dream says."""
    env.action_space.seed(3)
    said = [env.reset(seed=3)[0]]
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        said += [obs, reward, terminated, truncated]
        if terminated or truncated:
            said.append(env.reset()[0])
    return [np.asarray(part).tolist() for part in said]


# ---- there and back -----------------------------------------------------------------------------------------------------------

ELSEWHERE = """
import json, sys
import gymnasium as gym
import dreamgym
from tests.hub.test_sharing import acts, trajectory, vector_trajectory
env = gym.make("dreamgym/Dream-v0", model="alice/toy")
model = env.unwrapped.model
vector = gym.make_vec("dreamgym/Dream-v0", 3, model="alice/toy", revision="v1")
agent = dreamgym.load_agent("alice/agent", model)
print(json.dumps([trajectory(env), vector_trajectory(vector), acts(agent), model.model_info["revision"]]))
"""
PUSH = """
from tests.hub.test_sharing import push_both
print(push_both())
"""


def run(code: str, env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def vector_trajectory(env: Any, steps: int = 20) -> list[Any]:
    """All that seeded dreams say side by side."""
    env.action_space.seed(3)
    said = [env.reset(seed=3)[0]]
    for _ in range(steps):
        said += env.step(env.action_space.sample())[:4]
    return [np.asarray(part).tolist() for part in said]


def an_agent() -> dreamgym.LinearController:
    model = toys.ensemble()
    agent = dreamgym.LinearController(model.spec, model.core.feature_size)
    agent.vector = np.linspace(-1, 1, agent.num_parameters)
    return agent


def acts(agent: Any) -> list[Any]:
    """What an agent does where features are these."""
    features = np.random.default_rng(0).normal(size=(30, agent.feature_size)).astype(np.float32)
    found: list[Any] = agent.predict(features, deterministic=True)[0].tolist()
    return found


def push_both() -> str:
    """A model, and an agent that sees through it; the model's commit."""
    commit: str = push(tag="v1").commit
    an_agent().push_to_hub("alice/agent", license="mit", model=f"alice/toy@{commit}", allow_unevaluated=True)
    return commit


def assert_same_elsewhere(hub: LoopbackHub, home: Path, commit: str) -> None:
    """A process with an empty home, whom nobody knows, dreams and acts as this one does without the Hub."""
    said, side_by_side, acted, revision = json.loads(run(ELSEWHERE, environment(hub, home, user=None)))
    assert revision == commit
    assert said == trajectory(gym.make("dreamgym/Dream-v0", model=toys.ensemble()))
    assert side_by_side == vector_trajectory(gym.make_vec("dreamgym/Dream-v0", 3, model=toys.ensemble()))
    assert acted == acts(an_agent()) and len({str(action) for action in acted}) > 1


def test_a_push_is_dreamt_the_same_on_another_machine_by_way_of_lfs(hub: LoopbackHub, tmp_path: Path) -> None:
    assert_same_elsewhere(hub, tmp_path / "other", push_both())
    assert hub.requests("PUT /upload") and not hub.requests("xet")


def test_a_push_is_dreamt_the_same_on_another_machine_by_way_of_xet(xet_hub: LoopbackHub, tmp_path: Path) -> None:
    xet_hub.add_user("alice", "hf_alice_secret")
    assert_same_elsewhere(xet_hub, tmp_path / "other", run(PUSH, environment(xet_hub, tmp_path / "alice")))
    assert xet_hub.requests("xet-write-token") and xet_hub.requests("xet-read-token") and not xet_hub.requests("PUT /upload")


def test_exactly_three_files_are_asked_for(hub: LoopbackHub) -> None:
    push()
    hub.commit("alice/toy", {"../../evil": b"x", "__init__.py": b"raise SystemExit", "dreamgym.py": b"raise SystemExit", "setup.py": b""})
    hub.log.clear()
    WorldModel.from_pretrained("alice/toy")
    assert asked_for(hub) == MODEL_FILES
    assert len(hub.requests(r"GET /api")) == 1  # the revision is resolved once


def test_pinned_and_cached_nothing_is_asked(hub: LoopbackHub, no_models_yet: None) -> None:
    commit = push().commit
    WorldModel.from_pretrained("alice/toy")
    hub.log.clear()
    assert WorldModel.from_pretrained("alice/toy", revision=commit).model_info == {"repo": "alice/toy", "revision": commit}
    assert WorldModel.from_pretrained(f"alice/toy@{commit}", local_files_only=True).source == f"alice/toy@{commit}"
    assert gym.make("dreamgym/Dream-v0", model="alice/toy", revision=commit).unwrapped.model.model_info["revision"] == commit
    assert gym.make_vec("dreamgym/Dream-v0", 2, model=f"alice/toy@{commit}").reset(seed=0)[0].shape == (2, 4)
    assert not hub.log


def test_a_tag_means_the_same_after_a_later_push(hub: LoopbackHub) -> None:
    first = push(tag="v1").commit
    other = toys.ensemble()
    other.reward_range.copy_(torch.tensor([-7.0, 7.0]))
    second = push(other).commit
    assert WorldModel.from_pretrained("alice/toy").model_info["revision"] == second
    tagged = WorldModel.from_pretrained("alice/toy@v1")
    assert tagged.model_info["revision"] == first and tagged.reward_low == -1.0


def test_a_push_is_one_commit_of_what_it_brings(hub: LoopbackHub) -> None:
    pushed = push(tag="v1")
    repo = hub.repos["model", "alice/toy"]
    assert len(repo.commits) == 2 and repo.tags == {"v1": pushed.commit} and pushed.url == f"{hub.endpoint}/alice/toy"
    assert set(files_of(hub)) == {*MODEL_FILES, "README.md", "fidelity.json", ".gitattributes"}
    assert json.loads(files_of(hub)["fidelity.json"]) == MEASURED


def test_a_pushed_card_has_the_numbers_of_the_fidelity_that_was_pushed_beside_it(hub: LoopbackHub) -> None:
    from huggingface_hub import ModelCard

    fidelity = Path(bundle.bundled_folder("CartPole") or "", "fidelity.json")
    push(fidelity=fidelity)
    card: Any = ModelCard.load("alice/toy").data
    told = json.loads(files_of(hub)["fidelity.json"])
    assert told == json.loads(fidelity.read_text())
    assert (card.library_name, card.pipeline_tag, card.license) == ("dreamgym", "reinforcement-learning", "mit")
    assert card.eval_results[0].metric_value == told["policy"]["awake"]["mean"]


def test_the_same_push_again_makes_no_commit(hub: LoopbackHub) -> None:
    assert push().commit == push().commit and len(hub.repos["model", "alice/toy"].commits) == 2


def test_numbers_and_film_of_older_weights_do_not_outlive_them(hub: LoopbackHub, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    push(replay=film)
    assert files_of(hub)["replay.mp4"] == film.read_bytes()
    push(fidelity=None, allow_unevaluated=True)
    assert not {"fidelity.json", "replay.mp4"} & set(files_of(hub))
    assert "Nobody has measured it" in files_of(hub)["README.md"].decode()


def test_a_branch_is_made_for_a_push_to_it(hub: LoopbackHub) -> None:
    push()
    trial = push(revision="trial", fidelity={**MEASURED, "note": 1})
    assert hub.repos["model", "alice/toy"].branches["trial"] == trial.commit
    assert WorldModel.from_pretrained("alice/toy", revision="trial").model_info["revision"] == trial.commit


def test_half_precision_is_pushed_and_tried_as_it_is_stored(hub: LoopbackHub) -> None:
    push(dtype=torch.bfloat16)
    model, back = toys.ensemble(), WorldModel.from_pretrained("alice/toy")
    assert all(torch.equal(its, mine.bfloat16().float()) for mine, its in zip(model.parameters(), back.parameters(), strict=True))


def test_numbers_beside_the_weights_travel_with_them_and_not_with_others(hub: LoopbackHub, tmp_path: Path) -> None:
    bundle.save(toys.ensemble(), tmp_path, source={"preset": "toy"})
    (tmp_path / "fidelity.json").write_text(json.dumps(MEASURED))
    model = WorldModel.from_pretrained(tmp_path)
    model.push_to_hub("alice/toy", license="mit")
    assert json.loads(files_of(hub)["fidelity.json"]) == MEASURED
    assert json.loads(files_of(hub)["config.json"])["source"]["preset"] == "toy"
    next(model.parameters()).data.add_(1.0)
    with pytest.raises(ValueError, match="nobody has measured"):
        model.push_to_hub("alice/toy", license="mit")
    with pytest.raises(ValueError, match="has other weights"):
        model.push_to_hub("alice/toy", license="mit", fidelity=tmp_path)


# ---- what is not shared -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fidelity": None}, "nobody has measured"),
        ({"fidelity": {}}, "nobody has measured"),
        ({"license": ""}, "license"),
        ({"name": "toy"}, "expected user/repo"),
        ({"name": "alice/toy/extra"}, "expected user/repo"),
        ({"revision": "../x"}, "expected a branch"),
        ({"revision": "0" * 40}, "is a commit"),
        ({"tag": "a b"}, "tag"),
        ({"replay": "no.mp4"}, "expected an .mp4"),
        ({"fidelity": "nowhere.json"}, "nowhere.json"),
        ({"fidelity": {"error": float("nan")}}, "JSON"),
    ],
)
def test_what_must_not_be_shared_is_refused_before_anything_is_sent(hub: LoopbackHub, options: dict[str, Any], says: str) -> None:
    arguments = {"name": "alice/toy", "license": "mit", "fidelity": MEASURED, **options}
    with pytest.raises(ValueError, match=says):
        toys.ensemble().push_to_hub(arguments.pop("name"), **arguments)
    assert not hub.log


def test_nan_is_not_shared(hub: LoopbackHub) -> None:
    model = toys.ensemble()
    next(model.parameters()).data[0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        push(model)
    assert not hub.log


def test_a_model_that_is_written_otherwise_than_it_dreams_is_not_shared(hub: LoopbackHub) -> None:
    model = toys.ensemble()
    model._feature_high.mul_(0.0)  # no part of what is saved
    with pytest.raises(ValueError, match="dreams another step"):
        push(model)
    assert not hub.log


def test_a_tag_that_is_there_is_not_moved(hub: LoopbackHub) -> None:
    first = push(tag="v1").commit
    with pytest.raises(ValueError, match="has the tag 'v1' already"):
        push(tag="v1", fidelity={**MEASURED, "more": 1})
    assert hub.repos["model", "alice/toy"].branches["main"] == first


def test_private_is_kept_or_refused(hub: LoopbackHub) -> None:
    push(private=True)
    assert hub.repos["model", "alice/toy"].private
    push(name="alice/open")
    with pytest.raises(ValueError, match="is public"):
        push(name="alice/open", private=True)


# ---- damage -------------------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_on_the_way_is_fetched_once_more(hub: LoopbackHub) -> None:
    push()
    fault = hub.fail("corrupt", "GET /blob", after=900, times=1)
    assert torch.equal(toys.dream(WorldModel.from_pretrained("alice/toy"))[-1], toys.dream(toys.ensemble())[-1])
    assert fault.times == 0


def test_bytes_that_stay_flipped_are_an_error_with_both_hashes(hub: LoopbackHub) -> None:
    push()
    hub.fail("corrupt", "GET /blob", after=900, times=-1)
    with pytest.raises(
        InvalidModelError, match=r"^alice/toy@\w{7}/\S+: damaged or replaced: sha256 is [0-9a-f]{64}, but .* announces [0-9a-f]{64}"
    ):
        WorldModel.from_pretrained("alice/toy")


@pytest.mark.parametrize("name", sorted(MODEL_FILES))
def test_damage_in_the_cache_is_mended_or_named_with_its_cure_when_the_hub_is_away(hub: LoopbackHub, own_cache: Path, name: str) -> None:
    commit = push().commit
    WorldModel.from_pretrained("alice/toy")
    cached = next(own_cache.rglob(f"snapshots/{commit}/{name}"))
    data = bytearray(cached.read_bytes())
    data[len(data) // 2] ^= 0xFF
    cached.resolve().write_bytes(data)
    with pytest.raises(InvalidModelError, match=r"hf cache rm model/alice/toy"):
        WorldModel.from_pretrained("alice/toy", revision=commit, local_files_only=True)
    assert torch.equal(toys.dream(WorldModel.from_pretrained("alice/toy", revision=commit))[-1], toys.dream(toys.ensemble())[-1])
    hub.log.clear()
    WorldModel.from_pretrained("alice/toy", revision=commit)
    assert not hub.log  # the cache was mended, too


def test_links_in_the_cache_are_followed_and_those_in_a_folder_are_not(hub: LoopbackHub, own_cache: Path) -> None:
    commit = push().commit
    WorldModel.from_pretrained("alice/toy")
    snapshot = next(own_cache.rglob(f"snapshots/{commit}"))
    assert (snapshot / "config.json").is_symlink()
    with pytest.raises(InvalidModelError, match="not a regular file"):
        WorldModel.from_pretrained(snapshot)


# ---- environments -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_models_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "_models", {})


def test_eight_workers_resolve_the_revision_at_most_once(hub: LoopbackHub, no_models_yet: None, own_cache: Path) -> None:
    push()
    hub.log.clear()
    env = gym.make_vec("dreamgym/Dream-v0", 8, vectorization_mode="async", model="alice/toy", cache_dir=str(own_cache))
    try:
        assert env.reset(seed=0)[0].shape == (8, 4)
    finally:
        env.close()
    assert len(hub.requests("GET /api/models")) == 1
    assert len(hub.requests("GET .*config.json")) == 1


def test_a_worker_that_starts_afresh_uses_what_its_parent_has_just_resolved(
    hub: LoopbackHub, no_models_yet: None, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push()
    registration.load_model("alice/toy")
    hub.log.clear()
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    registration.load_model("alice/toy")
    assert not hub.log
    note = own_cache / "models--alice--toy" / "refs" / "main"
    os.utime(note, (0, 0))  # long ago
    registration.load_model("alice/toy")
    assert len(hub.log) == 1


def test_make_vec_takes_a_repository_at_a_revision(hub: LoopbackHub, no_models_yet: None, tmp_path: Path) -> None:
    push(tag="v1")
    push(fidelity={**MEASURED, "later": 1})
    env = gym.make_vec("dreamgym/Dream-v0", 3, model="alice/toy", revision="v1", cache_dir=str(tmp_path / "own"))
    assert env.reset(seed=0)[0].shape == (3, 4)
    assert env.unwrapped.model.model_info["revision"] == hub.repos["model", "alice/toy"].tags["v1"]
    assert (tmp_path / "own" / "models--alice--toy").is_dir()


def test_environments_of_one_commit_share_one_model_until_the_branch_moves(hub: LoopbackHub, no_models_yet: None) -> None:
    push()
    one, other = (registration.load_model("alice/toy") for _ in range(2))
    assert one is other
    push(fidelity={**MEASURED, "later": 1})
    assert registration.load_model("alice/toy") is not one


def test_check_world_model_takes_a_repository_at_a_revision(hub: LoopbackHub, no_models_yet: None, own_cache: Path) -> None:
    push(tag="v1")
    push(toys.rssm(), fidelity=None, allow_unevaluated=True)
    report = check_world_model("alice/toy", revision="v1", cache_dir=own_cache, steps=20)
    assert report.ok and "CartPole-v1" in report.model, str(report)


def test_a_folder_that_looks_like_a_repository_wins_with_a_warning(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push()
    bundle.save(toys.rssm(), tmp_path / "alice" / "toy")
    monkeypatch.chdir(tmp_path)
    hub.log.clear()
    with pytest.warns(UserWarning, match=r"the folder alice/toy is loaded.*alice/toy@main"):
        assert WorldModel.from_pretrained("alice/toy").spec.env_id == "CarRacing-v3"
    assert not hub.log
    assert WorldModel.from_pretrained("alice/toy@main").spec.env_id == "CartPole-v1"


def test_a_pickled_environment_names_the_commit_and_no_token(hub: LoopbackHub, no_models_yet: None, own_cache: Path) -> None:
    from dreamgym.dreams.sharing import ModelReference

    commit = push(private=True).commit
    model = WorldModel.from_pretrained("alice/toy", token="hf_alice_secret", cache_dir=own_cache)
    _, (source, options) = ModelReference(model).__reduce__()
    assert source == f"alice/toy@{commit}" and options == {"cache_dir": str(own_cache)}
    hub.log.clear()
    again = pickle.loads(pickle.dumps(ModelReference(model))).model
    assert again.source == model.source and not hub.log


# ---- the registry -------------------------------------------------------------------------------------------------------------


def test_the_registry_names_the_configs_that_come_with_the_package() -> None:
    from dreamgym.formats.files import sha256
    from dreamgym.hub.registry import ROWS

    assert set(ROWS) == set(registration.BUNDLED) == set(bundle.bundled_names())
    for name, row in ROWS.items():
        folder = bundle.bundled_folder(name)
        assert folder is not None and sha256((folder / "config.json").read_bytes()) == row.config_sha256


def test_a_name_whose_weights_were_left_out_is_pulled_at_its_commit(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamgym.formats.files import sha256
    from dreamgym.hub import registry

    commit = push(name="dreamers/dream-toy").commit
    push(toys.rssm(), name="dreamers/dream-toy", fidelity=None, allow_unevaluated=True)  # what the branch says later does not matter
    config = files_of(hub, "dreamers/dream-toy", commit)["config.json"]
    monkeypatch.setattr(bundle, "_PRETRAINED", tmp_path)
    monkeypatch.setitem(registry.ROWS, "Toy", registry.Row("dreamers/dream-toy", sha256(config), commit))
    model = WorldModel.from_pretrained("Toy")
    assert model.spec.env_id == "CartPole-v1" and model.source == "bundled:Toy"
    hub.log.clear()
    assert WorldModel.from_pretrained("bundled:Toy").model_info == {"bundled": "Toy"} and not hub.log
    monkeypatch.setitem(registry.ROWS, "Toy", registry.Row("dreamers/dream-toy", "0" * 64, commit))
    with pytest.raises(InvalidModelError, match="the registry says 0000"):
        WorldModel.from_pretrained("Toy")


def test_a_name_that_is_not_published_says_so(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_PRETRAINED", tmp_path)
    with pytest.raises(ModelNotFoundError, match="not published yet"):
        WorldModel.from_pretrained("Pendulum")
    assert not hub.log


# ---- agents -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(hub: LoopbackHub) -> WorldModel:
    """A world model as it comes from the Hub."""
    push()
    return WorldModel.from_pretrained("alice/toy")


def agents_of(world: WorldModel) -> dict[str, Any]:
    features = int(world.feature_low.size)
    linear = dreamgym.LinearController(world.spec, features)
    linear.vector = np.linspace(-1, 1, linear.num_parameters)
    return {
        "actor-critic": ActorCritic(world.spec, features, ActorCriticConfig(layers=1, units=8)),
        "linear": linear,
        "cem": dreamgym.CEM(world, dreamgym.CEMConfig(horizon=3, candidates=20, elites=5)),
    }


@pytest.mark.parametrize("kind", ["actor-critic", "linear", "cem"])
def test_an_agent_comes_back_and_acts_the_same_on_the_model_it_is_linked_to(
    hub: LoopbackHub, world: WorldModel, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agents_of(world)[kind]
    asked = {} if kind == "cem" else {"model": world}
    pushed = agent.push_to_hub("alice/agent", license="mit", allow_unevaluated=True, tag="v1", **asked)
    card = files_of(hub, "alice/agent")["README.md"].decode()
    assert "base_model: alice/toy" in card and world.model_info["revision"] in card
    move_to(tmp_path / "another", monkeypatch)
    hub.log.clear()
    back = dreamgym.load_agent("alice/agent", world, revision="v1")
    assert asked_for(hub) == ({"agent.json"} if kind == "cem" else {"agent.json", "agent.safetensors"})
    assert type(back) is type(agent) and back.config == agent.config
    if kind != "cem":
        features = np.linspace(-1, 1, 3 * world.feature_low.size, dtype=np.float32).reshape(3, -1)
        assert np.array_equal(agent.predict(features, deterministic=True)[0], back.predict(features, deterministic=True)[0])
    hub.log.clear()
    dreamgym.load_agent(f"alice/agent@{pushed.commit}", world)
    assert not hub.log


def test_an_agent_of_a_model_that_nobody_can_get_is_not_shared(hub: LoopbackHub, world: WorldModel, tmp_path: Path) -> None:
    agent = agents_of(world)["linear"]
    bundle.save(toys.ensemble(), tmp_path)
    hub.log.clear()
    with pytest.raises(ValueError, match="push the model first"):
        agent.push_to_hub("alice/agent", license="mit", allow_unevaluated=True, model=WorldModel.from_pretrained(tmp_path))
    with pytest.raises(ValueError, match="nobody has measured"):
        agent.push_to_hub("alice/agent", license="mit", model=world)
    assert not hub.log


def test_damaged_weights_of_an_agent_are_fetched_once_more(hub: LoopbackHub, world: WorldModel, tmp_path: Path) -> None:
    agents_of(world)["linear"].push_to_hub("alice/agent", license="mit", allow_unevaluated=True, model=world)
    fault = hub.fail("corrupt", "GET /blob", after=100, times=1)
    back = dreamgym.load_agent("alice/agent", world)
    assert fault.times == 0 and back.vector[0] == -1.0
    hub.fail("corrupt", "GET /blob", after=100, times=-1)
    with pytest.raises(InvalidModelError, match="sha256 is"):
        dreamgym.load_agent("alice/agent", world, cache_dir=tmp_path / "another")


def test_an_agent_whose_weights_nobody_vouches_for_is_not_taken_from_the_hub(hub: LoopbackHub, world: WorldModel) -> None:
    agents_of(world)["linear"].push_to_hub("alice/agent", license="mit", allow_unevaluated=True, model=world)
    told = json.loads(files_of(hub, "alice/agent")["agent.json"])
    old = {name: told[name] for name in ("feature_size", "config", "kind")}  # as the first versions wrote it, and folders still hold it
    client.upload("alice/agent", {"agent.json": json.dumps(old).encode()}, message="an old one")
    with pytest.raises(InvalidModelError, match=r"agent\.json: the top level lacks the key 'files'.*push it again"):
        dreamgym.load_agent("alice/agent", world)


def test_a_model_is_not_an_agent_and_an_agent_not_a_model(hub: LoopbackHub, world: WorldModel) -> None:
    agents_of(world)["linear"].push_to_hub("alice/agent", license="mit", allow_unevaluated=True, model=world)
    with pytest.raises(
        ModelNotFoundError, match=r"'alice/agent' is not a dreamgym model: it has no config\.json \(its library is 'dreamgym'\)"
    ):
        WorldModel.from_pretrained("alice/agent")
    with pytest.raises(ModelNotFoundError, match=r"'alice/toy' is not a dreamgym agent: it has no agent\.json"):
        dreamgym.load_agent("alice/toy", world)


# ---- the command line ---------------------------------------------------------------------------------------------------------


def test_push_info_and_pull_from_the_command_line(hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, copied = tmp_path / "model", tmp_path / "copied"
    bundle.save(toys.ensemble(), model)
    (tmp_path / "numbers.json").write_text(json.dumps(MEASURED))
    told = ["--license", "mit", "--fidelity", str(tmp_path / "numbers.json"), "--tag", "v1", "--private"]
    assert cli.main(["push", str(model), "alice/toy", *told]) == 0
    commit = hub.repos["model", "alice/toy"].tags["v1"]
    assert commit in capsys.readouterr().out and hub.repos["model", "alice/toy"].private
    hub.log.clear()
    assert cli.main(["info", "alice/toy@v1"]) == 0
    assert f"alice/toy@{commit}: a world model" in capsys.readouterr().out
    assert asked_for(hub) == {"config.json", "fidelity.json"}  # no weights
    assert cli.main(["pull", "alice/toy", "--revision", "v1", "--out", str(copied)]) == 0
    assert {path.name for path in copied.iterdir()} == {*MODEL_FILES, "fidelity.json"}
    assert torch.equal(toys.dream(bundle.load(copied))[-1], toys.dream(toys.ensemble())[-1])


def test_an_agent_from_the_command_line(hub: LoopbackHub, world: WorldModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agents_of(world)["linear"].save(tmp_path)
    told = ["--license", "mit", "--allow-unevaluated"]
    assert cli.main(["push", str(tmp_path), "alice/agent", *told]) == 2
    assert "--model user/repo@commit" in capsys.readouterr().err
    assert cli.main(["push", str(tmp_path), "alice/agent", *told, "--model", str(world.source)]) == 0
    capsys.readouterr()
    assert cli.main(["info", "alice/agent"]) == 0
    printed = capsys.readouterr().out
    assert "an agent" in printed and "linear" in printed
    assert cli.main(["pull", "alice/agent", "--out", str(tmp_path / "copied")]) == 0
    assert "alice/agent@" in capsys.readouterr().out
    assert acts(dreamgym.load_agent(tmp_path / "copied", world)) == acts(agents_of(world)["linear"])
    assert cli.main(["pull", "alice/nothing"]) == 1
    assert "no model 'alice/nothing'" in capsys.readouterr().err
    assert asked_for(hub) >= {"agent.json"} and "fidelity.json" not in files_of(hub, "alice/agent")
