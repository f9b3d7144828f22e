"""Why a run ended as it did: one reason each, its outcome, and the sentence that a person reads.

The code stands in `record.json` and in `--json`, and stays the same when words change; the sentence
is filled with what was measured. Standard library only.
"""

from __future__ import annotations

import enum
from typing import Any, final

__all__ = ["Reason", "reason_of"]


@final
class Reason(enum.Enum):
    """Why a run ended as it did; the value is the code in records."""

    outcome: str
    sentence: str

    def __new__(cls, code: str, outcome: str, sentence: str) -> Reason:
        """A member with its code as value; beside it its outcome, and its sentence."""
        member = object.__new__(cls)
        member._value_ = code
        member.outcome = outcome
        member.sentence = sentence
        return member

    # nothing happened
    SAME_WEIGHTS = ("same-weights", "no-op", "the weights are bit-identical to the original's")
    SAME_ANSWERS = (
        "same-answers",
        "no-op",
        "no answer on the forget rows moved by more than 1e-5 of the largest logit",
    )

    # what stays was damaged
    NOT_FINITE = ("not-finite", "wrecked", "the edited model gives NaN or +infinity on some rows")
    HALF_LOST = (
        "half-lost",
        "wrecked",
        (
            "what stays fell from {old} to {new:.2f} %: less than half above chance "
            "({chance:.1f} %) is left"
        ),
    )
    MEAN_FELL = (
        "mean-fell",
        "wrecked",
        (
            "what stays fell from {old} to {new:.2f} % (limit: {limit:g} points; interval "
            "{low:.2f} to {high:.2f})"
        ),
    )
    CLASS_FELL = (
        "class-fell",
        "wrecked",
        (
            "class {label} fell by {fall:.1f} points (limit: {limit:g}; interval {low:.1f} to "
            "{high:.1f})"
        ),
    )
    MOVED = (
        "moved",
        "wrecked",
        "{share:.2f} % of what stays got other logits (limit: {limit:g} %)",
    )
    FLIPPED = (
        "flipped",
        "wrecked",
        "{share:.2f} % of what stays changed class (limit: {limit:g} %)",
    )

    # the forget set is still there
    STILL_KNOWN = (
        "still-known",
        "ineffective",
        "{left:.2f} % of the {where} are still recognised (limit: {limit:g} %)",
    )
    SIGNAL_LEFT = (
        "signal-left",
        "ineffective",
        (
            "the membership signal went from {old:.3f} to {new:.3f} and its whole interval, "
            "{low:+.3f} to {high:+.3f}, lies beyond ±{limit:.3f}{against}"
        ),
    )
    NEW_SIGNAL = (
        "new-signal",
        "ineffective",
        (
            "the edit made a membership signal where none was seen: from {old:.3f} to {new:.3f}, "
            "its whole interval, {low:+.3f} to {high:+.3f}, beyond ±{limit:.3f}{against}"
        ),
    )
    UNLIKE_UNSEEN = (
        "unlike-unseen",
        "ineffective",
        (
            "the records are spread otherwise than unseen rows: an AUC of {auc:.3f} by the "
            "distance from the middle (chance: 0.5 ± {band:.3f}), Kolmogorov-Smirnov p = {p:.1g}"
        ),
    )
    COPIES_TELL = (
        "copies-tell",
        "ineffective",
        (
            "on {which} of the rows the membership signal is {new:.3f} ({old:.3f} before; limit "
            "{limit:.3f}), whatever it is on the stored rows ({stored:.3f})"
        ),
    )
    CAME_BACK = ("came-back", "ineffective", "records of an earlier request came back: {which}")
    KNOWN_AGAIN = (
        "known-again",
        "ineffective",
        "{left:.2f} % recognised again (limit: {limit:g} %)",
    )
    TOLD_AGAIN = (
        "told-again",
        "ineffective",
        "their membership signal rose from {old:.3f} to {new:.3f} (chance: below {band:.3f})",
    )

    # the data cannot tell
    NOT_KNOWN_BEFORE = (
        "not-known-before",
        "undetermined",
        (
            "class {label} was not recognised before the edit: {known:.2f} % of its forget records "
            "(limit: {limit:g} %). Label numbering? Normalisation? Already gone?"
        ),
    )
    NEAR_CHANCE_BEFORE = (
        "near-chance-before",
        "undetermined",
        (
            "what stays was near chance before the edit: {old:.2f} % right (chance: {chance:.1f} "
            "%). Label numbering? Normalisation? Already gone?"
        ),
    )
    NO_HOLDOUT = ("no-holdout", "undetermined", "there is no holdout")
    FEW_ROWS_STAY = (
        "few-rows-stay",
        "undetermined",
        "what stays could not be judged: fewer than {least} judge rows of it",
    )
    MAY_HAVE_FALLEN = (
        "may-have-fallen",
        "undetermined",
        (
            "what stays fell from {old} to {new:.2f} % (limit: {limit:g} points), which "
            "chance could have done on {rows:,} judge rows (interval {low:.2f} to {high:.2f})"
        ),
    )
    LOSS_NOT_EXCLUDED = (
        "loss-not-excluded",
        "undetermined",
        (
            "what stays changed by {change:+.2f} points, but on {rows:,} judge rows a loss of "
            "{loss:.2f} cannot be excluded (limit: {limit:g})"
        ),
    )
    NO_ROW_OF_CLASS = (
        "no-row-of-class",
        "undetermined",
        (
            "there is no judge row of class {label}: that it is not given for the forget records "
            "alone says nothing. Give a holdout with rows of it"
        ),
    )
    CLASS_NOT_EXCLUDED = (
        "class-not-excluded",
        "undetermined",
        (
            "{known} of {rows} judge rows of class {label} are recognised, so that up to "
            "{bound:.1f} % of such rows may be (limit: {limit:g} %); {enough} judge rows with as "
            "many recognised would settle it"
        ),
    )
    NO_ROW_OF_RECORDS = (
        "no-row-of-records",
        "undetermined",
        "no judge row has the class of a forget record",
    )
    NOT_COMPARABLE = (
        "not-comparable",
        "undetermined",
        (
            "the forget records are not comparable with unseen rows: {what}. Membership cannot be "
            "judged without three retrained references"
        ),
    )
    NO_SIGNAL_BEFORE = (
        "no-signal-before",
        "undetermined",
        (
            "no membership signal clear of chance before the edit: {old:.3f}, interval {low:+.3f} "
            "to {high:+.3f}{against} (after: {new:.3f}). {settle}"
        ),
    )
    SIGNAL_OPEN = (
        "signal-open",
        "undetermined",
        (
            "the membership signal went from {old:.3f} to {new:.3f}, but its interval, {low:+.3f} "
            "to {high:+.3f}, is not within ±{limit:.3f}{against}. {settle}"
        ),
    )
    TRAINED_ANEW = (
        "trained-anew",
        "undetermined",
        (
            "trained anew, which these rows alone can neither confirm nor reject: other retrained "
            "models would tell (measured: {measured})"
        ),
    )
    TWINS = (
        "twins",
        "undetermined",
        (
            "{count:,} of {records:,} records stay in the training data under another id, with the "
            "same content: whether they are forgotten cannot be told (measured: {measured})"
        ),
    )
    IN_MEMORY = (
        "in-memory",
        "undetermined",
        "judged in memory alone: {unfit} (measured: {measured})",
    )
    TOO_FEW = ("too-few", "undetermined", "too few")

    # some records were refused
    SOME_REFUSED = ("some-refused", "incomplete", "{count} (of those served: {served})")

    # it worked
    CLASS_GONE = (
        "class-gone",
        "done",
        (
            "{left:.2f} % of the forget records still recognised, what stays changed by "
            "{change:+.2f} points against the masked original"
        ),
    )
    LIKE_UNSEEN = (
        "like-unseen",
        "done",
        (
            "the membership signal went from {old:.3f} to {new:.3f}, and its whole interval, "
            "{low:+.3f} to {high:+.3f}, lies within ±{limit:.3f}{against}"
        ),
    )
    LIKE_UNSEEN_ROWS = (
        "like-unseen-on-stored-rows",
        "done",
        (
            "on the stored rows the membership signal went from {old:.3f} to {new:.3f}, and its "
            "whole interval, {low:+.3f} to {high:+.3f}, lies within ±{limit:.3f}{against}; the "
            "method does not reach changed copies{copies}"
        ),
    )
    STAYS_GONE = ("stays-gone", "done", "{left:.2f} % recognised again (limit: {limit:g} %)")
    STAYS_UNSEEN = ("stays-unseen", "done", "their membership signal did not rise")
    CLASSES_GONE = ("classes-gone", "done", "their classes are gone")

    def filled(self, **facts: Any) -> str:
        """The sentence with what was measured."""
        return self.sentence.format(**facts)


def reason_of(code: str | None) -> Reason | None:
    """The reason with this code, None for None; raises KeyError for a code that is none."""
    return None if code is None else {reason.value: reason for reason in Reason}[code]
