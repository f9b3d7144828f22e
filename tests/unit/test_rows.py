"""Rows: every accepted form of data reads the same; loaders, streams and bad labels are refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from expunge.data.digests import content_digests
from expunge.data.npz import read_npz
from expunge.data.views import as_rows
from expunge.errors import DataError, TaskError

X = torch.arange(12.0).reshape(6, 2)
Y = torch.tensor([0, 1, 2, 0, 1, 2])


class Pairs(Dataset):
    def __init__(self, x=X, y=Y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


class Dicts(Pairs):
    def __getitem__(self, i):
        return {"x": self.x[i], "label": int(self.y[i]), "id": i}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


FORMS = {
    "pair of tensors": (X, Y),
    "pair of arrays": [X.numpy(), Y.numpy().astype(np.uint8)],
    "mapping": {"x": X.numpy(), "y": Y.numpy()},
    "tensor data set": TensorDataset(X, Y),
    "data set of pairs": Pairs(),
    "data set of dicts": Dicts(),
    "subset": Subset(TensorDataset(torch.cat([X, X]), torch.cat([Y, Y])), list(range(6))),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_reads_the_same(form):
    rows = as_rows(form)
    inputs, labels = rows.batch(torch.tensor([4, 1]))
    assert torch.equal(inputs, X[[4, 1]])
    assert torch.equal(labels, Y[[4, 1]])
    assert rows.labels.dtype == torch.int64
    assert rows.ids == ("0", "1", "2", "3", "4", "5")


def test_named_inputs_stay_named():
    class Named(Pairs):
        def __getitem__(self, i):
            return {"left": self.x[i], "right": -self.x[i], "y": int(self.y[i])}

    inputs, labels = as_rows(Named()).batch(torch.tensor([2]))
    assert torch.equal(inputs["right"], -X[2:3])
    assert labels.tolist() == [2]
    item, label = as_rows(Named())[2]
    assert torch.equal(item["left"], X[2])
    assert label == 2


def test_own_ids_and_given_ids():
    table = {"x": X, "y": Y, "id": list("abcdef")}
    assert as_rows(table).ids == tuple("abcdef")
    assert as_rows(table, ids=range(10, 16)).ids == ("10", "11", "12", "13", "14", "15")
    assert as_rows(as_rows(table), ids=list("uvwxyz")).ids == tuple("uvwxyz")


def test_selecting_keeps_rows_labels_and_ids_together():
    rows = as_rows({"x": X, "y": Y, "id": list("abcdef")}).select(torch.tensor([5, 0, 3]))
    again = rows.select(torch.tensor([2, 0]))
    assert again.ids == ("d", "f")
    assert torch.equal(again.batch(torch.arange(2))[0], X[[3, 5]])
    assert len(rows) == 3
    with pytest.raises(IndexError):
        rows[3]


@given(n=st.integers(1, 30), size=st.integers(1, 40))
def test_batches_cover_every_row_once_in_order(n, size):
    rows = as_rows((torch.arange(float(n))[:, None], torch.zeros(n, dtype=torch.int64)))
    parts = [inputs for inputs, _ in rows.batches(size)]
    assert torch.equal(torch.cat(parts)[:, 0], torch.arange(float(n)))
    assert all(len(part) <= size for part in parts)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (DataLoader(Pairs()), "got a DataLoader"),
        (Stream(), "got an IterableDataset"),
        ({"x": X}, r"hold the arrays x and y, got \['x'\]"),
        ({"x": X, "y": Y[:5]}, "5 labels for 6 rows"),
        ((X, Y + 0.5), "one integer a row"),
        ((X, torch.ones(6, 6, dtype=torch.int64)), "Multi-label"),
        ((X, Y > 0), "one integer a row"),
        ((X, Y - 1), "class numbers from 0, got -1"),
        (TensorDataset(X), r"two tensors \(x, y\), got 1"),
        (7, "got int"),
        (Pairs(y=torch.stack([Y, Y], dim=1)), "Multi-label"),
    ],
)
def test_refused_by_message(data, words):
    with pytest.raises(DataError, match=words):
        as_rows(data)


def test_refusal_names_the_argument():
    with pytest.raises(DataError, match="`holdout`"):
        as_rows(DataLoader(Pairs()), argument="holdout")


@pytest.mark.parametrize(
    ("ids", "words"), [(list("abcdea"), "duplicate id 'a'"), (list("abc"), "3 ids for 6 rows")]
)
def test_bad_ids_are_refused(ids, words):
    with pytest.raises(TaskError, match=words):
        as_rows((X, Y), ids=ids)


def test_subset_with_a_row_twice_is_refused():
    with pytest.raises(TaskError, match="duplicate id '2'"):
        as_rows(Subset(TensorDataset(X, Y), [2, 3, 2]))


def test_data_set_that_raises_is_named_with_its_row():
    class Broken(Pairs):
        def __getitem__(self, i):
            if i == 3:
                raise OSError("no such file")
            return super().__getitem__(i)

    with pytest.raises(DataError, match=r"give row 3, but reading it raised OSError: no such file"):
        as_rows(Broken())


def test_rows_of_different_shapes_are_refused():
    class Ragged(Pairs):
        def __getitem__(self, i):
            return torch.zeros(i + 1), 0

    with pytest.raises(DataError, match="one shape"):
        as_rows(Ragged()).batch(torch.arange(2))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_no_rows_have_the_shape_of_the_others(form):
    nothing = as_rows(form).select(torch.zeros(0, dtype=torch.int64))
    inputs, labels = nothing.batch(torch.zeros(0, dtype=torch.int64))
    assert (tuple(inputs.shape), inputs.dtype) == ((0, 2), torch.float32)
    assert (tuple(labels.shape), labels.dtype) == ((0,), torch.int64)
    assert content_digests(nothing) == []


def test_no_rows_of_named_inputs_keep_their_names():
    class Named(Pairs):
        def __getitem__(self, i):
            return {"left": self.x[i], "right": self.x[i][:1], "label": int(self.y[i])}

    inputs, _ = as_rows(Named()).batch(torch.zeros(0, dtype=torch.int64))
    assert {name: tuple(t.shape) for name, t in inputs.items()} == {"left": (0, 2), "right": (0, 1)}


def test_labels_that_change_are_refused():
    class Moody(Pairs):
        labels_now = Y

        def __getitem__(self, i):
            return self.x[i], self.labels_now[i]

    data = Moody()
    rows = as_rows(data)
    data.labels_now = torch.zeros_like(Y)
    with pytest.raises(DataError, match="another label for row '1'"):
        rows.batch(torch.arange(2))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"x": 1.0}, "hold a label under"),
        ({"x": 1.0, "y": 1.5}, "one whole number as label a row in `train`, got 1.5"),
        ((1.0, torch.tensor(2.5)), "one whole number as label"),
        ((1.0, np.ones(3)), "Multi-label"),
        ((1.0, True), "one whole number"),
        ("text", "got str"),
        ((1,), "tuple of 1"),
    ],
)
def test_unreadable_items_are_refused(item, words):
    class Odd(Pairs):
        def __getitem__(self, i):
            return item

    with pytest.raises(DataError, match=words):
        as_rows(Odd())


def test_targets_spare_most_of_a_reading_pass():
    class Counted(Pairs):
        reads = 0

        def __init__(self):
            super().__init__(torch.arange(1000.0)[:, None], torch.arange(1000) % 4)
            self.targets = self.y.tolist()

        def __getitem__(self, i):
            type(self).reads += 1
            return super().__getitem__(i)

    rows = as_rows(Counted())
    assert Counted.reads <= 64 + 2 * 4 + 2 + 1
    assert torch.equal(rows.labels, torch.arange(1000) % 4)


def test_content_digests_see_content_dtype_and_names_only():
    plain = content_digests(as_rows((X, Y)))
    assert plain == content_digests(as_rows((X.clone(), Y.flip(0))), batch_size=2)
    assert len(set(plain)) == 6
    assert plain != content_digests(as_rows((X.double(), Y)))


def test_npz_round_trip_and_refusals(tmp_path):
    good = tmp_path / "good.npz"
    np.savez(good, x=X.numpy(), y=Y.numpy(), id=np.array(list("abcdef")))
    assert as_rows(read_npz(good)).ids == tuple("abcdef")
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, x=np.array([{}, {}], dtype=object), y=np.zeros(2))
    with pytest.raises(DataError, match="pickles and are refused"):
        read_npz(pickled)
    with pytest.raises(DataError, match="found none"):
        read_npz(tmp_path / "absent.npz")
    noise = tmp_path / "noise.npz"
    noise.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match="npz file of plain arrays"):
        read_npz(noise)
