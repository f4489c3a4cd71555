"""Experience travels through the real client and a Hub on loopback: bit for bit, from one commit, damaged files healed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

import dreamgym.hub.datasets as datasets
from dreamgym.data import Replay
from dreamgym.errors import HubUnreachableError, InvalidDataError, ModelAccessError, ModelNotFoundError
from dreamgym.structs import Spec
from dreamgym.training.loop import fit
from tests.data import toys
from tests.hub import rollouts
from tests.hub.conftest import TOKENS, environment, move_to, welcome
from tests.hub.loopback_hub import LoopbackHub
from tests.training.tiny import tiny_ensemble

REPO = "alice/toy-rollouts"


@pytest.mark.parametrize("spec", rollouts.KINDS.values(), ids=rollouts.KINDS.keys())
def test_what_is_pushed_is_pulled_bit_for_bit_on_another_machine(
    spec: Spec, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = rollouts.filled(spec)
    pushed = replay.push_to_hub(REPO, license="mit", seeds=[0], tag="v1")
    move_to(tmp_path / "elsewhere", monkeypatch)
    pulled = Replay.from_hub(REPO)
    rollouts.assert_equal(replay, pulled)
    assert pulled.source == f"{REPO}@{pushed.commit}" and replay.source is None


def test_a_pull_asks_for_one_commit_and_for_our_files_alone(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts.filled().push_to_hub(REPO, license="mit")
    latest = hub.commit(REPO, {"dreamgym.py": b"evil", "../../evil": b"evil", "data/extra.npz": b"evil"}, type="dataset")
    move_to(tmp_path / "elsewhere", monkeypatch)
    hub.log.clear()
    Replay.from_hub(REPO)
    asked = {line.split()[1].partition("?")[0].partition("/resolve/")[2] for line in hub.requests("/resolve/")}
    assert asked == {f"{latest}/meta.json", f"{latest}/{rollouts.SHARD}"}


def test_a_pinned_dataset_in_the_cache_needs_no_request(hub: LoopbackHub) -> None:
    replay = rollouts.filled()
    commit = replay.push_to_hub(REPO, license="mit").commit
    Replay.from_hub(REPO)
    hub.log.clear()
    rollouts.assert_equal(replay, Replay.from_hub(f"{REPO}@{commit}"))
    rollouts.assert_equal(replay, Replay.from_hub(REPO, local_files_only=True))
    assert not hub.log


def test_a_tag_goes_on_meaning_the_episodes_it_was_given(hub: LoopbackHub) -> None:
    first, second = rollouts.filled(episodes=4), rollouts.filled(episodes=2, seed=1)
    first.push_to_hub(REPO, license="mit", tag="v1")
    second.push_to_hub(REPO, license="mit")
    rollouts.assert_equal(first, Replay.from_hub(REPO, revision="v1"))
    rollouts.assert_equal(second, Replay.from_hub(REPO))


def test_shards_of_a_larger_dataset_before_are_removed(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_SHARD_BYTES", 200)
    rollouts.filled(episodes=9).push_to_hub(REPO, license="mit")
    assert len(shards(hub)) > 1
    monkeypatch.undo()
    rollouts.filled(episodes=2).push_to_hub(REPO, license="mit", token=TOKENS["alice"])
    assert shards(hub) == [rollouts.SHARD]


def shards(hub: LoopbackHub) -> list[str]:
    import huggingface_hub

    listed = huggingface_hub.HfApi(token=TOKENS["alice"]).list_repo_files(REPO, repo_type="dataset")
    return [name for name in listed if name.startswith("data/")]


def test_rows_go_to_a_folder_of_the_callers(hub: LoopbackHub, tmp_path: Path) -> None:
    replay = rollouts.filled()
    replay.push_to_hub(REPO, license="mit")
    Replay.from_hub(REPO, folder=tmp_path / "rows")
    rollouts.assert_equal(replay, Replay(toys.VECTOR, tmp_path / "rows"))


def test_a_file_damaged_on_its_way_is_fetched_once_more(hub: LoopbackHub) -> None:
    replay = rollouts.filled()
    replay.push_to_hub(REPO, license="mit")
    hub.fail("corrupt", r"GET .*(blob|npz)", after=100)
    rollouts.assert_equal(replay, Replay.from_hub(REPO))
    assert [fault.times for fault in hub.faults] == [0]


def test_a_file_damaged_in_the_cache_is_fetched_once_more(hub: LoopbackHub) -> None:
    replay = rollouts.filled()
    replay.push_to_hub(REPO, license="mit")
    Replay.from_hub(REPO)
    damage(hub)
    rollouts.assert_equal(replay, Replay.from_hub(REPO))


def test_a_file_damaged_in_the_cache_is_reported_offline(hub: LoopbackHub) -> None:
    rollouts.filled().push_to_hub(REPO, license="mit")
    Replay.from_hub(REPO)
    damage(hub)
    with pytest.raises(InvalidDataError, match=f"{REPO}@.*/{rollouts.SHARD}: damaged in the cache.*hf cache rm dataset/{REPO}"):
        Replay.from_hub(REPO, local_files_only=True)


def damage(hub: LoopbackHub) -> None:
    import huggingface_hub

    path = huggingface_hub.try_to_load_from_cache(REPO, rollouts.SHARD, repo_type="dataset", cache_dir=cache_now())
    assert isinstance(path, str)
    data = bytearray(Path(path).read_bytes())
    data[100] ^= 1
    Path(path).resolve().write_bytes(data)


def cache_now() -> str:
    import huggingface_hub.constants as constants

    return str(constants.HF_HUB_CACHE)


def test_a_file_that_stays_wrong_is_an_error_with_both_checksums(hub: LoopbackHub) -> None:
    rollouts.filled().push_to_hub(REPO, license="mit")
    hub.fail("corrupt", r"GET .*(blob|npz)", after=100, times=-1)
    with pytest.raises(InvalidDataError, match=r"sha256 is [0-9a-f]{64}, but meta\.json announces [0-9a-f]{64}"):
        Replay.from_hub(REPO)


def test_sizes_are_known_before_anything_is_downloaded(hub: LoopbackHub) -> None:
    rollouts.filled().push_to_hub(REPO, license="mit")
    hub.commit(REPO, {rollouts.SHARD: b"x" * 10**6}, type="dataset")
    hub.log.clear()
    with pytest.raises(InvalidDataError, match=r"1000000 bytes; the limit is \d+"):
        Replay.from_hub(REPO)
    assert not hub.requests(r"GET .*npz") and not hub.requests(r"GET /blob")


def test_another_kind_of_dataset_is_not_found(hub: LoopbackHub) -> None:
    hub.add_repo("alice/other", {"train.parquet": b"PAR1"}, type="dataset")
    with pytest.raises(ModelNotFoundError, match=r"'alice/other' is not a dreamgym dataset: it has no meta\.json"):
        Replay.from_hub("alice/other")


def test_a_private_dataset_is_seen_by_its_owner_alone(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = rollouts.filled()
    replay.push_to_hub(REPO, license="mit", private=True)
    rollouts.assert_equal(replay, Replay.from_hub(REPO))
    with pytest.raises(ModelNotFoundError) as caught:
        Replay.from_hub(REPO, token=TOKENS["bob"])
    assert TOKENS["bob"] not in str(caught.value)


def test_nobody_pushes_to_anothers_name(hub: LoopbackHub) -> None:
    with pytest.raises(ModelAccessError) as caught:
        rollouts.filled().push_to_hub("bob/rollouts", license="mit")
    assert TOKENS["alice"] not in str(caught.value)


@pytest.mark.parametrize("name", ["../../etc", "user/repo/extra", "https://x.org/y", "", "a" * 300])
def test_names_that_are_none_are_refused_without_a_request(name: str, hub: LoopbackHub) -> None:
    for attempt in (lambda: Replay.from_hub(name), lambda: rollouts.filled().push_to_hub(name, license="mit")):
        with pytest.raises(ValueError, match="user/repo"):
            attempt()
    assert not hub.log


def test_nothing_is_sent_without_a_licence_or_of_an_empty_replay(hub: LoopbackHub) -> None:
    with pytest.raises(ValueError, match="license is missing"):
        rollouts.filled().push_to_hub(REPO, license=" ")
    with pytest.raises(ValueError, match="holds no episode"):
        Replay(toys.VECTOR).push_to_hub(REPO, license="mit")
    assert not hub.log


def test_offline_and_never_seen_is_said_at_once(hub: LoopbackHub) -> None:
    with pytest.raises(HubUnreachableError, match="not in the cache"):
        Replay.from_hub("alice/never", local_files_only=True)


def test_the_card_tells_the_numbers_of_meta(hub: LoopbackHub) -> None:
    import huggingface_hub

    rollouts.filled().push_to_hub(REPO, license="cc-by-4.0", source={"description": "toys"})
    card = huggingface_hub.DatasetCard.load(REPO)
    meta = json.loads(Path(huggingface_hub.hf_hub_download(REPO, "meta.json", repo_type="dataset", cache_dir=cache_now())).read_text())
    assert card.data.license == "cc-by-4.0" and "dreamgym" in card.data.tags and "reinforcement-learning" in card.data.task_categories
    assert str(meta["episodes"]) in card.text and "policy2" in card.text and "toys" in card.text


def test_fit_learns_offline_from_what_was_pulled(hub: LoopbackHub, tmp_path: Path) -> None:
    spec = replace(toys.VECTOR, observation_space=spaces.Box(-1e6, 1e6, (3,), np.float32))
    replay = Replay(spec)
    for mark in range(12):
        toys.add(replay, 30, mark=mark % 2, terminated=mark % 3 == 0)
    replay.push_to_hub(REPO, license="mit")
    pulled = Replay.from_hub(REPO, folder=tmp_path / "rows")
    run = fit(pulled, tiny_ensemble(), out=tmp_path / "run", progress=False)
    assert run.metrics["env_steps"] == 0 and run.model.spec == spec
    assert json.loads((run.folder / "model" / "config.json").read_text())["source"]["dataset"] == pulled.source


SCRIPT = """
from dreamgym.hub import datasets
from tests.data import toys
from tests.hub import rollouts
replay = rollouts.filled(toys.IMAGE, episodes=40)
datasets.push_dataset_to_hub(replay, "alice/images", license="mit")
rollouts.assert_equal(replay, datasets.from_hub("alice/images", cache_dir="elsewhere"))
"""


def test_xet_is_no_different(xet_hub: LoopbackHub, tmp_path: Path) -> None:
    """What users have: large files travel through hf_xet; in a process of its own, since the client asks its environment once."""
    welcome(xet_hub)
    environ = {**environment(xet_hub, tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-3000:]
