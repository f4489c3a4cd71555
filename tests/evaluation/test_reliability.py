"""Predicted ends against real ones, where both are known by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dreamgym.evaluation.reliability import EndReliability, end_reliability, lived_rows
from dreamgym.structs import SequenceBatch
from tests.evaluation.line import LineModel, lived

RIGHT = [2] * 5  # the goal is reached, and the episode over, in the fifth step


def reliability_of(*pairs: tuple[float, bool], threshold: float = 0.5) -> EndReliability:
    predicted, ended = zip(*pairs)
    return EndReliability(np.array(predicted), np.array(ended), threshold)


def padded(batch: SequenceBatch, rows: int) -> SequenceBatch:
    """The batch with its last row repeated, flagged as nothing."""
    last = batch[:, -1:]
    none = torch.zeros_like(last.is_first)
    padding = replace(last, is_first=none, is_last=none, is_terminal=none, valid=none)
    return SequenceBatch.cat([batch, *[padding] * rows], 1)


def test_bins_hold_what_was_predicted_and_what_happened() -> None:
    found = reliability_of(*[(0.0005, False)] * 6, (0.15, True), (0.11, False), (0.19, False), (1.0, True))
    bins = found.bins
    assert [(each.low, each.high, each.n, each.ends) for each in bins] == [(0.0, 0.001, 6, 0), (0.1, 0.2, 3, 1), (0.97, 1.0, 1, 1)]
    assert bins[1].predicted == pytest.approx(0.15) and bins[1].observed == pytest.approx(1 / 3)
    assert found.expected_calibration_error == pytest.approx((6 * 0.0005 + 3 * (1 / 3 - 0.15) + 0.0) / 10)
    assert found.expected_ends == pytest.approx((6 * 0.0005 + 0.45 + 1.0) / 2)


def test_the_log_loss_of_a_right_constant_is_that_of_the_base_rate() -> None:
    found = reliability_of(*[(0.25, False)] * 3, (0.25, True))
    assert found.log_loss == pytest.approx(found.log_loss_of_base_rate)
    assert found.log_loss == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert found.expected_calibration_error == pytest.approx(0.0)


def test_threshold_counts_found_ends_and_false_alarms() -> None:
    found = reliability_of((0.6, True), (0.3, True), (0.45, False), (0.1, False), (0.1, False), (0.7, False))
    assert (found.recall, found.false_alarms) == (0.5, 0.25)
    assert (replace(found, threshold=0.2).recall, replace(found, threshold=0.2).false_alarms) == (1.0, 0.5)


def test_nothing_that_ended_leaves_numbers_undefined_but_no_error() -> None:
    found = reliability_of((0.1, False), (0.2, False))
    saved = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert saved["recall"] is None and saved["expected_ends"] is None and saved["n"] == 2
    assert "0 ends" in found.table()
    with pytest.raises(ValueError, match="at least one"):
        EndReliability(np.zeros(0), np.zeros(0, bool))


def test_a_perfect_model_is_sure_where_it_should_be() -> None:
    """It gives 0.9 to the end and 0.1 to every other row."""
    found = end_reliability(LineModel(), lived([RIGHT, RIGHT]), context=1)
    assert (found.n, found.ends) == (10, 2)
    assert found.predicted[found.ended] == pytest.approx([0.9, 0.9])
    assert found.predicted[~found.ended] == pytest.approx([0.1] * 8)
    assert found.log_loss == pytest.approx(-math.log(0.9))
    assert (found.recall, found.false_alarms, found.threshold) == (1.0, 0.0, 0.5)


def test_predictions_are_made_before_the_row_is_seen() -> None:
    """Pushed by 0.1 more per step, one step ahead from the true row is one step too far: it cries a step early."""
    found = end_reliability(LineModel(bias=0.1), lived([RIGHT]), context=1)
    assert found.predicted == pytest.approx([0.1, 0.1, 0.1, 0.9, 0.9])


def test_padding_and_first_rows_do_not_count() -> None:
    whole = lived([RIGHT])
    assert end_reliability(LineModel(), padded(whole, 4)).n == 5
    two = SequenceBatch.cat([whole, lived([[2, 2]])], 1)
    counts = lived_rows(padded(two, 2))
    assert counts.tolist() == [
        [False, True, True, True, True, True, False, True, True, True, True]
    ]  # cut, not ended: the rest might be lived
    assert end_reliability(LineModel(), two).n == 7


def test_a_window_from_mid_episode_is_only_observed_at_first() -> None:
    window = lived([[1, 0, 1, 2, 1, 0, 1]])[:, 1:]
    assert lived_rows(window, context=3).tolist() == [[False] * 3 + [True] * 4]
    assert end_reliability(LineModel(), window, context=3).n == 4
    with pytest.raises(ValueError, match="longer than context = 9"):
        end_reliability(LineModel(), window, context=9)


def test_several_batches_are_judged_as_one_and_repeatably() -> None:
    model = LineModel(spread=0.1)
    batches = [lived([RIGHT]), lived([[2, 0, 2, 2], [1, 1, 1, 1]])]
    found = end_reliability(model, batches)
    assert found.n == 5 + 8
    assert np.array_equal(found.predicted, end_reliability(model, iter(batches)).predicted)
    assert not np.array_equal(found.predicted, end_reliability(model, batches, seed=1).predicted)
    assert np.allclose(end_reliability(model, batches, sampled=False).predicted[:5], [0.1, 0.1, 0.1, 0.1, 0.9])


def test_codes_are_taken_as_they_are() -> None:
    class Coded(LineModel):
        class core:
            @staticmethod
            def observe(state: Any, prev_action: Any, embed: Any, is_first: Any, noise: Any) -> tuple[Any, None]:
                return type(state)(embed / 2.0), None

        def observe(self, *_: Any) -> Any:
            raise AssertionError("encoded twice")

    rows = lived([RIGHT])
    found = end_reliability(Coded(), replace(rows, embed=2.0 * rows.obs))
    assert found.predicted == pytest.approx([0.1] * 4 + [0.9])


def test_the_diagram_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = reliability_of(*[(0.002, False)] * 50, (0.4, True), (0.45, False), (1.0, True), (0.0, False))
    assert found.plot(tmp_path / "deep" / "ends.png").read_bytes()[1:4] == b"PNG"
