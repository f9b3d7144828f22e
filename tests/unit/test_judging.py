"""Outcomes from scripted logits; the holdout split; holdout rows that are also to be forgotten."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from expunge.data.views import as_rows
from expunge.errors import TaskError
from expunge.judging import absent, unseen
from expunge.judging.outputs import Judged, Outputs, masked
from expunge.judging.split import clean_holdout, split_holdout
from expunge.records import Limits, Outcome

K = 4
LIMITS = Limits()


def _case(before, after, labels, judge_labels, gone, limits):
    return Judged(
        before=before,
        after=after,
        labels=labels,
        judge_labels=judge_labels,
        gone=gone,
        limits=limits,
    )


def judge_absent(*parts):
    return absent.judge_absent(_case(*parts))


def judge_unseen(*parts):
    return unseen.judge_unseen(_case(*parts))


def unseen_again(*parts):
    return unseen.unseen_again(_case(*parts))


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


def _confident(labels, by):
    logits = torch.zeros(len(labels), K)
    logits[torch.arange(len(labels)), torch.tensor(labels)] = by
    return logits


MEMBERS, OUTSIDERS = [0, 1] * 30, [0, 1, 2, 3] * 30
M_LABELS, O_LABELS = torch.tensor(MEMBERS), torch.tensor(OUTSIDERS)


def _spread(low, high, n):
    return torch.linspace(low, high, n)


def _unseen(member_before, member_after, outsider=(0.0, 4.0), judge_after=None, limits=LIMITS):
    out = _confident(OUTSIDERS, _spread(*outsider, 120))
    before = Outputs(forget=_confident(MEMBERS, _spread(*member_before, 60)), judge=out)
    after = Outputs(
        forget=_confident(MEMBERS, _spread(*member_after, 60)),
        judge=out if judge_after is None else judge_after,
    )
    return judge_unseen(before, after, M_LABELS, O_LABELS, frozenset(), limits)


def test_unseen_done():
    report = _unseen((3.0, 6.0), (0.0, 4.0))
    assert report.outcome is Outcome.DONE
    assert report.figures["loss_auc_before"] > 0.8
    assert report.figures["loss_auc_after"] == pytest.approx(0.5, abs=0.05)


def test_unseen_says_what_the_models_before_and_after_tell_together():
    # Records move, judge rows do not: both models together name every record.
    figures = _unseen((3.0, 6.0), (0.0, 4.0)).figures
    assert (figures["before_after_auc"], figures["others_moved"]) == (1.0, 0.0)
    # One judge row in four moves, by more than any record of its class.
    shifted = _confident(OUTSIDERS, _spread(0.0, 4.0, 120))
    shifted[::4] += 9.0
    figures = _unseen((3.0, 6.0), (0.0, 4.0), judge_after=shifted).figures
    assert (figures["before_after_auc"], figures["others_moved"]) == (0.5, 25.0)


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


def test_side_effects_of_records_can_be_limited():
    shifted = _confident(OUTSIDERS, _spread(0.0, 4.0, 120))
    shifted[:30, :] += 1.0
    shifted[6, 1] += 9.0
    report = _unseen((3.0, 6.0), (0.0, 4.0), judge_after=shifted)
    assert report.outcome is Outcome.DONE
    assert report.figures["others_moved"] == 25.0
    assert report.figures["others_flipped"] == pytest.approx(100 / 120)
    for limits, words in (
        (Limits(most_moved=24.9), "25.00 % of what stays got other logits (limit: 24.9 %)"),
        (Limits(most_flipped=0.5), "0.83 % of what stays changed class (limit: 0.5 %)"),
    ):
        report = _unseen((3.0, 6.0), (0.0, 4.0), judge_after=shifted, limits=limits)
        assert (report.outcome, report.reason) == (Outcome.WRECKED, words)


def test_unseen_gives_the_interval_of_every_auc():
    figures = _unseen((3.0, 6.0), (0.0, 4.0)).figures
    for name in ("loss", "margin"):
        for when in ("before", "after"):
            key = f"{name}_auc_{when}"
            assert 0.0 <= figures[f"{key}_low"] < figures[key] < figures[f"{key}_high"] <= 1.0
    assert figures["loss_auc_after_low"] < 0.5 < figures["loss_auc_after_high"]


def test_unseen_counts_records_that_no_judge_row_is_like():
    some = (O_LABELS != 1).nonzero().flatten()
    out = _confident(OUTSIDERS, _spread(0.0, 4.0, 120))[some]
    both = Outputs(forget=_confident(MEMBERS, _spread(3.0, 6.0, 60)), judge=out)
    for labels, n in ((O_LABELS[some], 30), (torch.full((len(out),), 3), 60)):
        report = judge_unseen(both, both, M_LABELS, labels, frozenset(), LIMITS)
        assert report.figures["records_not_compared"] == n
    assert _unseen((3.0, 6.0), (0.0, 4.0)).figures["records_not_compared"] == 0


def test_unseen_says_what_could_have_been_seen_wherever_membership_was_computed():
    few = list(range(16))
    out = _confident([OUTSIDERS[i] for i in few], 1.0)
    before = Outputs(forget=_confident(MEMBERS, 3.0), judge=out)
    too_few_rows = judge_unseen(before, before, M_LABELS, O_LABELS[few], frozenset(), LIMITS)
    no_signal = _unseen((0.0, 4.0), (0.0, 3.9))
    into_the_band = _unseen((0.5, 4.5), (0.33, 4.33))
    for report in (too_few_rows, no_signal, into_the_band):
        seen = f"{report.figures['smallest_visible_excess']:.3f}"
        assert report.outcome is Outcome.UNDETERMINED
        assert f"with 60 forget records an excess of {seen} could have been seen" in report.reason
    assert "fewer than 20 judge rows" in too_few_rows.reason


def _again(before, after, labels=M_LABELS, gone=frozenset()):
    out = _confident(OUTSIDERS, _spread(0.0, 4.0, 120))
    old, new = (
        Outputs(forget=_confident(labels.tolist(), _spread(*ends, len(labels))), judge=out)
        for ends in (before, after)
    )
    return unseen_again(old, new, labels, O_LABELS, gone, LIMITS)


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ((0.0, 4.0), (0.0, 4.0), Outcome.DONE),
        ((0.0, 4.0), (3.0, 6.0), Outcome.INEFFECTIVE),
        ((0.33, 4.33), (0.8, 4.8), Outcome.INEFFECTIVE),  # from within the band
        ((0.8, 4.8), (1.0, 5.0), Outcome.DONE),
        ((-6.0, -3.0), (3.0, 6.0), Outcome.INEFFECTIVE),  # wrong by force, and known again
        ((0.0, 4.0), (-6.0, -3.0), Outcome.INEFFECTIVE),
        ((3.0, 6.0), (3.1, 6.1), Outcome.DONE),  # it was there before this request
        ((0.33, 4.33), (0.45, 4.45), Outcome.DONE),  # over the edge of the band by a hair
    ],
)
def test_records_of_an_earlier_request_are_judged_again(before, after, outcome):
    report = _again(before, after)
    assert report.outcome is outcome
    assert report.figures["earlier_smallest_visible_excess"] > 0
    if outcome is Outcome.INEFFECTIVE:
        assert "their membership signal rose from" in report.reason


def test_the_hair_crosses_the_band():
    figures = _again((0.33, 4.33), (0.45, 4.45)).figures
    before = _again((0.45, 4.45), (0.33, 4.33)).figures["earlier_excess_after"]
    band = figures["earlier_smallest_visible_excess"]
    assert before < band < figures["earlier_excess_after"]


def test_too_few_records_and_classes_that_are_gone_are_not_judged_again():
    one = torch.tensor([0])
    assert _again((0.0, 4.0), (3.0, 6.0), one).reason == "too few"
    assert _again((0.0, 4.0), (3.0, 6.0), gone=frozenset({0, 1})).outcome is Outcome.DONE
    elsewhere = torch.full((30,), 9)
    alone = Outputs(forget=torch.zeros(30, 10), judge=torch.zeros(120, 10))
    report = unseen_again(alone, alone, elsewhere, O_LABELS, frozenset(), LIMITS)
    assert (report.outcome, report.reason) == (Outcome.UNDETERMINED, "too few")
    alone = Outputs(forget=torch.zeros(30, 10), judge=None)
    report = unseen_again(alone, alone, elsewhere, None, frozenset(), LIMITS)
    assert (report.outcome, report.reason) == (Outcome.UNDETERMINED, "there is no holdout")


def test_unseen_ineffective_where_less_than_half_is_gone():
    report = _unseen((3.0, 6.0), (2.5, 5.0))
    assert report.outcome is Outcome.INEFFECTIVE
    assert "less than half of it is gone" in report.reason


def test_unseen_overshoot_is_a_signal_too():
    # Records made *worse* than unseen ones stand out as well.
    assert _unseen((3.0, 6.0), (-6.0, -3.0)).outcome is Outcome.INEFFECTIVE


def test_unseen_undetermined_without_a_signal():
    report = _unseen((0.0, 4.0), (0.0, 3.9))
    assert report.outcome is Outcome.UNDETERMINED
    assert "no membership signal clear of 0.5 before the edit" in report.reason
    assert "could have been seen" in report.reason
    assert report.figures["smallest_visible_excess"] > 0


def test_unseen_wrecked():
    ruined = _confident(OUTSIDERS, -1.0)
    report = _unseen((3.0, 6.0), (0.0, 4.0), outsider=(1.0, 4.0), judge_after=ruined)
    assert report.outcome is Outcome.WRECKED


def test_unseen_undetermined_without_holdout_or_rows_of_the_class():
    alone = Outputs(forget=_confident(MEMBERS, 1.0), judge=None)
    report = judge_unseen(alone, alone, M_LABELS, None, frozenset(), LIMITS)
    assert (report.outcome, report.reason) == (Outcome.UNDETERMINED, "there is no holdout")
    others = torch.full((40,), 3)
    elsewhere = Outputs(forget=alone.forget, judge=_confident([3] * 40, 1.0))
    report = judge_unseen(elsewhere, elsewhere, M_LABELS, others, frozenset(), LIMITS)
    assert report.outcome is Outcome.UNDETERMINED
    assert "no judge row has the class of a forget record" in report.reason


def test_ten_records_cannot_be_judged():
    few = [0] * 5 + [1] * 5
    before = Outputs(
        forget=_confident(few, _spread(0.5, 4.5, 10)),
        judge=_confident(OUTSIDERS, _spread(0, 4, 120)),
    )
    report = judge_unseen(before, before, torch.tensor(few), O_LABELS, frozenset(), LIMITS)
    assert report.outcome is Outcome.UNDETERMINED


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


def test_unseen_a_small_fall_into_the_band_of_chance_is_undetermined():
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(200, dtype=torch.int64)
    seen = torch.randn(200, generator=generator)

    def outputs(lift):
        def logits(score):
            return torch.stack([score, torch.zeros_like(score)], dim=1)

        return Outputs(
            forget=logits(seen + lift),
            judge=logits(torch.randn(400, generator=torch.Generator().manual_seed(1))),
        )

    others = torch.zeros(400, dtype=torch.int64)
    weak, weaker = outputs(0.3), outputs(0.2)

    def judged(before, after):
        return judge_unseen(before, after, labels, others, frozenset(), LIMITS)

    report = judged(weak, weaker)
    band = report.figures["smallest_visible_excess"]
    assert report.figures["loss_auc_before"] - 0.5 > band
    assert abs(report.figures["loss_auc_after"] - 0.5) <= band
    assert report.outcome is Outcome.UNDETERMINED
    assert "cannot be told from chance" in report.reason
    assert judged(weak, weak).outcome is Outcome.INEFFECTIVE  # nothing done is never a success
