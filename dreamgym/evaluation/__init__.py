"""Judging: returns with their spread, dream against reality, errors of prediction, films and reports."""

from dreamgym.evaluation.comparison import Comparison, awake_env, compare, judging_dream
from dreamgym.evaluation.fidelity import FixedPolicyFidelity, fixed_policy_fidelity, measure, versions, write_fidelity
from dreamgym.evaluation.policies import OpenLoopPolicy, constant_policies, open_loop_policies, random_policy
from dreamgym.evaluation.prediction_errors import one_step_errors, open_loop_errors
from dreamgym.evaluation.returns import Returns, evaluate, report_seeds, validation_seeds

__all__ = [
    "Comparison",
    "FixedPolicyFidelity",
    "OpenLoopPolicy",
    "Returns",
    "awake_env",
    "compare",
    "constant_policies",
    "evaluate",
    "fixed_policy_fidelity",
    "judging_dream",
    "measure",
    "one_step_errors",
    "open_loop_errors",
    "open_loop_policies",
    "random_policy",
    "report_seeds",
    "validation_seeds",
    "versions",
    "write_fidelity",
]
