"""The table of sabotage where a class is to be forgotten."""

from sabotage_acts import (
    ANEW,
    Wrapper,
    a_hair,
    beside_forward,
    by,
    empty_table,
    ending_as,
    further,
    never,
    relabelled,
    scaled,
    statistics_only,
    table,
    unchanged,
    zeros,
)
from sabotage_nets import (
    CLASS,
    CLEAN,
    LABEL,
    OF_CLASS,
    TRAINED,
    UNSEEN,
    giving,
    net,
    of_class,
    on_class,
    untrained,
)
from sabotage_rows import (
    DONE,
    FELL,
    INEFFECTIVE,
    NO_OP,
    OTHERWISE,
    UNDETERMINED,
    UNVERIFIED,
    WIDEST,
    WRECKED,
    Refused,
    Row,
)

from expunge import FineTune, Limits, MaskClass, Retrain
from expunge.errors import InputError, ModelError, TaskError
from expunge.reasons import Reason

STAYS = [i for i in range(TRAINED) if CLEAN[i] != LABEL]
OTHERS_UNSEEN = [i for i in UNSEEN if CLEAN[i] != LABEL]


def _masked_and_damaged(count):
    return [never(LABEL, 5, by=100.0 + i)(CLASS.original()) for i in range(count)]


def _tuned_and_damaged(count):
    """Copies trained on until two classes are gone."""
    labels = relabelled(relabelled(CLEAN, OF_CLASS, 8), (CLEAN == 5).nonzero().flatten(), 8)
    made = (further(range(TRAINED), labels, epochs=10, seed=i) for i in range(count))
    return [act(CLASS.original()) for act in made]


A_CLASS = [
    Row("nothing", lambda: on_class(by(unchanged)), NO_OP, Reason.SAME_WEIGHTS),
    Row("one weight and a hair", lambda: on_class(by(a_hair)), NO_OP, Reason.SAME_ANSWERS),
    Row(
        "a bare wrapper",
        lambda: on_class(by(lambda m, _: Wrapper(m), structure="wraps")),
        NO_OP,
        Reason.SAME_ANSWERS,
    ),
    Row(
        "a bare wrapper that can be rebuilt",
        lambda: on_class(
            by(lambda m, _: Wrapper(m), structure="wraps"), factory=lambda: Wrapper(net())
        ),
        NO_OP,
        Reason.SAME_ANSWERS,
    ),
    Row(
        "retrain: fit trains on everything",
        lambda: on_class(Retrain(), of_class(training=giving(CLASS.trained(range(TRAINED), 5)))),
        INEFFECTIVE,
        Reason.STILL_KNOWN,
    ),
    Row(
        "retrain: fit does nothing",
        lambda: on_class(Retrain(), of_class(training=untrained())),
        WRECKED,
        Reason.HALF_LOST,
    ),
    Row(
        "retrain: fit gives the trained model",
        lambda: on_class(Retrain(), of_class(training=giving(scaled(0.99)(CLASS.original(), 0)))),
        INEFFECTIVE,
        Reason.STILL_KNOWN,
    ),
    Row(
        "own method with the need training",
        lambda: on_class(by(scaled(1.001), needs=ANEW)),
        INEFFECTIVE,
        Reason.STILL_KNOWN,
    ),
    Row(
        "a table of answers for the forget rows",
        lambda: on_class(table(zeros), factory=empty_table(OF_CLASS)),
        INEFFECTIVE,
        Reason.STILL_KNOWN,
    ),
    Row(
        "a table of answers, holdout without the class",
        lambda: on_class(
            table(zeros), of_class(holdout=OTHERS_UNSEEN), factory=empty_table(OF_CLASS)
        ),
        UNDETERMINED,
        Reason.NO_ROW_OF_CLASS,
    ),
    Row("temperature", lambda: on_class(by(scaled(0.5))), INEFFECTIVE, Reason.STILL_KNOWN),
    Row(
        "batch-norm statistics only",
        lambda: on_class(by(statistics_only)),
        INEFFECTIVE,
        Reason.STILL_KNOWN,
    ),
    Row(
        "ascent until all is gone",
        lambda: on_class(by(further(OF_CLASS, CLEAN, epochs=100, sign=-1.0))),
        WRECKED,
        FELL,
    ),
    Row("another class forgotten", lambda: on_class(by(never(5))), WRECKED, FELL),
    Row(
        "before and after exchanged",
        lambda: on_class(ending_as(CLASS.original()), model=CLASS.without(OF_CLASS, 7)),
        UNDETERMINED,
        Reason.NOT_KNOWN_BEFORE,
    ),
    Row(
        "forward replaced",
        lambda: on_class(by(beside_forward(unchanged))),
        NO_OP,
        Reason.SAME_WEIGHTS,
        says=OTHERWISE,
    ),
    Row(
        "forward replaced beside an edit of no use",
        lambda: on_class(by(beside_forward(scaled(0.9)))),
        INEFFECTIVE,
        Reason.STILL_KNOWN,
        says=OTHERWISE,
    ),
    Row(
        "holdout without the class",
        lambda: on_class(MaskClass(), of_class(holdout=OTHERS_UNSEEN)),
        UNDETERMINED,
        Reason.NO_ROW_OF_CLASS,
    ),
    Refused(
        "holdout inside train",
        lambda: on_class(FineTune(epochs=1), of_class(holdout=STAYS)),
        TaskError,
        "holdout of rows never trained on",
    ),
    Refused(
        "holdout inside train, repeats expected",
        lambda: on_class(FineTune(epochs=1), of_class(holdout=STAYS), repeats="expected"),
        TaskError,
        "all 627 of its rows were",
    ),
    Refused(
        "holdout of the class inside train",
        lambda: on_class(MaskClass(), of_class(holdout=[*OTHERS_UNSEEN, *OF_CLASS])),
        TaskError,
        "are also in the forget set",
    ),
    Row(
        "holdout mostly inside train, repeats expected",
        lambda: on_class(
            by(never(LABEL), needs=ANEW),
            of_class(holdout=[*STAYS, *UNSEEN[:100]]),
            repeats="expected",
        ),
        UNDETERMINED,
        {Reason.CLASS_NOT_EXCLUDED, Reason.LOSS_NOT_EXCLUDED},
        says="holdout rows are also among the training rows that stay",
    ),
    Row(
        "holdout of 20 rows",
        lambda: on_class(MaskClass(), of_class(holdout=UNSEEN[:20])),
        UNDETERMINED,
        Reason.FEW_ROWS_STAY,
    ),
    Row(
        "holdout of 60 rows",
        lambda: on_class(MaskClass(), of_class(holdout=UNSEEN[:60])),
        UNDETERMINED,
        Reason.LOSS_NOT_EXCLUDED,
    ),
    Row(
        "holdout of 200 rows",
        lambda: on_class(MaskClass(), of_class(holdout=UNSEEN[:200])),
        UNDETERMINED,
        Reason.CLASS_NOT_EXCLUDED,
    ),
    Row(
        "labels numbered otherwise",
        lambda: on_class(by(scaled(0.5)), of_class(labels=(CLEAN + 1) % 10)),
        UNDETERMINED,
        Reason.NOT_KNOWN_BEFORE,
    ),
    Row(
        "labels numbered otherwise, and a hair",
        lambda: on_class(by(a_hair), of_class(labels=(CLEAN + 1) % 10)),
        NO_OP,
        Reason.SAME_ANSWERS,
    ),
    Row(
        "relabelled to one class",
        lambda: on_class(by(further(range(TRAINED), relabelled(CLEAN, OF_CLASS, 8), epochs=10))),
        DONE,
        Reason.CLASS_GONE,
        limit="by the class that is given it is gone; the claims on features are not measured yet",
    ),
    Row(
        "labels flipped",
        lambda: on_class(by(further(range(TRAINED), relabelled(CLEAN, OF_CLASS, None), epochs=10))),
        DONE,
        Reason.CLASS_GONE,
        limit="by the class that is given it is gone; the claims on features are not measured yet",
    ),
    *(
        Refused(
            f"limits: {name} = {value}",
            lambda name=name, value=value: on_class(
                by(scaled(0.5)), limits=Limits(**{name: value})
            ),
            InputError,
            f"`limits.{name}` to be a number",
        )
        for name, value in (
            ("forget_accuracy", 100.0),
            ("class_bound", 100.0),
            ("mean_drop", float("nan")),
            ("mean_bound", float("inf")),
            ("worst_drop", 100.0),
            ("confidence", 0.5),
            ("signal_left", 1.0),
        )
    ),
    Row(
        "limits at their widest, temperature",
        lambda: on_class(by(scaled(0.5)), limits=WIDEST),
        INEFFECTIVE,
        Reason.STILL_KNOWN,
        says="forget_accuracy 20 instead of 5",
    ),
    Row(
        "limits at their widest, another class forgotten",
        lambda: on_class(by(never(5)), limits=WIDEST),
        WRECKED,
        FELL,
        says="worst_drop 30 instead of 10",
    ),
    Row(
        "references: masked copies, as damaged",
        lambda: on_class(by(never(LABEL, 5)), references=_masked_and_damaged(3)),
        WRECKED,
        FELL,
        says=f"3 of 3 references are {UNVERIFIED}",
    ),
    Row(
        "references: fine-tuned copies, as damaged",
        lambda: on_class(by(never(LABEL, 5)), references=_tuned_and_damaged(3)),
        WRECKED,
        FELL,
        says=f"3 of 3 references are {UNVERIFIED}",
    ),
    Refused(
        "references: one that knows the class",
        lambda: on_class(MaskClass(), references=[CLASS.trained(range(TRAINED), 5)]),
        ModelError,
        "It was trained on them",
    ),
    Refused(
        "references: the original",
        lambda: on_class(MaskClass(), references=[CLASS.original()]),
        ModelError,
        "got the original model itself",
    ),
    Refused(
        "references: one twice",
        lambda: on_class(MaskClass(), references=[CLASS.without(OF_CLASS, 7)] * 2),
        ModelError,
        "again: the same",
    ),
    Refused(
        "retrain: factory gives the trained model",
        lambda: on_class(Retrain(), of_class(training=untrained(CLASS.original))),
        InputError,
        "fresh weights, got the given model's own weights",
    ),
    Refused(
        "retrain: factory gives the trained backbone",
        lambda: on_class(
            Retrain(), of_class(training=untrained(lambda: a_hair(CLASS.original(), 0)))
        ),
        InputError,
        "fresh weights, got its backbone under a new head",
    ),
    Row("honest: masked", lambda: on_class(MaskClass()), DONE, Reason.CLASS_GONE),
    Row("honest: retrained", lambda: on_class(Retrain()), DONE, Reason.CLASS_GONE),
]
