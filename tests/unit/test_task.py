"""Requests: what is chosen, and every wrong request refused by message."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from expunge import (
    Training,
    forget_classes,
    forget_ids,
    forget_indices,
    forget_subclasses,
)
from expunge.data import Fields, as_rows
from expunge.errors import DataError, TaskError

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2] * 4)
TRAIN = (X, Y)


def test_classes_split_forget_and_retain():
    task = forget_classes(TRAIN, [1, 2])
    assert (task.aim, task.scope, task.classes, task.gone) == ("absent", "classes", {1, 2}, {1, 2})
    assert sorted(task.forget.labels.tolist()) == [1] * 4 + [2] * 4
    assert task.retain.labels.tolist() == [0] * 4
    assert not set(task.forget.ids) & set(task.retain.ids)


def test_indices_ids_and_subclasses_choose_the_same_rows():
    names = [f"p{i}" for i in range(12)]
    by_index = forget_indices(TRAIN, [2, 7], ids=names)
    by_id = forget_ids(TRAIN, ["p7", "p2"], ids=names)
    fine = torch.zeros(12, dtype=torch.int64)
    fine[[2, 7]] = 5
    by_fine = forget_subclasses(TRAIN, fine, [5], ids=names)
    for task in (by_index, by_id, by_fine):
        assert task.forget.ids == ("p2", "p7")
        assert (task.aim, task.scope, task.classes) == ("unseen", "records", frozenset())
        assert len(task.retain) == 10


def test_forget_rows_alone():
    task = forget_classes(None, {1}, forget=(X[:2], torch.tensor([1, 1])), ids=["a", "b"])
    assert task.retain is None
    assert task.rows.given_ids
    assert task.forget.ids == ("a", "b")


@pytest.mark.parametrize("key", ["id", "ids"])
def test_own_ids_count_as_explicit(key):
    table = {"x": X[:2], "y": torch.tensor([1, 1]), key: ["a", "b"]}
    assert forget_classes(None, {1}, forget=table).rows.given_ids


def test_given_data_sets_need_no_truth_value():
    class Shy(Dataset):
        targets = Y

        def __bool__(self):
            raise TypeError("no truth value")

        def __len__(self):
            return len(Y)

        def __getitem__(self, i):
            return X[i], int(Y[i])

    assert len(forget_classes(Shy(), {0}).forget) == 4


def test_holdout_and_training_are_carried():
    training = Training(lambda: None, lambda *_, **__: None)
    task = forget_indices(TRAIN, [0], holdout=(X[:4], Y[:4]), training=training)
    assert len(task.holdout) == 4
    assert task.training is training


@pytest.mark.parametrize(
    "wanted",
    [
        ["3", "5"],
        {3, 5},
        [b"3", b"5"],
        np.array([3, 5]),
        np.array(["3", "5"]),
        np.array([b"3", b"5"]),
        torch.tensor([3, 5]),
        [torch.tensor(3), np.int64(5)],
        (str(i) for i in (3, 5)),
    ],
    ids=repr,
)
def test_ids_asked_for_are_read_as_those_of_the_data(wanted):
    assert forget_ids(TRAIN, wanted).forget.ids == ("3", "5")


def test_ids_of_the_data_may_be_a_tensor():
    assert forget_ids(TRAIN, [103], ids=torch.arange(100, 112)).forget.ids == ("103",)


FORMS = {
    "tensor": torch.tensor,
    "array": np.array,
    "list": list,
    "objects": lambda mask: np.array(mask, dtype=object),
    "series": lambda mask: Series(np.array(mask)),
}


class Series:
    """As much of a data frame's column as is asked of it."""

    def __init__(self, values):
        self.values = values

    def __iter__(self):
        return iter(self.values)

    def __len__(self):
        return len(self.values)

    def to_numpy(self):
        return self.values


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_mask_of_the_right_length_is_what_it_says(form):
    rows = form([i in (2, 7) for i in range(12)])
    assert forget_indices(TRAIN, rows).forget.ids == ("2", "7")
    assert forget_ids(TRAIN, rows, ids=[f"p{i}" for i in range(12)]).forget.ids == ("p2", "p7")
    assert forget_classes(TRAIN, form([False, True, False])).classes == {1}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_mask_of_another_length_is_refused_with_the_cure(form):
    mask = form([False, True, False, False, False])
    for make, name, count in (
        (forget_indices, "indices", "12 truth values, one a row, got 5"),
        (forget_ids, "wanted", "12 truth values, one a row, got 5"),
        (forget_classes, "classes", "3 truth values, one a class, got 5"),
    ):
        with pytest.raises(TaskError, match=f"`{name}` to have {count}.*numpy.flatnonzero"):
            make(TRAIN, mask)


def test_no_other_row_is_offered_for_an_unknown_id():
    with pytest.raises(TaskError, match="unknown id 'p33'") as caught:
        forget_ids(TRAIN, ["p33"], ids=[f"p3{i:02}" for i in range(12)])
    assert "p300" not in str(caught.value)
    assert "mean" not in str(caught.value)


NAMED = (X, np.array(["ant", "bee", "cat"])[Y.numpy()])


def test_classes_may_be_asked_for_by_name():
    task = forget_classes(NAMED, {"bee"}, holdout=NAMED)
    assert task.classes == {1}
    assert task.rows.names.names == ("ant", "bee", "cat")
    assert forget_classes(NAMED, [1]).classes == {1}
    assert forget_classes(NAMED, np.array(["bee"])).classes == {1}
    with pytest.raises(TaskError, match="among the names in the data, got 'dog'; they are ant, "):
        forget_classes(NAMED, {"dog"})


def test_names_may_be_listed_in_the_order_of_the_outputs():
    fields = Fields(classes=["cat", "bee", "ant", "dog"])
    rows = as_rows(NAMED, fields=fields)
    assert rows.labels.tolist() == [2, 1, 0] * 4
    task = forget_classes(rows, {"ant"}, holdout=(X[:4], np.array(["ant", "dog", "cat", "bee"])))
    assert task.classes == {2}
    assert task.holdout.labels.tolist() == [2, 3, 0, 1]
    assert forget_classes(rows, {2}, holdout=(X, Y)).holdout.labels.tolist() == Y.tolist()


@pytest.mark.parametrize(
    ("train", "holdout", "words"),
    [
        (NAMED, (X, Y), "to be names like those of the training rows, got the number 0"),
        (NAMED, as_rows((X, Y)), "got numbers where those have 3 sorted names"),
        (TRAIN, NAMED, "got 3 sorted names, the first 'ant' where those have numbers"),
        (NAMED, (X[:1], ["dog"]), "among the names of the training rows, got 'dog' in row 0"),
        (NAMED, as_rows((X[:2], ["bee", "cat"])), "got 2 sorted names.*`classes` under .data."),
    ],
)
def test_a_holdout_that_may_number_its_classes_otherwise_is_refused(train, holdout, words):
    with pytest.raises(DataError, match=words):
        forget_classes(train, {1}, holdout=holdout)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: forget_ids(TRAIN, "12"), "`wanted` to be a list or set of entries, got '12'"),
        (lambda: forget_ids(TRAIN, b"12"), "`wanted` to be a list or set of entries, got b'12'"),
        (lambda: forget_ids(TRAIN, 1), "`wanted` to be .* got 1. Put a single one in a list"),
        (lambda: forget_ids(TRAIN, None), "`wanted` to be .* got None"),
        (lambda: forget_ids(TRAIN, torch.tensor(3)), r"`wanted` to be .* got tensor\(3\)"),
        (lambda: forget_ids(TRAIN, np.array([[3], [5]])), r"one id an entry in `wanted`.*\(1,\)"),
        (lambda: forget_ids(TRAIN, [b"\xff"]), "are no UTF-8"),
        (lambda: forget_ids(TRAIN, ["3"], ids="abcdefghijkl"), "`ids` to be a list or set"),
        (lambda: forget_ids(TRAIN, ["3"], ids=12), "`ids` to be a list or set of entries, got 12"),
        (lambda: forget_indices(TRAIN, 5), "`indices` to be a list or set of entries, got 5"),
        (lambda: forget_indices(TRAIN, None), "`indices` to be .* got None"),
        (lambda: forget_indices(TRAIN, "5"), "`indices` to be .* got '5'"),
        (lambda: forget_indices(TRAIN, b"5"), "`indices` to be .* got b'5'"),
        (lambda: forget_indices(TRAIN, [None]), "`indices` to be whole numbers, got None"),
        (lambda: forget_classes(TRAIN, b"1"), "`classes` to be a list or set of entries, got b'1'"),
        (lambda: forget_classes(TRAIN, []), "at least one class, got none"),
        (lambda: forget_classes(TRAIN, {-1}), "class numbers from 0, got -1"),
        (lambda: forget_classes(TRAIN, 1), "`classes`"),
        (lambda: forget_classes(TRAIN, {9}), "rows of class 9 in `train`, got none"),
        (lambda: forget_classes(TRAIN, {0, 1, 2}), "leave some records, got all 12"),
        (lambda: forget_classes(TRAIN, {0}, aim="unseen"), 'aim` "absent" for whole classes'),
        (lambda: forget_classes(TRAIN, {0}, aim="gone"), '"absent" or "unseen", got \'gone\''),
        (lambda: forget_classes(None, {0}), "neither"),
        (lambda: forget_classes(TRAIN, {0}, forget=TRAIN), "both"),
        (lambda: forget_classes(None, {0}, forget=TRAIN), "class 0 only, got a row of class 1"),
        (lambda: forget_classes(TRAIN, {1.5}), "`classes` to be whole numbers, got 1.5"),
        (lambda: forget_indices(TRAIN, {True}), "`indices` to be whole numbers, got True"),
        (lambda: forget_indices(TRAIN, [0.9]), "`indices` to be whole numbers, got 0.9"),
        (lambda: forget_indices(TRAIN, []), "at least one record, got none"),
        (lambda: forget_indices(TRAIN, [12]), "between 0 and 11, got 12"),
        (lambda: forget_indices(TRAIN, [-1]), "between 0 and 11, got -1"),
        (lambda: forget_indices(TRAIN, [4, 4]), "`indices`, got 4 twice"),
        (lambda: forget_indices(TRAIN, range(12)), "leave some records"),
        (lambda: forget_indices(TRAIN, [1], aim="absent"), "Forcing their labels wrong"),
        (lambda: forget_ids(TRAIN, ["3", "3"]), "`ids`, got '3' twice"),
        (lambda: forget_ids(TRAIN, ["33"]), "unknown id '33' .1 of 1 unknown.. Check the list"),
        (lambda: forget_ids(TRAIN, ["3"], ids=["3"] * 12), "duplicate id '3'"),
        (lambda: forget_subclasses(TRAIN, [0] * 11, [0]), "one sub-label a row"),
        (lambda: forget_subclasses(TRAIN, [0] * 12, [4]), "sub-class 4"),
    ],
)
def test_refused_by_message(make, words):
    with pytest.raises(TaskError, match=words):
        make()
