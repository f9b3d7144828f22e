"""Outcomes of record requests from scripted logits: signal, shape, copies and references."""

import pytest
import torch
from scripted import case

from expunge.judging.again import unseen_again as judged_again
from expunge.judging.outputs import Beside, Judged, Outputs, Sight
from expunge.judging.unseen import judge_unseen as judged
from expunge.reasons import Reason
from expunge.records import Limits, Outcome

K = 4
LIMITS = Limits()


def judge_unseen(*parts):
    return judged(case(*parts))


def unseen_again(*parts):
    return judged_again(case(*parts))


def _confident(labels, by):
    logits = torch.zeros(len(labels), K)
    logits[torch.arange(len(labels)), torch.tensor(labels)] = by
    return logits


MEMBERS, OUTSIDERS = [0, 1] * 60, [0, 1, 2, 3] * 60
M, N = len(MEMBERS), len(OUTSIDERS)
M_LABELS, O_LABELS = torch.tensor(MEMBERS), torch.tensor(OUTSIDERS)


def _spread(low, high, n):
    return torch.linspace(low, high, n)


def _unseen(member_before, member_after, outsider=(0.0, 4.0), judge_after=None, limits=LIMITS):
    out = _confident(OUTSIDERS, _spread(*outsider, N))
    before = Outputs(forget=_confident(MEMBERS, _spread(*member_before, M)), judge=out)
    after = Outputs(
        forget=_confident(MEMBERS, _spread(*member_after, M)),
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
    shifted = _confident(OUTSIDERS, _spread(0.0, 4.0, N))
    shifted[::4] += 9.0
    figures = _unseen((3.0, 6.0), (0.0, 4.0), judge_after=shifted).figures
    assert (figures["before_after_auc"], figures["others_moved"]) == (0.5, 25.0)


def test_side_effects_of_records_can_be_limited():
    shifted = _confident(OUTSIDERS, _spread(0.0, 4.0, N))
    shifted[:60, :] += 1.0
    shifted[6, 1] += 9.0
    report = _unseen((3.0, 6.0), (0.0, 4.0), judge_after=shifted)
    assert report.outcome is Outcome.DONE
    assert report.figures["others_moved"] == 25.0
    assert report.figures["others_flipped"] == pytest.approx(100 / N)
    for limits, words in (
        (Limits(most_moved=24.9), "25.00 % of what stays got other logits (limit: 24.9 %)"),
        (Limits(most_flipped=0.4), "0.42 % of what stays changed class (limit: 0.4 %)"),
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
    out = _confident(OUTSIDERS, _spread(0.0, 4.0, N))[some]
    both = Outputs(forget=_confident(MEMBERS, _spread(3.0, 6.0, M)), judge=out)
    for labels, n in ((O_LABELS[some], 60), (torch.full((len(out),), 3), M)):
        report = judge_unseen(both, both, M_LABELS, labels, frozenset(), LIMITS)
        assert report.figures["records_not_compared"] == n
    assert _unseen((3.0, 6.0), (0.0, 4.0)).figures["records_not_compared"] == 0


def test_few_judge_rows_that_stay_are_no_ground_to_stand_on():
    few = list(range(16))
    out = _confident([OUTSIDERS[i] for i in few], 1.0)
    before = Outputs(forget=_confident(MEMBERS, 3.0), judge=out)
    after = Outputs(forget=_confident(MEMBERS, 1.0), judge=out)
    for outputs in (after, before):  # whatever the signal is
        report = judge_unseen(before, outputs, M_LABELS, O_LABELS[few], frozenset(), LIMITS)
        assert (report.outcome, report.why) == (Outcome.UNDETERMINED, Reason.FEW_ROWS_STAY)


def _again(before, after, labels=M_LABELS, gone=frozenset()):
    out = _confident(OUTSIDERS, _spread(0.0, 4.0, N))
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
        ((0.26, 4.26), (0.8, 4.8), Outcome.INEFFECTIVE),  # from within the band
        ((0.8, 4.8), (1.0, 5.0), Outcome.DONE),
        ((-6.0, -3.0), (3.0, 6.0), Outcome.INEFFECTIVE),  # wrong by force, and known again
        ((0.0, 4.0), (-6.0, -3.0), Outcome.INEFFECTIVE),
        ((3.0, 6.0), (3.1, 6.1), Outcome.DONE),  # it was there before this request
        ((0.26, 4.26), (0.34, 4.34), Outcome.DONE),  # over the edge of the band by a hair
    ],
)
def test_records_of_an_earlier_request_are_judged_again(before, after, outcome):
    report = _again(before, after)
    assert report.outcome is outcome
    assert report.figures["earlier_smallest_visible_excess"] > 0
    if outcome is Outcome.INEFFECTIVE:
        assert "their membership signal rose from" in report.reason


def test_the_hair_crosses_the_band():
    figures = _again((0.26, 4.26), (0.34, 4.34)).figures
    before = _again((0.34, 4.34), (0.26, 4.26)).figures["earlier_excess_after"]
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


def test_unseen_ineffective_where_the_whole_interval_lies_beyond_a_quarter():
    report = _unseen((3.0, 6.0), (2.5, 5.0))
    assert (report.outcome, report.why) == (Outcome.INEFFECTIVE, Reason.SIGNAL_LEFT)
    figures = report.figures
    assert figures["signal_limit"] == pytest.approx(0.25 * figures["signal_before"])
    low = min(figures[f"{name}_auc_after_low"] for name in ("loss", "margin"))
    assert low - 0.5 > figures["signal_limit"]


def test_unseen_overshoot_is_a_signal_too():
    # Records made *worse* than unseen ones stand out as well.
    assert _unseen((3.0, 6.0), (-6.0, -3.0)).outcome is Outcome.INEFFECTIVE


def test_unseen_undetermined_without_a_signal():
    report = _unseen((0.0, 4.0), (0.0, 3.9))
    assert (report.outcome, report.why) == (Outcome.UNDETERMINED, Reason.NO_SIGNAL_BEFORE)
    assert "three retrained references" in report.reason
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
        judge=_confident(OUTSIDERS, _spread(0, 4, N)),
    )
    report = judge_unseen(before, before, torch.tensor(few), O_LABELS, frozenset(), LIMITS)
    assert report.outcome is Outcome.UNDETERMINED


# Rows with one score each: margins are drawn, so that signals are what a simulation says they are.


def _scored(scores):
    """Logits of two classes whose margin for class 0 is the score; loss and margin order alike."""
    return torch.stack([scores.float() + 12.0, torch.full((len(scores),), 0.0)], dim=1)


class Draw:
    """Rows of one class; models that share how hard each row is, and differ by their own noise."""

    def __init__(self, records, rows, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.records, self.rows = records, rows
        self.hard = self._normal(records + rows)

    def _normal(self, n):
        return torch.randn(n, generator=self.generator)

    def model(self, lift=0.0, share=1.0):
        """A model that lifts this share of the records, as one does that was trained on them."""
        score = (self.hard + self._normal(len(self.hard))) / 2**0.5
        score[: round(share * self.records)] += lift
        return self.of(score)

    def of(self, score):
        return Outputs(forget=_scored(score[: self.records]), judge=_scored(score[self.records :]))

    def judged(self, before, after, *, references=(), beside=None, limits=LIMITS):
        return judged(
            Judged(
                before=before,
                after=after,
                labels=torch.zeros(self.records, dtype=torch.int64),
                judge_labels=torch.zeros(self.rows, dtype=torch.int64),
                gone=frozenset(),
                limits=limits,
                references=tuple(references),
                beside=Beside() if beside is None else beside,
            )
        )


SEEN = 1.0  # an AUC of 0.76


@pytest.mark.parametrize(
    ("share", "outcome", "why"),
    [
        (0.0, Outcome.DONE, Reason.LIKE_UNSEEN),
        (0.5, Outcome.INEFFECTIVE, Reason.SIGNAL_LEFT),
        (1.0, Outcome.INEFFECTIVE, Reason.SIGNAL_LEFT),
    ],
)
@pytest.mark.parametrize("count", [0, 5])
def test_what_share_of_records_is_still_trained_on_decides(share, outcome, why, count):
    draw = Draw(1000, 2000)
    before, after = draw.model(SEEN), draw.model(SEEN, share)
    report = draw.judged(before, after, references=[draw.model() for _ in range(count)])
    assert (report.outcome, report.why) == (outcome, why), report.reason
    assert report.figures["references"] == count
    assert ("retrained models" in report.reason) == bool(count)


def test_a_quarter_kept_lies_on_the_limit_and_is_not_done():
    outcomes = set()
    for seed in range(10):
        draw = Draw(500, 1000, seed)
        outcomes.add(draw.judged(draw.model(SEEN), draw.model(SEEN, 0.25)).outcome)
    assert Outcome.DONE not in outcomes


def test_the_share_that_may_be_left_is_a_limit():
    draw = Draw(1000, 2000)
    before, after = draw.model(SEEN), draw.model(SEEN, 0.2)
    narrow = draw.judged(before, after, limits=Limits(signal_left=0.1))
    assert narrow.outcome is not Outcome.DONE
    wide = draw.judged(before, after, limits=Limits(signal_left=0.5))
    assert wide.figures["signal_limit"] == pytest.approx(5 * narrow.figures["signal_limit"])


def test_an_interval_on_the_limit_says_what_would_settle_it():
    draw = Draw(40, 60, 1)
    report = draw.judged(draw.model(SEEN), draw.model())
    assert (report.outcome, report.why) == (Outcome.UNDETERMINED, Reason.SIGNAL_OPEN)
    assert "is not within" in report.reason
    assert "would settle it" in report.reason or "would, or three" in report.reason
    references = [draw.model() for _ in range(3)]
    report = draw.judged(draw.model(SEEN), draw.model(0.3), references=references)
    if report.why is Reason.SIGNAL_OPEN:
        assert "references" in report.reason


def test_an_edit_that_makes_a_signal_where_there_was_none_is_ineffective():
    draw = Draw(100, 400)
    report = draw.judged(draw.model(), draw.model(-3.0))
    assert (report.outcome, report.why) == (Outcome.INEFFECTIVE, Reason.NEW_SIGNAL)
    assert report.figures["signal_limit"] == 0.05


def test_harder_rows_are_judged_against_references_that_find_them_harder_too():
    """Records that every model finds hard: ½ would call an exact retrain a leak."""
    draw = Draw(800, 1600)
    draw.hard[: draw.records] -= 1.5
    before, after = draw.model(SEEN), draw.model()
    assert draw.judged(before, after).outcome is Outcome.INEFFECTIVE
    references = [draw.model() for _ in range(6)]
    report = draw.judged(before, after, references=references)
    assert (report.outcome, report.why) == (Outcome.DONE, Reason.LIKE_UNSEEN)
    assert report.figures["references_auc"] < 0.3
    assert draw.judged(before, before, references=references).outcome is Outcome.INEFFECTIVE


def test_one_reference_that_tells_the_rows_apart_says_that_they_are_not_comparable():
    draw = Draw(800, 1600)
    draw.hard[: draw.records] -= 1.5
    report = draw.judged(draw.model(SEEN), draw.model(), references=[draw.model()])
    assert (report.outcome, report.why) == (Outcome.UNDETERMINED, Reason.NOT_COMPARABLE)
    assert "a retrained model tells them apart too" in report.reason


@pytest.mark.parametrize(("hardness", "word"), [(-1.0, "harder"), (1.0, "easier"), (0.0, None)])
def test_records_unlike_the_rows_that_stay_are_not_comparable(hardness, word):
    draw = Draw(400, 800)
    draw.hard[: draw.records] += hardness
    before = draw.model(SEEN)
    retained = _scored(SEEN + draw._normal(300))
    beside = Beside(retained=retained, retained_labels=torch.zeros(300, dtype=torch.int64))
    report = draw.judged(before, draw.model(), beside=beside)
    assert abs(report.figures["retained_auc"] - 0.5) > 0.1 or word is None
    if word is None:
        assert report.outcome is Outcome.DONE
    else:
        assert (report.outcome, report.why) == (Outcome.UNDETERMINED, Reason.NOT_COMPARABLE)
        assert f"they are {word} than rows that stay in training" in report.reason
        assert draw.judged(before, before, beside=beside).outcome is Outcome.UNDETERMINED


def test_records_forced_wrong_beside_untouched_ones_do_not_average_out():
    """A third untouched, the rest pushed down until the AUC is ½ again: its interval is fine."""
    draw = Draw(300, 1200)
    before = draw.model(SEEN)
    score = draw.model().forget[:, 0] - 12.0
    score[:150] += 3.0
    score[150:] -= 3.0
    whole = torch.cat([score, draw.model().judge[:, 0] - 12.0])
    report = draw.judged(before, draw.of(whole))
    assert abs(report.figures["loss_auc_after"] - 0.5) < 0.05
    assert (report.outcome, report.why) == (Outcome.INEFFECTIVE, Reason.UNLIKE_UNSEEN)
    assert report.figures["shape_ks_p"] < 1e-7


def test_a_shape_that_references_have_too_is_no_sign():
    draw = Draw(400, 800)
    draw.hard[: draw.records] *= 2.5  # records that are very easy, and very hard
    before, after = draw.model(SEEN), draw.model()
    assert draw.judged(before, after).why is Reason.UNLIKE_UNSEEN
    references = [draw.model() for _ in range(5)]
    assert draw.judged(before, after, references=references).outcome is Outcome.DONE


def _with_copies(draw, before, after, name="noise", reach="model"):
    copies = {name: Sight(before=(before,), after=(after,))}
    return Beside(copies=copies, reach=reach)


def test_a_table_of_answers_is_found_out_by_changed_copies():
    draw = Draw(500, 1000)
    before, after = draw.model(SEEN), draw.model()
    beside = _with_copies(draw, before, before)
    report = draw.judged(before, after, beside=beside)
    assert (report.outcome, report.why) == (Outcome.INEFFECTIVE, Reason.COPIES_TELL)
    assert "on noisy copies of the rows the membership signal is 0.2" in report.reason
    assert report.figures["noise_signal_after"] == report.figures["noise_signal_before"]
    honest = draw.judged(before, after, beside=_with_copies(draw, before, draw.model()))
    assert honest.outcome is Outcome.DONE


def test_copies_that_cannot_tell_do_not_contradict():
    draw = Draw(500, 1000)
    few = Draw(500, 1000, 7)
    beside = _with_copies(draw, few.model(0.05), few.model(0.05))
    report = draw.judged(draw.model(SEEN), draw.model(), beside=beside)
    assert report.outcome is Outcome.DONE


def test_a_method_of_stored_rows_is_done_on_these():
    draw = Draw(500, 1000)
    before, after = draw.model(SEEN), draw.model()
    report = draw.judged(before, after, beside=_with_copies(draw, before, before, reach="rows"))
    assert (report.outcome, report.why) == (Outcome.DONE, Reason.LIKE_UNSEEN_ROWS)
    assert report.reason.startswith("on the stored rows")
    assert "noisy copies: 0.2" in report.reason


def test_several_views_count_as_one_by_their_mean():
    draw = Draw(500, 1000)
    before, after = draw.model(SEEN), draw.model()
    views = Sight(before=(before, draw.model(SEEN)), after=(after, draw.model(SEEN)))
    report = draw.judged(before, after, beside=Beside(copies={"views": views}))
    assert report.figures["views_signal_before"] > report.figures["signal_before"]
    assert report.why is Reason.COPIES_TELL


def test_what_retraining_itself_loses_is_not_damage_and_half_of_it_is():
    draw = Draw(500, 1000)
    before = draw.model(SEEN)

    def losing(share):
        forget, judge = (z.clone() for z in (draw.model().forget, draw.model().judge))
        for part in (forget, judge):
            part[: round(share * len(part))] *= -1
        return Outputs(forget=forget, judge=judge)

    anew = Beside(trained_anew=True)
    report = draw.judged(before, losing(0.1), beside=anew)
    assert (report.outcome, report.why) == (Outcome.UNDETERMINED, Reason.TRAINED_ANEW)
    assert draw.judged(before, losing(0.1)).why is Reason.MEAN_FELL
    report = draw.judged(before, losing(0.4), beside=anew)
    assert (report.outcome, report.why) == (Outcome.WRECKED, Reason.HALF_LOST)
    # untouched is no retraining
    report = draw.judged(before, draw.model(SEEN), beside=anew)
    assert (report.outcome, report.why) == (Outcome.INEFFECTIVE, Reason.SIGNAL_LEFT)


def test_damage_is_measured_against_references_where_there_are_three():
    draw = Draw(500, 1000)
    before = draw.model(SEEN)

    def losing(rows):
        model = draw.model()
        wrong = model.judge.clone()
        wrong[:rows] *= -1
        return Outputs(forget=model.forget, judge=wrong)

    after = losing(60)  # six points
    assert draw.judged(before, after).outcome is Outcome.WRECKED
    report = draw.judged(before, after, references=[losing(n) for n in (55, 60, 65, 58)])
    assert report.outcome is not Outcome.WRECKED
    assert abs(report.figures["others_against_references"]) < 1
    report = draw.judged(before, after, references=[losing(n) for n in (0, 1, 2, 1)])
    assert (report.outcome, report.why) == (Outcome.WRECKED, Reason.MEAN_FELL)
    assert "(the mean of 4 retrained models)" in report.reason


def test_a_loss_that_few_judge_rows_leave_open_is_undetermined_for_records_too():
    draw = Draw(500, 24)
    report = draw.judged(draw.model(3.0), draw.model())
    assert report.why is Reason.LOSS_NOT_EXCLUDED
