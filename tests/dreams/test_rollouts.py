"""DreamRollouts: many candidates, the same dreams for each, equal to what the environments dream."""

import pytest
import torch

from dreamgym.dreams.rollouts import DreamRollouts
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.errors import NonFiniteDreamError
from dreamgym.structs import DreamDefaults
from tests.models.builders import tiny_dreamer, tiny_ensemble, tiny_mdn, tiny_rssm
from tests.toys import BlindWorld, CorridorWorld, CounterWorld


class Linear:
    """tanh(W x), or the class with the largest W x; counts the features it was shown."""

    def __init__(self, actions, *, classes=False):
        self.actions, self.classes, self.shown = actions, classes, 0

    def act_many(self, parameters, features):
        assert features.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        self.shown += features.shape[0] * features.shape[1]
        outputs = torch.einsum("paf,pmf->pma", parameters.unflatten(1, (self.actions, -1)), features)
        return torch.nn.functional.one_hot(outputs.argmax(-1), self.actions).float() if self.classes else outputs.tanh()


def _random(candidates, size, seed=0, scale=1.0):
    return scale * torch.randn(candidates, size, generator=torch.Generator().manual_seed(seed))


def _stepped(model, policy, parameters, rollouts, seed, **options):
    """The same by the vector environment, one candidate after another."""
    results = []
    for candidate in parameters:
        env = DreamVectorEnv(model, rollouts, obs_type="latent", output="torch", autoreset_mode="SameStep", **options)
        obs, _ = env.reset(seed=seed)
        returns, lengths, ended = torch.zeros(rollouts), torch.zeros(rollouts, dtype=torch.int64), torch.zeros(rollouts, dtype=torch.bool)
        alive = torch.ones(rollouts, dtype=torch.bool)
        while alive.any():
            action = model.spec.to_env_action(policy.act_many(candidate[None], obs[None])[0])
            obs, reward, terminated, truncated, _ = env.step(action)
            returns += torch.where(alive, reward, 0.0)
            lengths += alive
            ended |= terminated & alive
            alive &= ~(terminated | truncated)
        results.append((returns, lengths, ended))
    return [torch.stack(each) for each in zip(*results)]


def _short_lived(model):
    """Ends here and there, as an untrained end head does not."""
    with torch.no_grad():
        model.heads.end.weight.mul_(20.0)
        model.heads.end_offset.zero_()
        model.heads.end.bias.fill_(-1.0)
    return model


WORLDS = {
    "counter": (lambda: CounterWorld(sigma=0.5, drift=0.3, bound=1.2, steps=20), Linear(1), 2),
    "corridor": (CorridorWorld, Linear(3, classes=True), 3),
    "rssm": (lambda: tiny_rssm(), Linear(3, classes=True), 3 * 30),
    "dreamer": (lambda: tiny_dreamer(), Linear(3, classes=True), 3 * 38),
    "mdn": (lambda: _short_lived(tiny_mdn()), Linear(3, classes=True), 3 * 51),
    "mdn with dropout": (lambda: _short_lived(tiny_mdn(recurrent_dropout=0.3)), Linear(3, classes=True), 3 * 51),
    "ensemble": (lambda: tiny_ensemble(), Linear(3, classes=True), 3 * 3),
}
OPTIONS = {
    "plain": {},
    "sampled ends, held lanes": {"termination": "sample", "hold": "episode"},
    "a range of temperatures": {"temperature": (0.2, 1.5)},
    "an early threshold": {"end_probability": 0.3},
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("options", OPTIONS)
def test_every_candidate_dreams_what_the_vector_env_dreams(world, options):
    build, policy, size = WORLDS[world]
    model, parameters = build(), _random(4, size)
    options = {"max_episode_steps": 15, **OPTIONS[options]}
    found = DreamRollouts(model, policy, candidates=4, rollouts=5, bfloat16=False, **options).returns(parameters, seed=11)
    returns, lengths, ended = _stepped(model, policy, parameters, 5, 11, **options)
    assert torch.equal(found.lengths, lengths) and torch.equal(found.ended, ended)
    torch.testing.assert_close(found.returns, returns, rtol=1e-4, atol=1e-4)
    assert len(lengths.unique()) > 1 or not world.startswith(("counter", "mdn"))


def test_the_guard_of_the_model_s_defaults_halts_and_charges():
    defaults = DreamDefaults(max_uncertainty=1.5, uncertainty_penalty=0.5, range_guard=True)
    model, policy, parameters = CounterWorld(sigma=0.3, data_range=1.0, defaults=defaults), Linear(1), _random(6, 2)
    found = DreamRollouts(model, policy, candidates=6, rollouts=4, bfloat16=False).returns(parameters, seed=0)
    returns, lengths, ended = _stepped(model, policy, parameters, 4, 0)
    assert torch.equal(found.lengths, lengths) and torch.equal(found.ended, ended) and ended.any() and not ended.all()
    torch.testing.assert_close(found.returns, returns, rtol=1e-4, atol=1e-4)


def test_equal_candidates_get_equal_dreams_and_rollouts_differ():
    model = CounterWorld(sigma=0.5, bound=1.0, steps=50)
    found = DreamRollouts(model, Linear(1), candidates=4, rollouts=6).returns(_random(1, 2).expand(4, 2), seed=3)
    assert all(torch.equal(row, found.returns[0]) for row in found.returns) and len(found.returns[0].unique()) == 6


def test_a_seed_repeats_itself_and_another_is_another():
    rollouts = DreamRollouts(CounterWorld(sigma=0.5), Linear(1), candidates=3, rollouts=4)
    parameters = _random(3, 2)
    first, other, again = (rollouts.returns(parameters, seed).returns for seed in (1, 100, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_finished_dreams_are_dreamt_no_further():
    model, policy = CounterWorld(starts=(), bound=1.0, steps=400), Push()
    parameters = 1.0 / (torch.arange(40).unsqueeze(1) + 4.5)  # past the bound of 1 after 5, 6, ... 44 steps
    found = DreamRollouts(model, policy, candidates=40, rollouts=3).returns(parameters, seed=0)
    assert found.lengths[:, 0].tolist() == list(range(5, 45))
    dreamt, needed = policy.shown, int(found.lengths.sum())
    assert needed < dreamt < 1.6 * needed


class Push(Linear):
    """Always moves by its one parameter."""

    def __init__(self):
        super().__init__(1)

    def act_many(self, parameters, features):
        self.shown += features.shape[0] * features.shape[1]
        return parameters.unsqueeze(1).expand(*features.shape[:2], 1)


def test_a_time_limit_is_no_end():
    model = CounterWorld(steps=9, starts=())
    found = DreamRollouts(model, Push(), candidates=2, rollouts=2).returns([[0.0], [0.25]], seed=0)
    assert found.lengths.tolist() == [[9, 9]] * 2 and not found.ended.any()
    assert found.returns.tolist() == [[0.0, 0.0], [0.25 * 45] * 2]


def test_bfloat16_dreams_nearly_the_same_and_leaves_the_model_alone():
    model, policy, parameters = tiny_rssm(), Linear(3, classes=True), _random(8, 90)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exact, fast = (
        DreamRollouts(model, policy, candidates=8, rollouts=8, bfloat16=half, max_episode_steps=5).returns(parameters, 0)
        for half in (False, True)
    )
    assert not torch.equal(exact.returns, fast.returns)
    assert (exact.returns - fast.returns).abs().median() < 0.02 * exact.returns.abs().mean() + 0.02
    assert all(torch.equal(tensor, before[name]) and tensor.dtype == before[name].dtype for name, tensor in model.state_dict().items())


def test_a_model_with_nothing_optional_will_do():
    found = DreamRollouts(BlindWorld(), Linear(2), candidates=2, rollouts=3).returns(_random(2, 4), seed=0)
    assert found.lengths.tolist() == [[10] * 3] * 2


def test_numbers_that_are_none_are_an_error():
    with pytest.raises(NonFiniteDreamError):
        DreamRollouts(CounterWorld(nan_at=1.0, starts=()), Push(), candidates=2, rollouts=2).returns([[0.0], [0.5]], seed=0)


def test_wrong_counts_are_refused():
    with pytest.raises(ValueError, match="candidates is 0"):
        DreamRollouts(CounterWorld(), Linear(1), candidates=0, rollouts=4)
    with pytest.raises(ValueError, match=r"shape \[3, 2\]; expected \[4, N\]"):
        DreamRollouts(CounterWorld(), Linear(1), candidates=4, rollouts=4).returns(_random(3, 2), seed=0)


def test_any_number_of_candidates_is_judged_where_none_was_promised_and_their_number_changes_nothing():
    rollouts, parameters = DreamRollouts(CounterWorld(sigma=0.5), Linear(1), rollouts=4), _random(5, 2)
    alone, together = rollouts.returns(parameters[:1], seed=2), rollouts.returns(parameters, seed=2)
    torch.testing.assert_close(alone.returns[0], together.returns[0])


def test_dropout_needs_a_model_that_knows_it():
    with pytest.raises(ValueError, match=r"dropout is 0\.1"):
        DreamRollouts(CounterWorld(), Linear(1), candidates=1, rollouts=1, dropout=0.1)
