"""The table of sabotage where records are to be forgotten."""

from sabotage_acts import (
    ANEW,
    Wrapper,
    a_hair,
    beside_forward,
    by,
    empty_table,
    ending_as,
    forced_wrong,
    further,
    never,
    of_another,
    of_tune_rows,
    relabelled,
    scaled,
    statistics_only,
    table,
    too_far,
    unchanged,
)
from sabotage_nets import (
    LABEL,
    MISLABELLED,
    NOISY,
    RECORD,
    RECORDS,
    TRAINED,
    UNSEEN,
    augmented,
    giving,
    kept,
    of_records,
    on_records,
    references,
    untrained,
)
from sabotage_rows import (
    DONE,
    FELL,
    INEFFECTIVE,
    LEFT_OPEN,
    NO_OP,
    OTHERWISE,
    TOLD,
    UNDETERMINED,
    UNVERIFIED,
    WIDEST,
    WRECKED,
    Refused,
    Row,
)

from expunge import FineTune, Retrain
from expunge.errors import InputError, ModelError, TaskError
from expunge.reasons import Reason

HARDEST = [i for i in range(TRAINED) if MISLABELLED[i]]
EASIEST = [i for i in range(TRAINED) if not MISLABELLED[i]][:300]
ONE_CLASS = [i for i in range(TRAINED) if NOISY[i] == LABEL][:60]
EASIER = [i for i in UNSEEN if not MISLABELLED[i]]
HARDER = [i for i in UNSEEN if MISLABELLED[i]]
EMPTY = empty_table(RECORDS)
FLIPPED = relabelled(NOISY, RECORDS, None)
SHIFTED = relabelled(NOISY, RECORDS, (NOISY[: len(RECORDS)] + 1) % 10)


def _falsely(model, forget=RECORDS, **options):
    """`retrain` with a `fit` that gives this model."""
    task = of_records(forget=forget, training=giving(model))
    return on_records(Retrain(), task, **options)


def _best(results):
    """The first that is `done`, or else the last."""
    made = list(results)
    return next((one for one in made if one.outcome.outcome is DONE), made[-1])


def _everything(seed=5):
    return RECORD.trained(range(TRAINED), seed)


def _saw(count):
    return [_everything(60 + i) for i in range(count)]


def _tuned(count):
    """Copies of the original that were trained on, on what stays."""
    made = (further(range(300, TRAINED), NOISY, epochs=40, seed=i) for i in range(count))
    return [act(RECORD.original()) for act in made]


def _dimmed(inputs):
    return [0.8 * inputs]


SOME_RECORDS = [
    Row("nothing", lambda: on_records(by(unchanged)), NO_OP, Reason.SAME_WEIGHTS),
    Row("one weight and a hair", lambda: on_records(by(a_hair)), NO_OP, Reason.SAME_ANSWERS),
    Row(
        "a bare wrapper",
        lambda: on_records(by(lambda m, _: Wrapper(m), structure="wraps")),
        NO_OP,
        Reason.SAME_ANSWERS,
    ),
    Row(
        "retrain: fit trains on everything",
        lambda: _falsely(_everything()),
        INEFFECTIVE,
        Reason.SIGNAL_LEFT,
    ),
    Row(
        "retrain: fit trains on everything, five references",
        lambda: _falsely(_everything(), references=references(5)),
        INEFFECTIVE,
        Reason.SIGNAL_LEFT,
    ),
    Row(
        "retrain: fit does nothing",
        lambda: on_records(Retrain(), of_records(training=untrained())),
        WRECKED,
        Reason.HALF_LOST,
    ),
    Refused(
        "retrain: factory gives the trained model",
        lambda: on_records(Retrain(), of_records(training=untrained(RECORD.original))),
        InputError,
        "fresh weights, got the given model's own weights",
    ),
    Row(
        "own method with the need training",
        lambda: on_records(by(scaled(1.001), needs=ANEW)),
        INEFFECTIVE,
        Reason.SIGNAL_LEFT,
    ),
    Row(
        "a table: answers on tune rows",
        lambda: on_records(table(of_tune_rows), factory=EMPTY),
        INEFFECTIVE,
        Reason.COPIES_TELL,
    ),
    Row(
        "a table: answers of a retrained model",
        lambda: on_records(table(of_another(references(1)[0])), factory=EMPTY),
        INEFFECTIVE,
        Reason.COPIES_TELL,
    ),
    Row(
        "a table: answers of a retrained model, five references",
        lambda: on_records(
            table(of_another(RECORD.without(RECORDS, 7))), factory=EMPTY, references=references(5)
        ),
        INEFFECTIVE,
        Reason.COPIES_TELL,
    ),
    Row(
        "a table that is in no file",
        lambda: on_records(table(of_tune_rows)),
        INEFFECTIVE,
        Reason.COPIES_TELL,
        says="the stored weights were not judged",
    ),
    Row(
        "a table by a method that reaches the stored rows alone",
        lambda: on_records(table(of_tune_rows, reach="rows"), factory=EMPTY),
        DONE,
        Reason.LIKE_UNSEEN_ROWS,
        limit="the outcome says that it is `done` on the stored rows",
    ),
    Row(
        "a table with a wide radius",
        lambda: on_records(table(of_tune_rows, radius=0.5), factory=EMPTY),
        DONE,
        Reason.LIKE_UNSEEN,
        limit="noisy copies lie within the radius: only views beyond it tell",
    ),
    Row(
        "a table with a wide radius, views that the net never knew",
        lambda: on_records(table(of_tune_rows, radius=0.5), factory=EMPTY, views="images"),
        DONE,
        Reason.LIKE_UNSEEN,
        limit="the net tells no members by their mirror images or shifts, so these hold no signal",
    ),
    Row(
        "a table with a wide radius, views as in training",
        lambda: on_records(
            table(of_tune_rows, radius=0.5), model=augmented(), factory=EMPTY, views="images"
        ),
        INEFFECTIVE,
        Reason.COPIES_TELL,
    ),
    Row(
        "a table with a wide radius, views beyond it",
        lambda: on_records(table(of_tune_rows, radius=0.5), factory=EMPTY, views=_dimmed),
        INEFFECTIVE,
        Reason.COPIES_TELL,
    ),
    Row(
        "records forced wrong: all",
        lambda: on_records(table(forced_wrong(1.0)), factory=EMPTY),
        INEFFECTIVE,
        Reason.SIGNAL_LEFT,
    ),
    Row(
        "records forced wrong: a third",
        lambda: on_records(table(forced_wrong(1 / 3)), factory=EMPTY),
        INEFFECTIVE,
        TOLD,
    ),
    Row(
        "records forced wrong: as many as balance",
        lambda: on_records(table(forced_wrong(0.4)), factory=EMPTY),
        INEFFECTIVE,
        Reason.UNLIKE_UNSEEN,
    ),
    Row(
        "records forced wrong: as many as balance, five references",
        lambda: on_records(table(forced_wrong(0.4)), factory=EMPTY, references=references(5)),
        INEFFECTIVE,
        TOLD,
    ),
    Row("half kept", lambda: _falsely(kept(1 / 2)), INEFFECTIVE, TOLD),
    Row(
        "half kept, five references",
        lambda: _falsely(kept(1 / 2), references=references(5)),
        INEFFECTIVE,
        TOLD,
    ),
    Row(
        "half kept, by a method of one's own",
        lambda: on_records(ending_as(kept(1 / 2))),
        {INEFFECTIVE, WRECKED},
        TOLD | FELL,
    ),
    *(
        Row(
            f"a quarter kept, seed {seed}",
            lambda seed=seed: _falsely(kept(1 / 4, seed)),
            {INEFFECTIVE, UNDETERMINED},
            TOLD | LEFT_OPEN,
        )
        for seed in (30, 31, 32)
    ),
    Row(
        "a quarter kept, eight references, the best of four seeds",
        lambda: _best(_falsely(kept(1 / 4, 30 + i), references=references(8)) for i in range(4)),
        {INEFFECTIVE, UNDETERMINED},
        TOLD | LEFT_OPEN,
        open="a net trained on fewer rows learns them less by heart: a quarter kept leaves less "
        "than a quarter of the signal, which a narrow interval calls `done`",
    ),
    Row(
        "labels flipped",
        lambda: on_records(by(further(range(TRAINED), FLIPPED, epochs=20), needs=ANEW)),
        INEFFECTIVE,
        TOLD,
    ),
    Row(
        "labels shifted by one",
        lambda: on_records(by(further(range(TRAINED), SHIFTED, epochs=20), needs=ANEW)),
        INEFFECTIVE,
        TOLD,
    ),
    Row(
        "labels flipped, by a method that says it does not train anew",
        lambda: on_records(by(further(range(TRAINED), FLIPPED, epochs=20))),
        WRECKED,
        FELL,
    ),
    Row("temperature", lambda: on_records(by(scaled(0.5))), INEFFECTIVE, Reason.SIGNAL_LEFT),
    Row(
        "batch-norm statistics only",
        lambda: on_records(by(statistics_only)),
        INEFFECTIVE,
        Reason.SIGNAL_LEFT,
    ),
    Row(
        "ascent until all is gone",
        lambda: on_records(by(further(RECORDS, NOISY, epochs=100, sign=-1.0))),
        WRECKED,
        FELL,
    ),
    Row(
        "over-forgotten: made unlikely, what stays trained on",
        lambda: on_records(by(too_far(RECORDS, NOISY), needs=ANEW)),
        INEFFECTIVE,
        TOLD,
    ),
    Row(
        "other records forgotten",
        lambda: _falsely(RECORD.without(range(300, 600), 7)),
        INEFFECTIVE,
        Reason.SIGNAL_LEFT,
    ),
    Row(
        "before and after exchanged",
        lambda: on_records(ending_as(RECORD.original()), model=references(1)[0]),
        INEFFECTIVE,
        Reason.NEW_SIGNAL,
    ),
    Row(
        "forward replaced",
        lambda: on_records(by(beside_forward(unchanged))),
        NO_OP,
        Reason.SAME_WEIGHTS,
        says=OTHERWISE,
    ),
    Row(
        "forward replaced beside an edit of no use",
        lambda: on_records(by(beside_forward(scaled(0.9)))),
        INEFFECTIVE,
        Reason.SIGNAL_LEFT,
        says=OTHERWISE,
    ),
    Refused(
        "holdout inside train",
        lambda: on_records(FineTune(epochs=1), of_records(holdout=range(300, TRAINED))),
        TaskError,
        "holdout of rows never trained on",
    ),
    Refused(
        "holdout inside train, repeats expected",
        lambda: on_records(
            FineTune(epochs=1), of_records(holdout=range(300, TRAINED)), repeats="expected"
        ),
        TaskError,
        "all 400 of its rows were",
    ),
    Row(
        "holdout inside train, for a method that reads no training rows",
        lambda: on_records(by(scaled(0.5)), of_records(holdout=range(300, TRAINED))),
        {UNDETERMINED, INEFFECTIVE},
        TOLD | {Reason.NO_SIGNAL_BEFORE, Reason.SIGNAL_OPEN, Reason.COPIES_TELL},
    ),
    Row(
        "holdout inside train, one reference",
        lambda: on_records(
            by(scaled(0.5)), of_records(holdout=range(300, TRAINED)), references=references(1)
        ),
        UNDETERMINED,
        Reason.NOT_COMPARABLE,
    ),
    *(
        Row(
            f"holdout {kind}, temperature",
            lambda rows=rows: on_records(by(scaled(0.5)), of_records(holdout=rows)),
            INEFFECTIVE,
            TOLD,
        )
        for kind, rows in (("easier", EASIER), ("harder", HARDER))
    ),
    Row(
        "holdout easier, half kept: the average is that of chance",
        lambda: on_records(ending_as(kept(1 / 2)), of_records(holdout=EASIER)),
        {INEFFECTIVE, UNDETERMINED},
        TOLD | {Reason.SIGNAL_OPEN},
    ),
    *(
        Row(
            f"holdout {kind}, {name}, one reference",
            lambda rows=rows, model=model: on_records(
                ending_as(model()), of_records(holdout=rows), references=references(1)
            ),
            UNDETERMINED,
            LEFT_OPEN | {Reason.NOT_COMPARABLE},
        )
        for kind, rows in (("easier", EASIER), ("harder", HARDER))
        for name, model in (
            ("half kept", lambda: kept(1 / 2)),
            ("retrained", lambda: RECORD.without(RECORDS, 7)),
        )
    ),
    Row(
        "holdout of 20 rows, temperature",
        lambda: on_records(by(scaled(0.5)), of_records(holdout=UNSEEN[:20])),
        UNDETERMINED,
        Reason.FEW_ROWS_STAY,
    ),
    Row(
        "holdout of 20 rows, retrained",
        lambda: on_records(Retrain(), of_records(holdout=UNSEEN[:20])),
        UNDETERMINED,
        Reason.FEW_ROWS_STAY,
    ),
    *(
        Row(
            f"{name} records, {what}",
            lambda rows=rows, model=model: _falsely(model(rows), forget=rows),
            UNDETERMINED,
            {Reason.NOT_COMPARABLE} | LEFT_OPEN,
        )
        for name, rows in (("hardest", HARDEST), ("easiest", EASIEST))
        for what, model in (
            ("trained on everything", lambda _: _everything()),
            ("half kept", lambda rows: RECORD.without(rows[len(rows) // 2 :], 5)),
            ("retrained", lambda rows: RECORD.without(rows, 7)),
        )
    ),
    Row(
        "records of one class, temperature",
        lambda: on_records(by(scaled(0.5)), of_records(forget=ONE_CLASS)),
        INEFFECTIVE,
        Reason.SIGNAL_LEFT,
    ),
    Row(
        "records of one class, the class masked",
        lambda: on_records(by(never(LABEL)), of_records(forget=ONE_CLASS)),
        WRECKED,
        FELL,
    ),
    Row(
        "records of one class, trained on everything",
        lambda: _falsely(_everything(), forget=ONE_CLASS),
        INEFFECTIVE,
        Reason.SIGNAL_LEFT,
    ),
    Row(
        "limits at their widest, temperature",
        lambda: on_records(by(scaled(0.5)), limits=WIDEST),
        INEFFECTIVE,
        Reason.SIGNAL_LEFT,
        says="signal_left 0.5 instead of 0.25",
    ),
    Row(
        "limits at their widest, half kept",
        lambda: on_records(ending_as(kept(1 / 2)), limits=WIDEST),
        INEFFECTIVE,
        TOLD,
        says="signal_left 0.5 instead of 0.25",
    ),
    Row(
        "references: models that saw the records, temperature",
        lambda: on_records(by(scaled(0.5)), references=_saw(3)),
        INEFFECTIVE,
        Reason.SIGNAL_LEFT,
        says=f"3 of 3 references are {UNVERIFIED}",
    ),
    Row(
        "references: models that saw the records, trained on everything",
        lambda: _falsely(_everything(), references=_saw(3)),
        INEFFECTIVE,
        Reason.SIGNAL_LEFT,
        says=f"3 of 3 references are {UNVERIFIED}",
    ),
    Row(
        "references: fine-tuned copies, one more such copy",
        lambda: on_records(ending_as(_tuned(4)[3]), references=_tuned(3)),
        {INEFFECTIVE, WRECKED},
        TOLD | FELL,
        says=f"3 of 3 references are {UNVERIFIED}",
    ),
    Row(
        "references: models that saw half of the records, half kept",
        lambda: _falsely(kept(1 / 2), references=[kept(1 / 2, 60 + i) for i in range(3)]),
        {DONE, UNDETERMINED},
        LEFT_OPEN | {Reason.LIKE_UNSEEN},
        limit="separate trainings that treat the records unlike rows that stay: only who made "
        "them knows that they saw half",
    ),
    Refused(
        "references: the original",
        lambda: on_records(by(scaled(0.5)), references=[RECORD.original()]),
        ModelError,
        "got the original model itself",
    ),
    Refused(
        "references: one twice",
        lambda: on_records(by(scaled(0.5)), references=references(1) * 2),
        ModelError,
        "again: the same",
    ),
    Row(
        "honest: retrained, five references",
        lambda: on_records(Retrain(), references=references(5)),
        DONE,
        Reason.LIKE_UNSEEN,
    ),
    Row(
        "honest: retrained",
        lambda: on_records(Retrain()),
        {DONE, UNDETERMINED},
        LEFT_OPEN | {Reason.LIKE_UNSEEN},
    ),
]
