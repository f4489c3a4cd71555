"""The alignment oracle (specs/dreamer.md F.2-10): an off-by-one in actions or rewards shows only in open loop."""

import pytest

from tests.models.builders import open_loop_reward_error, tiny_ensemble, tiny_rssm, train

MARGINAL_VARIANCE = 2.0 / 9.0  # of a reward that is 1 with probability 1/3


@pytest.mark.parametrize(("build", "steps"), [(tiny_rssm, 220), (tiny_ensemble, 150)])
def test_open_loop_reward_becomes_exact(build, steps):
    model = build()
    train(model, steps)
    assert open_loop_reward_error(model) < 0.1 * MARGINAL_VARIANCE


@pytest.mark.parametrize(("build", "steps"), [(tiny_rssm, 220), (tiny_ensemble, 150)])
def test_late_actions_leave_the_marginal_variance(build, steps):
    model = build()
    train(model, steps, shift=-1)
    assert open_loop_reward_error(model, shift=-1) > 0.6 * MARGINAL_VARIANCE
