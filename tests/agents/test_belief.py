"""The belief filter around agents that read states, its sampled posteriors, its exploration and Dict observations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.agents.belief import BeliefPolicy, StepKey
from dreamgym.agents.linear import LinearController
from dreamgym.structs import DreamDefaults, Spec
from tests.toys import CounterWorld, PointState


class Reader:
    """Acts on states: always 0.25, and counts its calls in the memory."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []
        self.memories: list[Any] = []
        self.keys: list[StepKey] = []
        self.deterministic: list[bool] = []

    def act(self, state: PointState, memory: Any, key: StepKey, deterministic: bool = False) -> tuple[Tensor, Any]:
        self.states.append(state.x.clone())
        self.memories.append(memory)
        self.keys.append(key)
        self.deterministic.append(deterministic)
        return torch.full((len(state.x), 1), 0.25), 1 if memory is None else memory + 1


class Constant:
    """An ordinary policy over features that always takes the same action."""

    def __init__(self, action: Any) -> None:
        self.action = np.asarray(action)

    def predict(
        self, observation: NDArray[Any], state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[NDArray[Any], Any]:
        return np.broadcast_to(self.action, (len(observation), *self.action.shape)).copy(), state


class Blurred(CounterWorld):
    """The belief is the observation plus what the noise says."""

    def observe(self, state: PointState, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> PointState:
        return PointState(obs + noise[:, :1])


class Dials(CounterWorld):
    """Two dials, of three and two positions."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = Spec("toy/Dials", self.spec.observation_space, spaces.MultiDiscrete([3, 2]), max_episode_steps=10)


class TwoSenses(CounterWorld):
    """Sees where it is, and a picture that only has to arrive."""

    def __init__(self) -> None:
        super().__init__()
        where, picture = spaces.Box(-9.0, 9.0, (1,), np.float32), spaces.Box(0, 255, (2, 2, 3), np.uint8)
        self.spec = Spec("toy/Senses", spaces.Dict({"where": where, "picture": picture}), self.spec.action_space, max_episode_steps=10)
        self.pictures: list[tuple[int, ...]] = []

    def observe(self, state: PointState, prev_action: Tensor, obs: Any, is_first: Tensor, noise: Tensor) -> PointState:
        assert list(obs) == ["picture", "where"] and obs["picture"].dtype == torch.uint8
        self.pictures.append(tuple(obs["picture"].shape))
        return PointState(obs["where"])


def rows(*values: float) -> NDArray[np.float32]:
    return np.float32(values)[:, None]


def policy_of(agent: Any, model: Any, **options: Any) -> BeliefPolicy:
    return BeliefPolicy(agent, model, **options)


def test_an_agent_of_states_reads_the_posterior_and_its_action_is_believed() -> None:
    reader = Reader()
    policy = policy_of(reader, CounterWorld())
    actions, _ = policy.predict(rows(1.0, 2.0), deterministic=True)
    policy.predict(rows(3.0, 2.0))
    assert actions.tolist() == [[0.25], [0.25]]
    assert reader.states[0].flatten().tolist() == [1.0, 2.0]
    assert reader.states[1].flatten().tolist() == [0.5 * (1.25 + 3.0), 0.5 * (2.25 + 2.0)]
    assert reader.deterministic == [True, False]
    assert torch.equal(policy.belief.x, reader.states[1])


def test_an_agents_memory_comes_back_until_the_batch_changes() -> None:
    reader = Reader()
    policy = policy_of(reader, CounterWorld())
    for batch in (2, 2, 2, 3):
        policy.predict(rows(*[0.0] * batch))
    assert reader.memories == [None, 1, 2, None]


def test_a_rows_clock_restarts_with_its_episode() -> None:
    reader = Reader()
    policy = policy_of(reader, CounterWorld(), seed=9)
    for starts in ([True, True], [False, False], [False, True], [False, False]):
        policy.predict(rows(0.0, 0.0), episode_start=np.array(starts))
    assert [key.step.tolist() for key in reader.keys] == [[0, 0], [1, 1], [2, 0], [3, 1]]
    assert [key.episode.tolist() for key in reader.keys] == [[0, 1], [0, 1], [0, 2], [0, 2]]
    assert reader.keys[0].seed.tolist() == [9, 9]


def test_a_sampled_belief_is_seeded_and_knows_no_neighbours() -> None:
    reader = Reader()
    policy = policy_of(reader, Blurred(), posterior="sample", seed=4)
    policy.predict(rows(0.0, 0.0, 0.0))
    policy.predict(rows(0.0, 0.0, 0.0))
    policy.reseed(4)
    policy.predict(rows(0.0), episode_start=np.ones(1, bool))
    policy.predict(rows(0.0))
    together, later, alone, alone_later = (states.flatten().tolist() for states in reader.states)
    assert len({*together, *later}) == 6 and all(0.0 < value < 1.0 for value in together)
    assert [alone[0], alone_later[0]] == [together[0], later[0]]


def test_the_mean_belief_has_no_noise() -> None:
    reader = Reader()
    policy_of(reader, Blurred()).predict(rows(0.0, 3.0))
    assert reader.states[0].flatten().tolist() == [0.5, 3.5]


def test_gaussian_exploration_is_clipped_and_of_the_asked_size() -> None:
    policy = policy_of(Constant([0.0]), CounterWorld(), explore_noise=0.3)
    actions, _ = policy.predict(np.zeros((4000, 1), np.float32))
    assert abs(actions.std() - 0.3) < 0.02
    edge, _ = policy_of(Constant([0.9]), CounterWorld(), explore_noise=0.3).predict(np.zeros((200, 1), np.float32))
    assert edge.max() == 1.0


def test_exploration_here_replaces_a_planners_own() -> None:
    reader = Reader()
    actions, _ = policy_of(reader, CounterWorld(), explore_noise=0.3).predict(rows(0.0, 0.0))
    assert reader.deterministic == [True]
    assert actions[0, 0] != 0.25 != actions[1, 0]


def test_each_dial_of_a_multidiscrete_action_explores_on_its_own() -> None:
    policy = policy_of(Constant([2, 1]), Dials(), explore_noise=0.5)
    actions, _ = policy.predict(np.zeros((2000, 1), np.float32))
    kept = actions == [2, 1]
    assert np.allclose(kept.mean(0), [1 - 0.5 * 2 / 3, 1 - 0.5 / 2], atol=0.04)
    assert abs(kept.all(1).mean() - kept.mean(0).prod()) < 0.04
    assert actions.min() == 0 and actions.max(0).tolist() == [2, 1]


def test_without_exploration_every_dial_stays() -> None:
    actions, _ = policy_of(Constant([2, 1]), Dials()).predict(np.zeros((3, 1), np.float32))
    assert actions.tolist() == [[2, 1]] * 3


def test_dict_observations_arrive_as_a_dict_of_tensors_one_or_many() -> None:
    world, reader = TwoSenses(), Reader()
    policy = policy_of(reader, world)
    single, _ = policy.predict({"where": np.float32([1.0]), "picture": np.zeros((2, 2, 3), np.uint8)})
    many, _ = policy.predict({"where": rows(1.0, 2.0), "picture": np.zeros((2, 2, 2, 3), np.uint8)})
    assert single.shape == (1,) and many.shape == (2, 1)
    assert world.pictures == [(1, 2, 2, 3), (2, 2, 2, 3)]
    assert reader.states[1].flatten().tolist() == [1.0, 2.0]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="posterior"):
        policy_of(Reader(), CounterWorld(), posterior="mode")
    with pytest.raises(ValueError, match="explore_noise"):
        policy_of(Reader(), CounterWorld(), explore_noise=-0.1)


@pytest.mark.parametrize("belief", ["mean", "sample"])
def test_the_belief_is_what_the_model_wants_unless_told_otherwise(belief):
    world = CounterWorld(defaults=DreamDefaults(belief=belief))
    assert BeliefPolicy(LinearController(world.spec, 2), world).posterior == belief
    assert BeliefPolicy(LinearController(world.spec, 2), world, posterior="mean").posterior == "mean"
