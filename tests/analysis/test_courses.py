"""Scores over training: rank correlation, equal images and equal time, and the tables that say so."""

from __future__ import annotations

import io
import math
import random
from dataclasses import replace

import pytest
from PIL import Image
from scipy import stats

from ganzoo.analysis import courses
from ganzoo.analysis.courses import Comparison, Course, compare, markdown, png, spearman
from ganzoo.errors import UserError
from tests.mutants import kills

SLOW = Course("slow", [10, 20, 30], [5.0, 10.0, 15.0], [8.0, 4.0, 2.0])
FAST = Course("fast", [10.05, 20, 40, 60], [1.0, 2.0, 4.0, 6.0], [9.0, 7.0, 6.0, 6.5])


def check_spearman(function) -> None:
    draw = random.Random(0)
    for _ in range(50):
        n = draw.randrange(3, 12)
        a, b = ([draw.randrange(6) for _ in range(n)] for _ in range(2))  # with ties
        if len(set(a)) > 1 and len(set(b)) > 1:
            assert function(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert math.isnan(function([1, 2], [2, 1])) and math.isnan(function([1, 2, 3], [4, 4, 4]))
    assert function([1, 5, 6, 70], [4, 3, -2, -8]) == pytest.approx(-1)


def test_rank_correlation() -> None:
    check_spearman(spearman)
    kills(check_spearman, lambda a, b: spearman(sorted(a), b))
    kills(check_spearman, lambda a, b: stats.kendalltau(a, b).statistic)


def test_equal_images_and_equal_time() -> None:
    """At 30 kimg the fast run was last measured at 20; it ends after 6 minutes, the slow one had 5 by then."""
    both = compare("swd", [SLOW, FAST])
    assert (both.kimg, both.minutes) == (30, 6.0)
    slow, fast = both.summaries()
    assert (slow.equal_kimg, fast.equal_kimg) == (2.0, 7.0)
    assert (slow.equal_minutes, fast.equal_minutes) == (8.0, 6.5)
    assert (slow.first, slow.last, slow.measurements) == (8.0, 2.0, 3)
    assert slow.rank_correlation == -1
    assert fast.rank_correlation == pytest.approx(-0.8)  # ranks 4, 3, 1, 2 against 1 to 4: 1 - 6 (9 + 1 + 4 + 4) / 60


def test_marks_that_are_nearly_equal_share_a_row() -> None:
    """10 and 10.05 kimg are one place; each run's own minutes stand beside its score."""
    rows = markdown(compare("swd", [SLOW, FAST])).splitlines()
    assert rows[0] == "| kimg | slow | minutes | fast | minutes |"
    assert rows[2:7] == [
        "| 10 | 8 | 5 | 9 | 1 |",
        "| 20 | 4 | 10 | 7 | 2 |",
        "| 30 | 2 | 15 |  |  |",
        "| 40 |  |  | 6 | 4 |",
        "| 60 |  |  | 6.5 | 6 |",
    ]
    assert rows[10:] == ["| slow | 3 | 8 | 2 | 0.25 | -1 | 2 | 8 |", "| fast | 4 | 9 | 6.5 | 0.722 | -0.8 | 7 | 6.5 |"]
    assert rows[8].endswith("| at 30 kimg | after 6 minutes |")


def test_a_run_whose_log_says_no_time() -> None:
    both = compare("swd", [SLOW, replace(FAST, minutes=[1.0, 2.0, None, None])])
    assert both.minutes is None
    assert [one.equal_minutes for one in both.summaries()] == [None, None]
    assert "| 40 |  |  | 6 | - |" in markdown(both)
    assert both.state()["courses"][1]["minutes"] == [1.0, 2.0, None, None]


def test_a_course_is_in_order() -> None:
    with pytest.raises(ValueError, match="rise"):
        Course("a", [2, 1], [None, None], [1, 1])
    with pytest.raises(ValueError, match="as many"):
        Course("a", [1], [], [1])
    with pytest.raises(UserError, match="Two of the runs are called slow"):
        compare("swd", [SLOW, SLOW])


def test_plain_data_holds_no_nan() -> None:
    short = Course("short", [1], [1.0], [3.0])
    assert compare("swd", [short]).state()["summaries"][0]["rank_correlation"] is None


def test_the_picture_has_a_row_per_score(monkeypatch) -> None:
    """Both runs, over images and over time; without a time, over images alone."""
    drawn, draw = [], courses._draw

    def watched(panel, comparison, marks, title) -> None:
        drawn.append((title, marks))
        draw(panel, comparison, marks, title)

    monkeypatch.setattr(courses, "_draw", watched)
    data = png([compare("swd", [SLOW, FAST]), Comparison("fd", [replace(SLOW, minutes=[None] * 3)])])
    assert [title for title, _ in drawn] == ["kimg", "minutes of training", "kimg"]
    assert drawn[1][1] == {"slow": SLOW.minutes, "fast": FAST.minutes}
    width, height = Image.open(io.BytesIO(data)).size
    assert width == 792 and height == 550
    alone = png([Comparison("fd", [replace(SLOW, minutes=[None] * 3)])])
    assert Image.open(io.BytesIO(alone)).size == (396, 275)  # no empty half where no run has a time
