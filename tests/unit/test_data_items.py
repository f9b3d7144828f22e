"""Data are what the data set gives: its items count, whatever it stores or keeps as attributes."""

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

import expunge
from expunge.data import Fields, as_rows
from expunge.errors import DataError, TaskError

N = 300
X = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 5


class Relabelled(Subset):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x, (int(y) + 1) % 5

    def __getitems__(self, indices):
        return [self[i] for i in indices]


class Scaled(TensorDataset):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return (x - 50) / 10, y


class Items(Dataset):
    """Rows as `make(i)` gives them, with attributes beside."""

    def __init__(self, make, n=N, **kept):
        self.make, self.n = make, n
        for name, value in kept.items():
            setattr(self, name, value)

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.make(i)


SUBCLASSES = {
    "Subset": Relabelled(TensorDataset(X, (Y - 1) % 5), range(N)),
    "TensorDataset": Scaled(X * 10 + 50, Y),
    "Subset of a subclass": Subset(Scaled(X * 10 + 50, Y), range(N)),
    "Subset of a Subset's subclass": Subset(
        Subset(Relabelled(TensorDataset(X, (Y - 1) % 5), range(N)), range(N)), range(N)
    ),
    "ConcatDataset": ConcatDataset(
        [
            Scaled(X[:100] * 10 + 50, Y[:100]),
            Relabelled(TensorDataset(X, (Y - 1) % 5), range(100, N)),
        ]
    ),
}


@pytest.mark.parametrize("data", SUBCLASSES.values(), ids=SUBCLASSES)
def test_subclasses_are_read_by_their_items(data):
    rows = as_rows(data)
    inputs, labels = rows.batch(torch.arange(N))
    torch.testing.assert_close(inputs, X, rtol=1e-4, atol=1e-4)
    assert torch.equal(rows.labels, Y)
    assert torch.equal(labels, Y)


def test_a_class_request_on_a_relabelling_subset_takes_the_rows_of_that_class():
    data = SUBCLASSES["Subset"]
    task = expunge.forget_classes(data, {1})
    assert len(task.forget) == N // 5
    assert {data[int(i)][1] for i in task.forget.index} == {1}


def pair(i):
    return X[i], int(Y[i])


AGREE = {"list": Y.tolist(), "array": Y.numpy(), "tensor": Y, "one column": Y.numpy()[:, None]}
OTHER = {
    "target_transform": (Y + 1).tolist(),
    "another length": Y[:-1],
    "names": [f"class {y}" for y in Y.tolist()],
    "one class is another": torch.where(Y == 4, 3, Y),
    "one number": 5,
    "a table": np.zeros((N, 7)),
    "unlabelled": np.full(N, -1),
}


@pytest.mark.parametrize("kept", AGREE.values(), ids=AGREE)
@pytest.mark.parametrize("name", ["targets", "labels"])
def test_attributes_that_agree_are_used(kept, name):
    reads = []
    rows = as_rows(Items(lambda i: (reads.append(i), pair(i))[1], **{name: kept}))
    assert torch.equal(rows.labels, Y)
    assert len(reads) < 100
    assert rows.notes == ()


@pytest.mark.parametrize("kept", OTHER.values(), ids=OTHER)
def test_items_win_over_attributes(kept):
    rows = as_rows(Items(pair, targets=kept))
    assert torch.equal(rows.labels, Y)


def test_a_note_says_that_an_attribute_differs():
    (note,) = as_rows(Items(pair, labels=(Y + 1).tolist())).notes
    assert note == "`labels` of `train` differs from the labels of its items, which count"


def test_an_attribute_that_raises_is_no_attribute():
    class Lazy(Items):
        @property
        def targets(self):
            raise RuntimeError("not loaded")

    assert torch.equal(as_rows(Lazy(pair)).labels, Y)


def test_a_subset_reads_its_own_rows_only():
    def make(i):
        assert i % 2, "read a row that the subset leaves out"
        return pair(i)

    rows = as_rows(Subset(Items(make), range(1, N, 2)))
    assert rows.ids[:2] == ("1", "3")
    assert torch.equal(rows.batch(torch.tensor([1]))[0], X[[3]])


@pytest.mark.parametrize("base", [TensorDataset(X, Y), Items(pair)], ids=["tensors", "items"])
@pytest.mark.parametrize(
    ("indices", "words"),
    [
        (np.arange(N) < 200, "a mask of truth values.*nonzero"),
        ((torch.arange(N) < 200).tolist(), "a mask of truth values"),
        ([0, N], f"positions below {N}, got {N}"),
        ([0.5], "whole numbers"),
        (np.array([[0], [1]]), "whole numbers"),
        (["a"], "texts such as 'a'"),
    ],
)
def test_subsets_by_anything_but_positions_are_refused(base, indices, words):
    with pytest.raises(DataError, match=words):
        as_rows(Subset(base, indices))


def test_negative_positions_of_a_subset_count_from_the_end():
    assert as_rows(Subset(TensorDataset(X, Y), [-1, 0])).ids == (str(N - 1), "0")


FORMS = {
    "more entries": (lambda i: (X[i], int(Y[i]), i, "a.png"), "hold 4 entries: entry 0"),
    "one-hot": (lambda i: (X[i], np.eye(5)[Y[i]]), "one-hot rows"),
    "whole floats": (lambda i: (X[i], float(Y[i])), "fractions without a remainder"),
    "one column": (lambda i: (X[i], Y[i : i + 1]), None),
    "image": (lambda i: {"image": X[i], "label": int(Y[i])}, None),
    "texts beside": (lambda i: {"x": X[i], "labels": int(Y[i]), "path": "a.png"}, "texts: path"),
    "digits": (lambda i: (X[i], str(int(Y[i]))), "numbers written as text"),
    "names": (lambda i: (X[i], "abcde"[Y[i]]), "names of 5 classes, numbered in sorted order"),
}


@pytest.mark.parametrize(("make", "words"), FORMS.values(), ids=FORMS)
def test_items_of_other_forms_are_read_and_said(make, words):
    rows = as_rows(Items(make))
    inputs, labels = rows.batch(torch.arange(N))
    assert torch.equal(inputs, X)
    assert torch.equal(labels, Y)
    assert torch.equal(rows.labels, Y)
    assert (words is None) == (not rows.notes)
    assert words is None or words in rows.notes[0]


def test_dict_items_of_transformers_keep_their_names():
    rows = as_rows(Items(lambda i: {"pixel_values": X[i], "labels": int(Y[i])}))
    assert set(rows.batch(torch.arange(2))[0]) == {"pixel_values"}


def test_input_and_label_can_be_named():
    make = lambda i: {"scan": X[i], "age": i, "finding": int(Y[i])}  # noqa: E731
    rows = as_rows(Items(make), fields=Fields(input="scan", label="finding"))
    assert torch.equal(rows.batch(torch.arange(N))[0], X)
    turned = as_rows(Items(lambda i: (int(Y[i]), X[i])), fields=Fields(input=1, label=0))
    assert torch.equal(turned.labels, Y)
    table = {"scan": X, "finding": Y}
    assert torch.equal(as_rows(table, fields=Fields("scan", "finding")).labels, Y)
    with pytest.raises(DataError, match="without entry 7"):
        as_rows(Items(pair), fields=Fields(label=7))
    with pytest.raises(DataError, match="the input 'scan', got keys"):
        as_rows(Items(lambda i: {"x": X[i], "y": 1}), fields=Fields(input="scan"))


def test_ids_inside_dict_items_are_read():
    make = lambda i: {"x": X[i], "label": int(Y[i]), "id": f"p{i}"}  # noqa: E731
    rows = as_rows(Items(make, targets=Y))
    assert rows.ids[:2] == ("p0", "p1")
    assert rows.given_ids
    assert as_rows(Items(make), ids=range(N)).ids[:2] == ("0", "1")
    some = Items(lambda i: {"x": X[i], "label": 0} | ({"id": i} if i else {}))
    with pytest.raises(TaskError, match="an id in every item of `train`, got none in row 0"):
        as_rows(some)
    with pytest.raises(TaskError, match="duplicate id 'p'"):
        as_rows(Items(lambda i: {"x": X[i], "label": 0, "id": "p"}))


def bad(i, at=218):
    return (torch.zeros(4) if i == at else X[i]), int(Y[i])


def not_finite(i):
    return (X[i] / 0 if i == 218 else X[i]), int(Y[i])


def unreadable(i):
    if i == 218:
        raise OSError("truncated file")
    return pair(i)


def of_another_type(i):
    return (X[i].to(torch.uint8) if i == 218 else X[i]), int(Y[i])


ONE_BAD = {
    "shape": (bad, r"\(4,\) float32 in row p218 where others have \(3,\)"),
    "not finite": (not_finite, "NaN or infinity in row p218"),
    "unreadable": (unreadable, "give row p218, but reading it raised OSError: truncated file"),
    "type": (of_another_type, "uint8 in row p218"),
    "no label": (lambda i: (X[i], None if i == 218 else 0), r"got None.*\(Row p218.\)"),
}


@pytest.mark.parametrize(("make", "words"), ONE_BAD.values(), ids=ONE_BAD)
def test_one_bad_row_is_named_by_its_id(make, words):
    with pytest.raises(DataError, match=words):
        as_rows(Items(make), ids=[f"p{i}" for i in range(N)])


@pytest.mark.parametrize(("make", "words"), list(ONE_BAD.values())[:4], ids=list(ONE_BAD)[:4])
def test_one_bad_row_behind_labels_at_hand_is_named_when_read(make, words):
    rows = as_rows(Items(make, targets=Y), ids=[f"p{i}" for i in range(N)])
    with pytest.raises(DataError, match=words):
        list(rows.select(torch.arange(N - 1, -1, -1)).batches(16))


def test_the_first_row_may_be_the_odd_one():
    with pytest.raises(DataError, match=r"in row 0 where others have \(3,\)"):
        as_rows(Items(lambda i: bad(i, at=0)))
