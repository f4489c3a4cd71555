"""The YAML above a card, always written by huggingface_hub, so that no text of anybody becomes a key of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dreamgym.errors import require
from dreamgym.formats.strict_json import escape
from dreamgym.hub.markdown import number, part

__all__ = ["agent_metadata", "dataset_metadata", "is_repo_id", "model_metadata"]

LIBRARY, TASK = "dreamgym", "reinforcement-learning"
_REPO_ID = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"), (10**8, "10M<n<100M"))


def model_metadata(env_id: str, fidelity: Any, *, name: str, license: str, datasets: Sequence[str] = ()) -> str:
    """YAML of a world model. fidelity as in fidelity.json; its real returns and rank correlation become the model-index.

    Raises ValueError without a license.
    """
    return _model_card_data(
        license=_checked(license),
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=[LIBRARY, "world-model", TASK, escape(env_id)],
        datasets=[dataset for dataset in datasets if is_repo_id(dataset)] or None,
        model_name=escape(name),
        eval_results=_eval_results(env_id, fidelity) or None,
    )


def agent_metadata(env_id: str, fidelity: Any, *, name: str, license: str, base_model: str | None) -> str:
    """YAML of an agent that reads the features of base_model, a repository (anything else is left out). Raises as `model_metadata`."""
    return _model_card_data(
        license=_checked(license),
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=[LIBRARY, "dreamgym-agent", TASK, escape(env_id)],
        base_model=base_model if base_model is not None and is_repo_id(base_model) else None,
        model_name=escape(name),
        eval_results=_eval_results(env_id, fidelity) or None,
    )


def dataset_metadata(env_id: str, steps: float | None, *, name: str, license: str) -> str:
    """YAML of a dataset of real episodes. Raises ValueError without a license."""
    hub = require("huggingface_hub", extra="hub", purpose="writing a dataset card")
    size = None if steps is None else next((text for limit, text in _SIZES if steps < limit), "100M<n<1B")
    data = hub.DatasetCardData(
        license=_checked(license),
        task_categories=[TASK],
        size_categories=None if size is None else [size],
        pretty_name=escape(name),
        tags=[LIBRARY, "rollouts", escape(env_id)],
    )
    return str(data.to_yaml())


def is_repo_id(text: str) -> bool:
    """Whether text has the form of a repository's name, user/name."""
    return _REPO_ID.fullmatch(text) is not None


def _checked(license: str) -> str:
    if not license.strip():
        raise ValueError("license is empty; expected one of the Hub's names, such as 'mit', 'apache-2.0' or 'cc-by-4.0'.")
    return license.strip()


def _model_card_data(**fields: Any) -> str:
    hub = require("huggingface_hub", extra="hub", purpose="writing a model card")
    return str(hub.ModelCardData(**fields).to_yaml())


def _eval_results(env_id: str, fidelity: Any) -> list[Any]:
    """What was measured in the real environment, and how well the dream ranks; dreamt returns are no results and stay in the body."""
    hub = require("huggingface_hub", extra="hub", purpose="writing a model card")
    policy = part(fidelity, "policy")
    found = [("mean_reward", "real return of the agent that learned in the dream", number(policy, "awake", "mean"))]
    for name in part(policy, "baselines"):
        found.append(("mean_reward_of_baseline", f"real return of {escape(name)}", number(policy, "baselines", name, "mean")))
    rank = number(fidelity, "fixed_policies", "rank_correlation")
    found.append(("spearman", "rank correlation of blind policies' returns, dreamt against real", rank))
    shown = escape(env_id)
    return [
        hub.EvalResult(task_type=TASK, dataset_type=shown, dataset_name=shown, metric_type=kind, metric_name=label, metric_value=value)
        for kind, label, value in found
        if value is not None
    ]
