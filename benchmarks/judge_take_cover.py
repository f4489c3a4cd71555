"""Judge a finished World Models run on Doom TakeCover: every controller on fresh seeds, all controls of the best, and the dream's fidelity.

    python -m benchmarks.judge_take_cover --run runs/VizdoomTakeCover-v1-world-models-fast-0 --shipped dreamgym/pretrained/DoomTakeCover

With --shipped the controls and the fidelity are of what was bundled (in half precision), else of the run's own pair. --linear names a
controller of a study of temperatures (searches/<setting>/agent), for its own yoked control in the same model. Each part is a file in
benchmarks/results/world-models that docs/papers/world-models.md is written from (benchmarks/world_models_table.py); what is recorded is
not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.world_models_table import RECORDS
from dreamgym.agents.loading import AGENT_FOLDER, load_agent
from dreamgym.data.collection import collect
from dreamgym.data.encoded import EncodedSink, encoded_spec
from dreamgym.data.replay import Replay
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.envs import make_from_spec
from dreamgym.evaluation.comparison import awake_env
from dreamgym.evaluation.controls import random_length_check
from dreamgym.evaluation.fidelity import fixed_policy_fidelity
from dreamgym.evaluation.policies import constant_policies, sweep_policies
from dreamgym.evaluation.reliability import end_reliability
from dreamgym.evaluation.returns import evaluate, report_seeds
from dreamgym.evaluation.scrutiny import run_controls
from dreamgym.evaluation.yoked import yoked_control
from dreamgym.formats.files import replace_files
from dreamgym.hub import bundle
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Policy, SequenceBatch
from dreamgym.training.world_models_awake import judge_awake, record_lives
from dreamgym.training.world_models_collection import random_policy_of
from dreamgym.training.world_models_config import Iterations
from dreamgym.training.world_models_learners import encoder_of, held_out_batches
from dreamgym.training.world_models_presets import world_models_preset

LEFT_RIGHT = {"1|2": (np.int64(1), np.int64(2))}
NINE_PERIODS = (4, 8, 16, 28, 32, 40, 64)  # with standing still and going right: prototypes/takecover.md
SWEEPS = tuple(range(2, 65, 2))
LIFE_SEED = 3_000_000  # of lives that nothing was fitted to
DREAM_SEED = 2**33  # of dreams that no search and no choice has seen


@dataclass(frozen=True)
class Judgement:
    """What is asked of a run."""

    run: Path
    shipped: Path | None = None
    episodes: int = 300
    dreams: int = 1024
    search_episodes: int = 20
    records: Path = RECORDS
    linear: Path | None = None

    def controllers(self) -> dict[str, Any]:
        """Every controller of every iteration, in the model it was evolved in: the dream's promise and what came of it."""
        found = []
        for model_folder in sorted(self.run.glob("rounds/*/model")):
            model = bundle.load(model_folder)
            for folder in sorted(model_folder.parent.glob("agent-[0-9]*")):
                agent = load_agent(folder, model)
                awake = judge_awake(agent, model, partial(make_from_spec, model.spec), seeds=report_seeds(self.episodes))
                dream = self._dreamt(agent, model)
                who = {"round": int(model_folder.parent.name), "attempt": folder.name, "kind": type(agent).__name__}
                found.append({**who, "chosen": self._is_chosen(folder), "awake": awake.to_json(), "dream": dream})
                print(f"{folder}: {awake} awake, {dream['mean']:.0f} dreamt", flush=True)
        skip = self._model.spec.preprocess.action_repeat
        return {"run": str(self.run), "frame_skip": skip, "preset": self._preset, "controllers": found}

    def controls(self) -> dict[str, Any]:
        """All controls of the run's own controller."""
        done = run_controls(
            self._agent,
            self._model,
            episodes=self.episodes,
            periods=SWEEPS,
            pairs=LEFT_RIGHT,
            search_episodes=self.search_episodes,
            progress=True,
        )
        print(done.table(), flush=True)
        return done.to_json()

    def linear_twins(self) -> dict[str, Any]:
        """Whether that controller sees: its yoked control."""
        assert self.linear is not None
        agent = load_agent(self.linear, self._model)
        with closing(awake_env(self._model)) as seen, closing(awake_env(self._model, obs_type=None)) as unseen:
            yoked = yoked_control(agent, seen, unseen, self.episodes, progress=True)
        print(yoked.table(), flush=True)
        return {"setting": self.linear.parent.name, "kind": type(agent).__name__, "yoked": yoked.to_json()}

    def fidelity(self) -> dict[str, Any]:
        """Nine blind policies and random actions in both worlds, and how reliable predicted ends are."""
        model = self._model
        with closing(awake_env(model, obs_type=None)) as env:
            lengths = random_length_check(model, env, episodes=self.episodes)
        fixed = fixed_policy_fidelity(model, None, self._nine(), self.episodes)
        reliability = end_reliability(model, self._fresh_lives())
        reliability.plot(self.records / "reliability.png")
        print(fixed.table(), lengths.table(), sep="\n", flush=True)
        return {"fixed_policies": fixed.to_json(), "lengths": lengths.to_json(), "reliability": reliability.to_json()}

    def _nine(self) -> dict[str, Any]:
        space = self._model.spec.action_space
        still_and_right = {name: policy for name, policy in constant_policies(space).items() if name in ("always 0", "always 1")}
        return {**still_and_right, **sweep_policies(space, NINE_PERIODS, LEFT_RIGHT)}

    def _dreamt(self, agent: Policy, model: WorldModel) -> dict[str, Any]:
        settings = self._preset["controller_training"]
        options = {"obs_type": "latent", "temperature": settings["temperature"], "dropout": settings["dropout"]}
        with closing(DreamVectorEnv(model, min(self.dreams, 256), **options)) as dreams:  # type: ignore[arg-type]
            returns = evaluate(agent, dreams, seeds=range(DREAM_SEED, DREAM_SEED + self.dreams))
        return {"mean": returns.mean, "std": returns.std, "n": returns.n}

    @cached_property
    def _preset(self) -> dict[str, Any]:
        preset: dict[str, Any] = json.loads((self.run / "config.json").read_text())["preset"]
        return preset

    def _fresh_lives(self) -> list[SequenceBatch]:
        """Random episodes and as many of the agent's. The run's held-out ones chose M's weights and fitted the chance of an end."""
        model, build = self._model, partial(make_from_spec, self._model.spec)
        encode, lived = encoder_of(model, bfloat16=False), Replay(encoded_spec(model.spec, model.encoder.embed_size))
        sink = EncodedSink(model.spec, encode, lived)
        collection = world_models_preset(self._preset["name"], model.spec).collection
        with closing(build()) as env:
            collect(env, partial(random_policy_of, collection, model.spec, LIFE_SEED), sink, episodes=self.episodes, seed=LIFE_SEED)
        alone = Iterations(burst_chance=0.0)
        record_lives(self._agent, model, build, encode, lived, episodes=self.episodes, seed=LIFE_SEED, settings=alone)
        return held_out_batches(lived, episodes=2 * self.episodes, batch=48, device=torch.device("cpu"))

    def _is_chosen(self, folder: Path) -> bool:
        """Whether the run took this controller, and the model beside it, for its own."""
        files = (("model", "model.safetensors", folder.parent / "model"), ("agent", "agent.safetensors", folder))
        return all((self.run / part / name).read_bytes() == (place / name).read_bytes() for part, name, place in files)

    @cached_property
    def _model(self) -> WorldModel:
        return bundle.load(self.shipped or self.run / "model")

    @cached_property
    def _agent(self) -> Any:
        return load_agent((self.shipped or self.run) / AGENT_FOLDER, self._model)


def judge(
    run: Path,
    *,
    shipped: Path | None = None,
    episodes: int = 300,
    dreams: int = 1024,
    search_episodes: int = 20,
    records: Path = RECORDS,
    linear: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Make the records that are missing; returns all.

    Args:
        run: Folder of a finished `fit`.
        shipped: The bundle that benchmarks/pretrain.py made of it; the run's own pair by default.
        episodes: Real episodes of each controller, control and blind policy.
        dreams: Dreams of each controller.
        search_episodes: Of each blind sweep when the best is looked for.
        records: Where the numbers go.
        linear: A linear controller of the same model, to ask whether it sees.
    """
    judgement = Judgement(run, shipped, episodes, dreams, search_episodes, records, linear)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "run": judgement.controllers,
        "controls": judgement.controls,
        "fidelity": judgement.fidelity,
        **({} if linear is None else {"linear-twins": judgement.linear_twins}),
    }
    for name, measure in parts.items():
        path = records / f"{name}.json"
        if not path.exists():
            replace_files(records, {path.name: (json.dumps({"episodes": episodes, **measure()}, indent=1) + "\n").encode()})
    return {name: json.loads((records / f"{name}.json").read_text(encoding="utf-8")) for name in parts}


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(judge)
