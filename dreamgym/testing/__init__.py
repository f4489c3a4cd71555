"""Tools for authors of world models: what in a model, ours or a stranger's, breaks the contract that dreams rely on."""

from dreamgym.testing.report import Finding, Report
from dreamgym.testing.suite import assert_world_model, check_world_model

__all__ = ["Finding", "Report", "assert_world_model", "check_world_model"]
