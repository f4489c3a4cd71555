"""Judging: returns with their spread, dream against reality, errors of prediction, films and reports."""

from dreamgym.evaluation.comparison import Comparison, awake_env, compare, judging_dream
from dreamgym.evaluation.controls import (
    LengthCheck,
    OpenLoopBaselines,
    PairedComparison,
    compare_with_blind,
    open_loop_baselines,
    random_length_check,
)
from dreamgym.evaluation.fidelity import FixedPolicyFidelity, fixed_policy_fidelity, measure, versions, write_fidelity
from dreamgym.evaluation.panel import evaluate_blind
from dreamgym.evaluation.policies import OpenLoopPolicy, constant_policies, open_loop_policies, random_policy, sweep_pairs, sweep_policies
from dreamgym.evaluation.prediction_errors import one_step_errors, open_loop_errors, states_before
from dreamgym.evaluation.reliability import EndReliability, end_reliability
from dreamgym.evaluation.returns import Returns, evaluate, report_seeds, validation_seeds
from dreamgym.evaluation.scrutiny import Controls, run_controls
from dreamgym.evaluation.yoked import YokedControl, yoked_control

__all__ = [
    "Comparison",
    "Controls",
    "EndReliability",
    "FixedPolicyFidelity",
    "LengthCheck",
    "OpenLoopBaselines",
    "OpenLoopPolicy",
    "PairedComparison",
    "Returns",
    "YokedControl",
    "awake_env",
    "compare",
    "compare_with_blind",
    "constant_policies",
    "end_reliability",
    "evaluate",
    "evaluate_blind",
    "fixed_policy_fidelity",
    "judging_dream",
    "measure",
    "one_step_errors",
    "open_loop_baselines",
    "open_loop_errors",
    "open_loop_policies",
    "random_length_check",
    "random_policy",
    "report_seeds",
    "run_controls",
    "states_before",
    "sweep_pairs",
    "sweep_policies",
    "validation_seeds",
    "versions",
    "write_fidelity",
    "yoked_control",
]
