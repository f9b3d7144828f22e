"""Outcomes from scripted logits; the holdout split; holdout rows that are also to be forgotten."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scripted import case

from expunge.data.views import as_rows
from expunge.errors import TaskError
from expunge.judging import absent
from expunge.judging.outputs import Outputs, masked
from expunge.judging.split import clean_holdout, split_holdout
from expunge.reasons import Reason
from expunge.records import Limits, Outcome

K = 4
LIMITS = Limits()


def judge_absent(*parts):
    return absent.judge_absent(case(*parts))


def _say(classes, wrong=()):
    """Logits that answer `classes`, except at the positions `wrong`, which answer the next."""
    answers = [(c + 1) % K if i in wrong else c for i, c in enumerate(classes)]
    return 5.0 * torch.nn.functional.one_hot(torch.tensor(answers), K).float()


FORGET = [0] * 40
JUDGE = [0, 1, 2, 3] * 50
LABELS, JUDGE_LABELS = torch.tensor(FORGET), torch.tensor(JUDGE)
BEFORE = Outputs(forget=_say(FORGET), judge=_say(JUDGE))
GONE = frozenset({0})
OF_ZERO = [i for i, c in enumerate(JUDGE) if c == 0]


def _absent(forget_wrong, judge_wrong, *, before=BEFORE, limits=LIMITS, judge=JUDGE):
    after = Outputs(
        forget=_say(FORGET, forget_wrong), judge=None if judge is None else _say(judge, judge_wrong)
    )
    labels = None if judge is None else torch.tensor(judge)
    return judge_absent(before, after, LABELS, labels, GONE, limits)


def test_absent_done():
    report = _absent(range(40), OF_ZERO)
    assert report.outcome is Outcome.DONE
    assert report.figures["forget_before"] == 100.0
    assert report.figures["forget_after"] == 0.0
    assert report.figures["judge_class_after"] == 0.0
    assert report.figures["others_change"] == 0.0


@pytest.mark.parametrize(("right", "outcome"), [(2, Outcome.DONE), (3, Outcome.INEFFECTIVE)])
def test_absent_limit_on_forget_records_is_five_percent(right, outcome):
    report = _absent(range(right, 40), OF_ZERO)
    assert report.outcome is outcome
    assert report.figures["forget_after"] == pytest.approx(100 * right / 40)
    if outcome is Outcome.INEFFECTIVE:
        assert "7.50 % of the forget records are still recognised" in report.reason


def test_absent_ineffective_on_unseen_rows_of_the_class():
    report = _absent(range(40), OF_ZERO[4:])
    assert report.outcome is Outcome.INEFFECTIVE
    assert "8.00 % of the judge rows of the class" in report.reason


def test_absent_wrecked_in_the_mean():
    ones = [i for i, c in enumerate(JUDGE) if c in (1, 2, 3)]
    report = _absent(range(40), [*OF_ZERO, *ones[:18]])
    assert report.outcome is Outcome.WRECKED
    assert "what stays fell from 100.00 % to 88.00 %" in report.reason
    assert report.figures["others_change"] == pytest.approx(-12.0)


def test_absent_wrecked_on_the_worst_class_only():
    twos = [i for i, c in enumerate(JUDGE) if c == 2]
    limits = Limits(mean_drop=50.0)
    report = _absent(range(40), [*OF_ZERO, *twos[:18]], limits=limits)
    assert report.outcome is Outcome.WRECKED
    assert "class 2 fell by 36.0 points (limit: 10" in report.reason


def test_a_loss_that_chance_explains_is_not_wrecked():
    # Four of 150 rows: 2.7 points, above the limit, but the interval does not exclude no loss.
    threes = [i for i, c in enumerate(JUDGE) if c == 3]
    report = _absent(range(40), [*OF_ZERO, *threes[:4]])
    assert report.figures["others_change"] < -LIMITS.mean_drop
    assert report.figures["others_change_high"] > 0
    assert report.outcome is Outcome.UNDETERMINED
    assert "which chance could have done on 150 judge rows" in report.reason


def test_wrecked_outranks_ineffective():
    ones = [i for i, c in enumerate(JUDGE) if c in (1, 2, 3)]
    assert _absent([], [*OF_ZERO, *ones[:20]]).outcome is Outcome.WRECKED


def test_what_stays_is_compared_with_the_masked_original():
    # The original says 0 on ten rows of class 1 (second best: 1). Masking lifts them, the edit
    # does not: measured against the plain original nothing was lost, against the masked one it was.
    logits = _say(JUDGE)
    fooled = [i for i, c in enumerate(JUDGE) if c == 1][:10]
    logits[fooled, 0] = 6.0
    before = Outputs(forget=_say(FORGET), judge=logits)
    report = _absent(range(40), [*OF_ZERO, *fooled], before=before)
    assert report.figures["others_before"] == 100.0
    assert report.outcome is Outcome.WRECKED


def test_absent_undetermined_without_holdout_or_with_few_rows():
    nothing = Outputs(forget=BEFORE.forget, judge=None)
    report = _absent(range(40), [], before=nothing, judge=None)
    assert report.outcome is Outcome.UNDETERMINED
    assert "there is no holdout" in report.reason
    few = [0, 1, 2, 3] * 6
    before = Outputs(forget=BEFORE.forget, judge=_say(few))
    report = _absent(range(40), [i for i, c in enumerate(few) if c == 0], before=before, judge=few)
    assert report.outcome is Outcome.UNDETERMINED
    assert "fewer than 20 judge rows" in report.reason


def test_absent_without_holdout_still_finds_ineffective():
    nothing = Outputs(forget=BEFORE.forget, judge=None)
    assert _absent([], [], before=nothing, judge=None).outcome is Outcome.INEFFECTIVE


def test_limits_are_the_callers():
    assert _absent(range(6, 40), OF_ZERO, limits=Limits(forget_accuracy=15)).outcome is Outcome.DONE


def _class_of(rows, known, *, others=150):
    """A class request with so many judge rows of the class, `known` of them still recognised."""
    judge = [0] * rows + [1, 2, 3] * (others // 3)
    before = Outputs(forget=_say(FORGET), judge=_say(judge))
    after = Outputs(forget=_say(FORGET, range(40)), judge=_say(judge, range(known, rows)))
    return judge_absent(before, after, LABELS, torch.tensor(judge), GONE, LIMITS)


@pytest.mark.parametrize(("known", "enough"), [(0, 29), (1, 46), (2, 61)])
def test_done_needs_judge_rows_enough_to_exclude_a_tenth(known, enough):
    assert _class_of(enough, known).outcome is Outcome.DONE
    report = _class_of(enough - 1, known)
    assert report.outcome is Outcome.UNDETERMINED
    assert f"{known} of {enough - 1} judge rows of class 0 are recognised" in report.reason
    assert f"{enough} judge rows with as many recognised would settle it" in report.reason
    assert report.figures["class_bound"] > LIMITS.class_bound


def test_no_judge_row_of_the_class_says_nothing():
    report = _class_of(0, 0)
    assert report.outcome is Outcome.UNDETERMINED
    assert "there is no judge row of class 0" in report.reason


def test_a_class_that_was_not_known_before_cannot_be_forgotten():
    unknown = Outputs(forget=_say(FORGET, range(38)), judge=_say(JUDGE))
    report = _absent(range(40), OF_ZERO, before=unknown)
    assert report.outcome is Outcome.UNDETERMINED
    assert "class 0 was not recognised before the edit: 5.00 %" in report.reason
    assert "Label numbering? Normalisation? Already gone?" in report.reason
    known = Outputs(forget=_say(FORGET, range(37)), judge=_say(JUDGE))
    assert _absent(range(40), OF_ZERO, before=known).outcome is Outcome.DONE


def test_what_stays_near_chance_before_says_nothing():
    others = [i for i, c in enumerate(JUDGE) if c]
    poor = Outputs(forget=_say(FORGET), judge=_say(JUDGE, others[:90]))
    report = _absent(range(40), OF_ZERO, before=poor)
    assert report.outcome is Outcome.UNDETERMINED
    assert "what stays was near chance before the edit: 40.00 % right" in report.reason
    assert "(chance: 33.3 %)" in report.reason


def test_less_than_half_above_chance_is_wrecked_whatever_the_limits():
    others = [i for i, c in enumerate(JUDGE) if c]
    weak = Outputs(forget=_say(FORGET), judge=_say(JUDGE, others[:75]))  # 50 %, 16.7 above chance
    limits = Limits(mean_drop=10.0, mean_bound=20.0, worst_drop=30.0)
    held = _absent(range(40), [*OF_ZERO, *others[:83]], before=weak, limits=limits)
    assert held.outcome is Outcome.DONE
    lost = _absent(range(40), [*OF_ZERO, *others[:89]], before=weak, limits=limits)
    assert lost.outcome is Outcome.WRECKED
    assert "less than half above chance (33.3 %) is left" in lost.reason


def test_a_loss_that_few_rows_cannot_exclude_is_undetermined():
    """Nothing was lost on 24 rows; 4 points may have been."""
    report = _class_of(40, 0, others=24)
    assert report.outcome is Outcome.UNDETERMINED
    assert "on 24 judge rows a loss of" in report.reason
    assert "cannot be excluded (limit: 4)" in report.reason
    assert report.figures["others_change_bound"] < -LIMITS.mean_bound
    assert _class_of(40, 0, others=60).outcome is Outcome.DONE


def test_side_effects_of_a_class_are_counted_against_the_masked_original():
    # The original says 0 on ten rows of class 1; masking lifts them, so nothing moved by the edit.
    logits = _say(JUDGE)
    fooled = [i for i, c in enumerate(JUDGE) if c == 1][:10]
    logits[fooled, 0] = 6.0
    before = Outputs(forget=_say(FORGET), judge=logits)
    gone = masked(before.judge, GONE)

    def judged(judge, limits=LIMITS):
        after = Outputs(forget=_say(FORGET, range(40)), judge=judge)
        return judge_absent(before, after, LABELS, JUDGE_LABELS, GONE, limits)

    figures = judged(gone).figures
    assert (figures["others_moved"], figures["others_flipped"]) == (0.0, 0.0)
    moved = gone.clone()
    twos = [i for i, c in enumerate(JUDGE) if c == 2]
    moved[twos[:30], 3] += 1.0
    moved[twos[0], 3] += 9.0
    report = judged(moved)
    assert report.outcome is Outcome.DONE
    figures = report.figures
    assert figures["others_moved"] == pytest.approx(100 * 30 / 150)
    assert figures["others_flipped"] == pytest.approx(100 / 150)
    assert judged(moved, Limits(most_moved=20.0, most_flipped=1.4)).outcome is Outcome.DONE
    report = judged(moved, Limits(most_moved=19.0))
    assert report.outcome is Outcome.WRECKED
    assert report.reason == "20.00 % of what stays got other logits (limit: 19 %)"
    report = judged(moved, Limits(most_flipped=0.0))
    assert report.outcome is Outcome.WRECKED
    assert report.reason == "0.67 % of what stays changed class (limit: 0 %)"
    assert "others_change" in report.figures


@pytest.mark.parametrize(
    ("outcome", "code", "accepted"),
    [
        (Outcome.DONE, 0, True),
        (Outcome.UNDETERMINED, 11, True),
        (Outcome.NO_OP, 12, False),
        (Outcome.INEFFECTIVE, 12, False),
        (Outcome.WRECKED, 13, False),
        (Outcome.INCOMPLETE, 14, True),
    ],
)
def test_exit_codes(outcome, code, accepted):
    assert (outcome.exit_code, outcome.accepted) == (code, accepted)


def test_masking():
    logits = torch.arange(8.0).reshape(2, 4)
    assert masked(logits, frozenset({3, 1})).argmax(1).tolist() == [2, 2]
    assert torch.equal(logits, torch.arange(8.0).reshape(2, 4))


def _holdout(labels, offset=0):
    n = len(labels)
    return as_rows(
        (torch.arange(float(n))[:, None] + offset, torch.tensor(labels)),
        ids=[f"h{i + offset}" for i in range(n)],
    )


SEEDS = st.none() | st.integers(0, 99)


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=60), seed=SEEDS)
def test_split_is_a_stratified_partition(labels, seed):
    rows = _holdout(labels)
    tune, judge = split_holdout(rows, seed)
    assert set(tune.ids) | set(judge.ids) == set(rows.ids)
    assert not set(tune.ids) & set(judge.ids)
    for label in set(labels):
        a, b = (int((part.labels == label).sum()) for part in (tune, judge))
        assert b - a in (0, 1)


@given(order=st.permutations(range(24)), seed=SEEDS)
def test_split_does_not_depend_on_the_order(order, seed):
    rows = _holdout([0, 1, 2] * 8)
    tune, judge = split_holdout(rows, seed)
    again = split_holdout(rows.select(torch.tensor(order)), seed)
    assert (set(tune.ids), set(judge.ids)) == tuple(set(part.ids) for part in again)


def test_the_split_of_old_runs_depends_on_their_seed():
    rows = _holdout([0] * 40)
    assert set(split_holdout(rows, 0)[0].ids) != set(split_holdout(rows, 1)[0].ids)


def _named(values, labels, prefix="h"):
    """Rows with these contents, named by their place."""
    x = torch.tensor(values, dtype=torch.float32)[:, None]
    return as_rows((x, torch.tensor(labels)), ids=[f"{prefix}{i}" for i in range(len(values))])


def _sides(values, labels, prefix="h"):
    """The contents on each side, by class."""
    parts = split_holdout(_named(values, labels, prefix))
    read = [part.batch(torch.arange(len(part))) for part in parts]
    return [set(zip(y.tolist(), x[:, 0].tolist(), strict=True)) for x, y in read]


CONTENTS = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 1)), min_size=1, max_size=40)


@given(rows=CONTENTS, order=st.randoms(use_true_random=False))
def test_content_alone_decides_who_judges(rows, order):
    tune, judge = _sides(*zip(*rows, strict=True))
    assert not tune & judge, "rows of one class with the same content lie on one side"
    shuffled = list(rows)
    order.shuffle(shuffled)
    assert _sides(*zip(*shuffled, strict=True), prefix="other") == [tune, judge]
    once = list(set(rows))
    assert _sides(*zip(*once, strict=True)) == [tune, judge], "nor do copies decide"


@given(rows=CONTENTS, more=st.tuples(st.integers(0, 15), st.integers(0, 1)))
def test_a_row_more_moves_at_most_one_other_content(rows, more):
    before = _sides(*zip(*rows, strict=True))
    after = _sides(*zip(*[*rows, more], strict=True))
    moved = {(label, value) for label, value in before[0] ^ (after[0] - {more[::-1]})}
    assert len(moved - {more[::-1]}) <= 1
    assert all(label == more[1] for label, _ in moved)


def test_overlap_up_to_one_percent_is_dropped_and_counted():
    holdout, forget = _holdout([0] * 200), _holdout([0] * 2, offset=198)
    clean, dropped = clean_holdout(holdout, [forget])
    assert dropped == 2
    assert len(clean) == 198
    assert not set(clean.ids) & {"h198", "h199"}
    same, none = clean_holdout(holdout, [_holdout([0] * 5, offset=500)])
    assert (len(same), none) == (200, 0)


def test_overlap_above_one_percent_is_an_error():
    holdout, forget = _holdout([0] * 200), _holdout([0] * 3, offset=197)
    with pytest.raises(TaskError, match="3 of 200 of its rows are also in the forget set"):
        clean_holdout(holdout, [forget])


def test_overlap_is_found_by_content_not_by_id_or_label():
    holdout = _holdout([0] * 10)
    twin = as_rows((torch.tensor([[4.0]]), torch.tensor([3])), ids=["other"])
    with pytest.raises(TaskError, match="1 of 10"):
        clean_holdout(holdout, [twin])


def _rows_right(counts):
    """Logits and labels: for each class (right, wrong) rows."""
    labels, hits = [], []
    for label, (right, wrong) in enumerate(counts):
        labels += [label] * (right + wrong)
        hits += [True] * right + [False] * wrong
    y = torch.tensor(labels)
    guess = torch.where(torch.tensor(hits), y, (y + 1) % len(counts))
    return torch.nn.functional.one_hot(guess, len(counts)).float(), y


def test_a_tiny_class_does_not_hide_a_wrecked_one():
    """One wrong row of one is −100 % and proves nothing; 14 points on fifty rows do."""
    from expunge.judging.outputs import Outputs

    counts = [(1, 0), (800, 0), (100, 0), (1, 0)]
    before, y = _rows_right(counts)
    after, _ = _rows_right([(0, 1), (800, 0), (80, 20), (0, 1)])
    forget = torch.zeros(5, dtype=torch.long)
    wrong = torch.nn.functional.one_hot(forget + 1, 4).float()
    right = torch.nn.functional.one_hot(forget, 4).float()
    report = judge_absent(
        Outputs(forget=right, judge=before),
        Outputs(forget=wrong, judge=after),
        forget,
        y,
        frozenset({0}),
        Limits(mean_drop=50.0),
    )
    assert report.outcome.value == "wrecked"
    assert "class 2 fell by 20.0 points" in report.reason


def test_a_class_that_is_still_known_does_not_hide_behind_another():
    from expunge.judging.outputs import Outputs

    judged, y = _rows_right([(0, 50), (0, 50), (100, 0), (100, 0)])
    labels = torch.tensor([0] * 100 + [1] * 100)
    forget = torch.nn.functional.one_hot(torch.tensor([2] * 100 + [1] * 8 + [2] * 92), 4).float()
    before = torch.nn.functional.one_hot(labels, 4).float()
    report = judge_absent(
        Outputs(forget=before, judge=judged),
        Outputs(forget=forget, judge=judged),
        labels,
        y,
        frozenset({0, 1}),
        Limits(),
    )
    assert report.figures["forget_after"] == pytest.approx(4.0)
    assert report.outcome.value == "ineffective"
    assert report.reason.startswith("8.00 % of the forget records")


def test_rows_never_change_sides_when_others_are_dropped():
    from expunge.judging.split import tune_and_judge

    rows = _holdout([0] * 201 + [1] * 200)
    tune, judge = split_holdout(rows)
    for one in (tune.select(torch.tensor([0])), judge.select(torch.tensor([0]))):
        kept = tune_and_judge(rows, [one], None)
        assert kept.dropped == 1
        assert set(kept.tune.ids) == set(tune.ids) - set(one.ids)
        assert set(kept.judge.ids) == set(judge.ids) - set(one.ids)


def _two_classes(after_zero, after_one, judge_after):
    """A request for classes 0 and 1, of which the model knew class 1 alone."""
    labels = torch.tensor([0] * 40 + [1] * 40)
    before = torch.cat([_say([0] * 40, range(40)), _say([1] * 40)])
    judge = torch.tensor([0, 1, 2, 3] * 50)
    old = _say(judge.tolist(), [i for i, c in enumerate(judge) if c == 0])
    return judge_absent(
        Outputs(forget=before, judge=old),
        Outputs(forget=torch.cat([after_zero, after_one]), judge=judge_after),
        labels,
        judge,
        frozenset({0, 1}),
        LIMITS,
    )


def test_a_class_that_was_not_known_hides_no_other():
    def without(*classes):
        wrong = [i for i, c in enumerate([0, 1, 2, 3] * 50) if c in classes]
        return _say([0, 1, 2, 3] * 50, wrong)

    unknown = _say([0] * 40, range(40))
    report = _two_classes(unknown, _say([1] * 40), without(0))
    assert (report.outcome, report.why) == (Outcome.INEFFECTIVE, Reason.STILL_KNOWN)
    report = _two_classes(unknown, _say([1] * 40, range(40)), without(0, 1))
    assert (report.outcome, report.why) == (Outcome.UNDETERMINED, Reason.NOT_KNOWN_BEFORE)
    report = _two_classes(torch.zeros(40, K), torch.zeros(40, K), torch.zeros(200, K))
    assert (report.outcome, report.why) == (Outcome.WRECKED, Reason.HALF_LOST)
