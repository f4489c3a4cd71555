"""Parameter counts of the papers' actors and critics (specs/dreamer.md F.5, C.9), and the measured recipe's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.recipes import dreamer_v1, dreamer_v2, dreamer_v3
from dreamgym.models.guard import Guard
from dreamgym.structs import Spec
from tests.agents.worlds import FREE, PointMass, scattered


def _counts(config, features, action_space):
    spec = Spec("Toy-v0", spaces.Box(-1.0, 1.0, (3,), np.float32), action_space, 10)
    agent = ActorCritic(spec, features, config)
    return tuple(sum(parameter.numel() for parameter in network.parameters()) for network in (agent.actor, agent.critic))


def _box(size):
    return spaces.Box(-1.0, 1.0, (size,), np.float32)


@pytest.mark.parametrize(
    ("config", "features", "action_space", "actor", "critic"),
    [
        (dreamer_v1(), 230, _box(6), 578_412, 413_601),
        (dreamer_v1(), 230, _box(1), 574_402, 413_601),
        (dreamer_v2(), 600 + 1024, spaces.Discrete(18), 1_138_418, 1_131_601),
        (dreamer_v2(), 200 + 1024, _box(6), 976_012, 971_601),
        (dreamer_v3(units=64), 512 + 128, _box(6), 50_316, 66_111),
    ],
    ids=["V1, A=6", "V1, A=1", "V2, Atari", "V2, DMC", "V3, size1m"],
)
def test_parameter_counts_are_the_papers(config, features, action_space, actor, critic):
    assert _counts(config, features, action_space) == (actor, critic)


@pytest.mark.parametrize(("recipe", "box", "classes"), [(dreamer_v1, 0.0, 0.0), (dreamer_v2, 0.0, 1.0), (dreamer_v3, 1.0, 1.0)])
def test_each_paper_has_its_gradient_for_each_kind_of_action(recipe, box, classes):
    shares = [ActorCritic(PointMass(actions).spec, 2, recipe(units=8)).reinforce for actions in ("box", "classes")]
    assert shares == [box, classes]


# ---- the measured recipe: numbers of the code as it was before V2 and V3 joined (commit 2aa9733) ------------------------

GUARDS = {
    "free": FREE,
    "guarded": Guard(max_uncertainty=1.0, uncertainty_penalty=0.2, range_guard=True, reward_low=-5.0, max_episode_steps=50),
}
COMPACT = {
    "vae-rssm": ActorCriticConfig(),
    "ensemble": ActorCriticConfig(layers=2, units=64, horizon=15, discount=0.99, entropy=0.003, reward_scale=1.0, learning_rate=1e-3),
}
# In the fourth update: actor loss, critic loss, entropy, return, reward and value of the dream. After it, at one state: the policy's
# means or logits, the value and the slow value.
FROZEN = {
    "vae-rssm box free": [0.355814, 0.168893, 0.648807, -7.08256, -5.91579, 0.0810168, 0.0733855, 0.00573487, 0.0475237],
    "ensemble box free": [1.93726, 4.59307, 0.65263, -7.05325, -5.78494, 0.0694304, 0.0366511, 0.0597834, 0.105665],
    "vae-rssm box guarded": [3.64443, 63.8407, 0.643922, -33.2678, -18.7264, 0.0765128, -0.0298234, 0.00812523, 0.0475375],
    "ensemble box guarded": [18.1075, 1670.11, 0.646446, -32.3509, -18.7359, 0.0696361, -0.0096319, 0.0596036, 0.105618],
    "vae-rssm classes free": [
        0.316216,
        0.15034,
        1.09831,
        -6.32059,
        -5.31352,
        0.119347,
        0.00815837,
        0.0195098,
        -0.0452402,
        0.0187038,
        0.0557803,
    ],
    "ensemble classes free": [
        1.97233,
        4.244,
        1.09392,
        -6.56255,
        -5.21434,
        -0.0495711,
        0.0954299,
        0.100505,
        -0.0874575,
        -0.0552936,
        -0.0148773,
    ],
    "vae-rssm classes guarded": [
        2.03669,
        37.1818,
        1.0984,
        -27.8397,
        -18.836,
        0.122304,
        0.00540619,
        0.0324954,
        -0.0435573,
        0.0186762,
        0.055802,
    ],
    "ensemble classes guarded": [
        11.7589,
        1055.33,
        1.09252,
        -29.9212,
        -19.7517,
        -0.0502289,
        0.0954451,
        0.101511,
        -0.0865338,
        -0.0487151,
        -0.0145375,
    ],
}


@pytest.mark.parametrize("case", FROZEN)
def test_the_measured_recipe_trains_as_it_always_did(case):
    preset, actions, guard = case.split()
    config = COMPACT[preset]
    torch.manual_seed(7)
    world, guard = PointMass(actions, sigma=0.1, edge=1.5), GUARDS[guard]
    agent = ActorCritic(world.spec, 2, config, seed=3)
    optimisers = [torch.optim.Adam(network.parameters(), config.learning_rate) for network in (agent.actor, agent.critic)]
    for update in range(4):
        losses = agent.losses(world, scattered(32, seed=update), guard, torch.Generator().manual_seed(update))
        for loss, network, optimiser in zip((losses.actor, losses.critic), (agent.actor, agent.critic), optimisers):
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
            optimiser.step()
        agent.update_slow_critic()
    names = ("actor_loss", "critic_loss", "entropy", "imagined_return", "imagined_reward", "value")
    features = world.features(scattered(5, seed=99))[:1]
    with torch.no_grad():
        policy = agent.policy(features)
        first = policy.mean if actions == "box" else policy.logits
        after = torch.cat([first[0], agent.critic(features).mean, agent.slow_critic(features)])
    assert [*(float(losses.metrics[name]) for name in names), *after.tolist()] == pytest.approx(FROZEN[case], rel=1e-4, abs=1e-6)
