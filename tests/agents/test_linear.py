"""Controllers of one vector: the paper's counts and boundaries, and populations that act as their members do."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.agents.belief import BeliefPolicy
from dreamgym.agents.linear import (
    ArgmaxActions,
    BoxActions,
    LinearController,
    LinearControllerConfig,
    PedalActions,
    ThresholdActions,
    code_ranges,
)
from dreamgym.agents.loading import load_agent
from dreamgym.errors import InvalidModelError
from dreamgym.models.mdn_rnn import MDNRNN, MDNRNNConfig
from dreamgym.structs import Spec
from tests.toys import CounterWorld

CAR = spaces.Box(np.float32([-1.0, 0.0, 0.0]), np.float32([1.0, 1.0, 1.0]))
DOOM = spaces.Discrete(3)
PAIR = spaces.Box(np.float32([-2.0, -1.0]), np.float32([2.0, 3.0]))
TAKE_COVER = ThresholdActions((2, 0, 1))


def spec_of(action_space):
    return Spec("toy/Controlled", spaces.Box(-1.0, 1.0, (4,), np.float32), action_space, max_episode_steps=10)


def controller(action_space, features, seed=0, **config):
    made = LinearController(spec_of(action_space), features, LinearControllerConfig(**config))
    made.vector = np.random.default_rng(seed).normal(size=made.num_parameters)
    return made


class World:
    """As much of a model as opening an agent needs."""

    def __init__(self, spec):
        self.spec = spec


@pytest.mark.parametrize(
    ("action_space", "features", "config", "count"),
    [
        (CAR, 32 + 256, LinearControllerConfig(bias=True, actions=PedalActions()), 867),
        (DOOM, 64 + 512 + 512, LinearControllerConfig(actions=TAKE_COVER), 1088),
        (CAR, 32, LinearControllerConfig(bias=True, actions=PedalActions()), 99),
        (CAR, 32, LinearControllerConfig(hidden=40, bias=True, actions=PedalActions()), 1443),
    ],
)
def test_parameters_are_as_many_as_in_the_paper(action_space, features, config, count):
    assert LinearController(spec_of(action_space), features, config).num_parameters == count


@pytest.mark.parametrize(("output", "action"), [(-1.0, 2), (-0.34, 2), (-0.33, 0), (0.0, 0), (0.33, 0), (0.34, 1), (1.0, 1)])
def test_take_cover_goes_left_below_minus_a_third_and_right_above_a_third(output, action):
    """specs/world-models.md 11.1-13; ViZDoom counts nothing, right, left."""
    one = controller(DOOM, 1, actions=TAKE_COVER)
    one.vector = [1.0]
    assert one.predict(np.float32([np.arctanh(np.clip(output, -0.9999999, 0.9999999))]))[0] == action


def test_thresholds_count_from_the_lowest_class_by_default():
    one = controller(spaces.Discrete(4, start=10), 1, actions=ThresholdActions())
    one.vector = [1.0]
    outputs = np.arctanh(np.float32([[-0.9], [-0.4], [0.4], [0.9]]))
    assert one.predict(outputs)[0].tolist() == [10, 11, 12, 13]


def test_the_vector_holds_weights_row_by_row_and_then_biases():
    one = controller(PAIR, 2, bias=True)
    one.vector = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    action = one.act_many(torch.tensor(one.vector)[None], torch.tensor([[[0.1, -0.1]]]))
    np.testing.assert_allclose(action[0, 0], np.tanh([0.1 - 0.2 + 5.0, 0.3 - 0.4 + 6.0]), rtol=1e-6)


def test_hidden_units_are_tanh():
    one = controller(PAIR, 1, hidden=1)
    one.vector = [2.0, 3.0, -1.0]
    hidden = np.tanh(2.0 * 0.3)
    action = one.act_many(torch.tensor(one.vector)[None], torch.tensor([[[0.3]]]))
    np.testing.assert_allclose(action[0, 0], np.tanh([3.0 * hidden, -hidden]), rtol=1e-6)


def test_box_actions_fill_the_environments_bounds():
    one = controller(PAIR, 1)
    one.vector = [100.0, -100.0]
    np.testing.assert_allclose(one.predict(np.float32([1.0]))[0], [2.0, -1.0])
    np.testing.assert_allclose(one.predict(np.float32([0.0]))[0], [0.0, 1.0])


def test_pedals_are_half_down_at_rest_and_the_brake_only_pushes():
    """specs/world-models.md 5: gas = (tanh + 1) / 2, brake = clip(tanh, 0, 1)."""
    one = controller(CAR, 1, actions=PedalActions())
    one.vector = [1.0, 1.0, 1.0]
    t = np.tanh(0.5)
    np.testing.assert_allclose(one.predict(np.float32([0.0]))[0], [0.0, 0.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(one.predict(np.float32([0.5]))[0], [t, (t + 1) / 2, t], rtol=1e-6)
    np.testing.assert_allclose(one.predict(np.float32([-0.5]))[0], [-t, (1 - t) / 2, 0.0], atol=1e-6)


def test_the_highest_output_wins_in_each_of_several_choices():
    one = controller(spaces.MultiDiscrete([2, 3]), 1)
    one.vector = [0.0, 1.0, 5.0, 30.0, 29.0]
    assert one.predict(np.float32([1.0]))[0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("action_space", "config"),
    [
        (DOOM, {"actions": TAKE_COVER}),
        (DOOM, {"bias": True}),
        (PAIR, {"hidden": 5, "bias": True}),
        (CAR, {"actions": PedalActions(), "inputs": ((1, 3), (5, 6))}),
    ],
)
def test_a_population_acts_as_each_of_its_members_would(action_space, config):
    one = controller(action_space, 6, **config)
    parameters = torch.randn(3, one.num_parameters, generator=torch.Generator().manual_seed(1))
    features = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2))
    together = one.spec.to_env_action(one.act_many(parameters, features)).numpy()
    for member in range(3):
        one.vector = parameters[member]
        alone = one.predict(features[member].numpy())[0]
        np.testing.assert_allclose(together[member], alone, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.predict(features[member, 0].numpy())[0], alone[0], rtol=1e-5, atol=1e-6)


# ---- imitating -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action_space", "actions"),
    [
        (DOOM, TAKE_COVER),
        (DOOM, ThresholdActions()),
        (spaces.Discrete(5), ThresholdActions((4, 0, 3, 1, 2))),
        (DOOM, ArgmaxActions()),
        (spaces.MultiDiscrete([3, 2]), ArgmaxActions()),
        (spaces.Box(-2.0, 3.0, (2,)), BoxActions()),
        (CAR, PedalActions()),
    ],
)
def test_raw_outputs_stand_for_the_actions_they_were_made_from(action_space, actions):
    spec = Spec("World-v0", spaces.Box(-1, 1, (3,)), action_space, max_episode_steps=10)
    if spec.is_discrete:
        choices = [torch.eye(size) for size in spec.action_sizes]
        wanted = torch.stack([torch.cat(rows) for rows in itertools.product(*choices)])
    else:
        wanted = torch.linspace(-0.9, 0.9, 7).unsqueeze(1).expand(-1, spec.action_size)
    torch.testing.assert_close(actions.model_action(actions.raw_of(wanted, spec), spec), wanted)


def test_thresholds_leave_the_middle_to_even_chances():
    spec = Spec("World-v0", spaces.Box(-1, 1, (3,)), DOOM, max_episode_steps=10)
    chances = torch.tensor([[0.6, 0.2, 0.2], [0.3, 0.42, 0.28], [0.3, 0.28, 0.42]])  # nothing, right, left
    assert TAKE_COVER.model_action(TAKE_COVER.raw_of(chances, spec), spec).argmax(-1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("inputs", [(), ((1, 3), (4, 6))])
def test_a_linear_teacher_is_imitated_exactly(bias, inputs):
    spec = Spec("World-v0", spaces.Box(-1, 1, (3,)), spaces.Box(-1.0, 1.0, (2,)), max_episode_steps=10)
    config = LinearControllerConfig(inputs=inputs, bias=bias)
    teacher, pupil = LinearController(spec, 6, config), LinearController(spec, 6, config)
    teacher.vector = 0.3 * np.random.default_rng(0).normal(size=teacher.num_parameters)
    features = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    actions = teacher.act_many(teacher.weights[None], features[None])[0]
    assert pupil.imitate(features, actions, ridge=1e-6) > 0.999
    np.testing.assert_allclose(pupil.vector, teacher.vector, atol=1e-3)
    assert pupil.imitate(features, actions, ridge=1e4) < 0.5  # shrunk
    weights = slice(None, -2 if bias else None)
    assert np.abs(pupil.vector[weights]).max() < 0.5 * np.abs(teacher.vector[weights]).max()


def test_what_cannot_be_imitated_is_refused():
    spec = Spec("World-v0", spaces.Box(-1, 1, (3,)), DOOM, max_episode_steps=10)
    features, actions = torch.zeros(4, 6), torch.eye(3)
    with pytest.raises(ValueError, match="4 rows, actions 3"):
        LinearController(spec, 6).imitate(features, actions)
    with pytest.raises(ValueError, match="40 hidden units"):
        LinearController(spec, 6, LinearControllerConfig(hidden=40)).imitate(features[:3], actions)


# ---- inputs --------------------------------------------------------------------------------------------------------------


def test_features_outside_the_inputs_change_nothing():
    one = controller(PAIR, 6, inputs=((1, 3), (5, 6)))
    assert one.num_parameters == 6
    features = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    features[1, [1, 2, 5]] = features[0, [1, 2, 5]]
    first, second = one.predict(features)[0]
    np.testing.assert_array_equal(first, second)


def test_the_parts_of_an_mdn_rnns_features_have_names():
    core = MDNRNN(MDNRNNConfig(units=5, features="zch"), embed_size=6, action_size=2)
    model = World(None)
    model.core = core
    state = core.initial(1)
    marked = type(state)(state.deter + 3.0, state.stoch + 1.0, state.cell + 2.0, state.first)
    features = core.features(marked)[0]
    read = {
        name: torch.cat([features[first:last] for first, last in code_ranges(model, name)]).tolist() for name in ("z", "h", "zh", "zch")
    }
    assert read == {"z": [1.0] * 3, "h": [3.0] * 5, "zh": [1.0] * 3 + [3.0] * 5, "zch": [1.0] * 3 + [2.0] * 5 + [3.0] * 5}
    model.core = MDNRNN(MDNRNNConfig(units=5, features="z"), embed_size=6, action_size=2)
    with pytest.raises(ValueError, match="the model's features are 'z'"):
        code_ranges(model, "zh")


@pytest.mark.parametrize("config", [{"actions": TAKE_COVER}, {"hidden": 3, "bias": True, "inputs": ((0, 2), (3, 4))}, {}])
def test_a_saved_controller_is_opened_without_knowing_what_it_is(config, tmp_path):
    one = controller(DOOM, 4, **config)
    one.save(tmp_path)
    opened = load_agent(tmp_path, World(one.spec))
    assert isinstance(opened, LinearController) and opened.config == one.config
    np.testing.assert_array_equal(opened.vector, one.vector)


def test_files_of_another_worlds_controller_are_refused(tmp_path):
    controller(DOOM, 4, actions=TAKE_COVER).save(tmp_path)
    with pytest.raises(InvalidModelError, match="does not fit this model"):
        LinearController.load(tmp_path, spec_of(PAIR))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["config"].update(inputs=[[0, 9]]), "does not fit"),
        (lambda content: content["config"].update(inputs=[[0, 1, 2]]), r"inputs\[0\]"),
        (lambda content: content["config"].update(inputs=[["a", 1]]), r"inputs\[0\]\[0\]' is 'a'"),
        (lambda content: content["config"].update(inputs=7), "expected a list"),
        (lambda content: content["config"].update(inputs=[[3, 1]]), "out of range"),
        (lambda content: content["config"].update(hidden=10**9), "out of range"),
        (lambda content: content["config"]["actions"].update(order=[0, 0]), "does not fit"),
        (lambda content: content.update(kind="cubic"), "expected exactly|kind"),
    ],
)
def test_touched_descriptions_are_refused(change, message, tmp_path):
    one = controller(DOOM, 4, actions=TAKE_COVER)
    one.save(tmp_path)
    content = json.loads((tmp_path / "agent.json").read_text())
    change(content)
    (tmp_path / "agent.json").write_text(json.dumps(content))
    with pytest.raises(InvalidModelError, match=message):
        load_agent(tmp_path, World(one.spec))
    with pytest.raises(InvalidModelError, match=message):
        LinearController.load(tmp_path, one.spec)


@pytest.mark.parametrize(
    ("action_space", "config", "message"),
    [
        (PAIR, {"actions": ThresholdActions()}, "order"),
        (DOOM, {"actions": ThresholdActions((0, 3))}, "order"),
        (PAIR, {"actions": ArgmaxActions()}, "ArgmaxActions"),
        (DOOM, {"actions": BoxActions()}, "BoxActions"),
        (PAIR, {"actions": PedalActions()}, "PedalActions"),
        (PAIR, {"inputs": ((0, 5),)}, "4 features"),
    ],
)
def test_what_the_actions_or_features_cannot_be_is_refused(action_space, config, message):
    with pytest.raises(ValueError, match=message):
        LinearController(spec_of(action_space), 4, LinearControllerConfig(**config))


def test_a_vector_of_another_length_or_with_nan_is_refused():
    one = controller(PAIR, 3)
    for wrong in (np.zeros(5), [np.nan] * 6):
        with pytest.raises(ValueError, match="vector"):
            one.vector = wrong


def test_raw_observations_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match="LatentObservation"):
        controller(PAIR, 3).predict(np.zeros((2, 7), np.float32))


def test_a_controller_acts_awake_on_the_belief():
    """CounterWorld awake believes the mean of prediction and observation; its features are (x, tanh x)."""
    world = CounterWorld()
    one = LinearController(world.spec, 2)
    one.vector = [0.1, 0.0]
    policy = BeliefPolicy(one, world)
    actions = [policy.predict(np.float32([[4.0]]), episode_start=np.array([begins]))[0] for begins in (True, False)]
    beliefs = [4.0, (4.0 + np.tanh(0.4) + 4.0) / 2]
    np.testing.assert_allclose(np.ravel(actions), np.tanh(0.1 * np.array(beliefs)), rtol=1e-5)
