"""One gate for arrays: accepted where the meaning is plain, and said; else refused with a cure."""

import os
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import Subset, TensorDataset

import expunge
from expunge.data import Fields, as_rows
from expunge.errors import DataError, ExpungeError

X = torch.arange(12.0).reshape(6, 2)
Y = torch.tensor([0, 1, 2, 0, 1, 2])
IDS = [f"p{i}" for i in range(6)]
NAMES = np.array(["ant", "bee", "cat"])[Y.numpy()]


class Frame:
    """As much of a data frame as is asked of it."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def to_numpy(self, zero_copy_only=True):
        return self.values


class Arrow(Frame):
    """An Arrow column: no view without a copy."""

    def to_numpy(self, zero_copy_only=True):
        if zero_copy_only:
            raise ValueError("Needed to copy 1 chunks with 0 nulls, but zero_copy_only was True")
        return self.values


class Table(Frame):
    """An Arrow table: no `to_numpy`."""

    to_numpy = None

    def to_pandas(self):
        return Frame(self.values)


class NAType:
    """What pandas puts where a value is missing."""


LABELS = {
    "numpy": (Y.numpy(), None),
    "uint8": (Y.numpy().astype("uint8"), None),
    "uint16": (Y.numpy().astype("uint16"), None),
    "uint64": (Y.numpy().astype("uint64"), None),
    "torch uint16": (Y.to(torch.uint16), None),
    "torch uint64": (Y.to(torch.uint64), None),
    "big endian": (Y.numpy().astype(">i4"), None),
    "reversed": (Y.flip(0).numpy()[::-1], None),
    "objects": (Y.numpy().astype(object), None),
    "list": (Y.tolist(), None),
    "list of numpy": (list(Y.numpy()), None),
    "list of tensors": (list(Y), None),
    "series": (Frame(Y.numpy()), None),
    "nullable series": (Frame(Y.numpy().astype(object)), None),
    "categorical": (Frame(NAMES.astype(object)), "names of 3 classes, numbered in sorted order"),
    "Arrow": (Arrow(Y.numpy()), None),
    "Arrow table": (Table(Y.numpy()[:, None]), "one column"),
    "one column": (Y[:, None], "one column"),
    "one-hot": (torch.eye(3)[Y], "one-hot rows"),
    "whole floats": (Y.double(), "fractions without a remainder"),
    "half floats": (Y.bfloat16(), "fractions without a remainder"),
    "digits": (np.array(["0", "1", "2", "0", "1", "2"]), "numbers written as text"),
    "names": (NAMES, "names of 3 classes"),
    "bytes": (NAMES.astype("S"), "names of 3 classes"),
    "list of names": (NAMES.tolist(), "names of 3 classes"),
}


@pytest.mark.parametrize(("labels", "words"), LABELS.values(), ids=LABELS)
def test_labels_are_read_as_what_they_plainly_are(labels, words):
    rows = as_rows((X, labels))
    assert torch.equal(rows.labels, Y)
    assert rows.labels.dtype is torch.int64
    assert (words is None) == (rows.notes == ())
    assert words is None or words in rows.notes[0]


def test_ten_digits_are_numbers_and_not_sorted_as_text():
    texts = [str(i) for i in range(12)]
    assert as_rows((torch.zeros(12, 1), texts)).labels.tolist() == list(range(12))


REFUSED_LABELS = {
    "truth values": (Y > 0, "got truth values.*astype"),
    "fractions": (Y + 0.5, "one integer a row, got 0.5 in row p0"),
    "NaN": (np.where(np.arange(6) == 4, np.nan, 1.0), "a label for every row.*nan in row p4"),
    "None": ([0, 1, None, 0, 1, 2], "a missing value in row p2"),
    "pandas NA": (np.array([0, 1, 2, 0, NAType(), 2], dtype=object), "missing value in row p4"),
    "unlabelled": (torch.tensor([0, 1, 2, 0, -1, 2]), "from 0, got -1 in row p4"),
    "multi-label": (torch.ones(6, 3, dtype=torch.int64), "one integer a row.*Multi-label"),
    "soft": (torch.full((6, 2), 0.5), r"Probabilities: pass `.argmax\(1\)`"),
    "both": ([0, "ant", 1, 0, 1, 2], "numbers or names|numbers, got objects"),
    "dates": (np.arange(6).astype("M8[s]"), "got dtype datetime64"),
    "complex": (Y.numpy() + 1j, "got dtype complex128"),
    "records": (np.zeros(6, dtype=[("a", int)]), "got dtype"),
    "objects": ([object()] * 6, "objects of type object"),
    "too large": (np.full(6, 2**63, dtype="uint64"), "below"),
    "ragged": ([[0], [1, 2], [0], [0], [0], [0]], r"got \(2,\) in row p1"),
    "a data set": (TensorDataset(X, Y), "a pair of data sets"),
    "nothing": (None, "to be an array, got None"),
    "sparse": (torch.eye(6).to_sparse(), "a tensor sparse. Pass its `.to_dense"),
}


@pytest.mark.parametrize(("labels", "words"), REFUSED_LABELS.values(), ids=REFUSED_LABELS)
def test_labels_without_a_plain_meaning_are_refused(labels, words):
    with pytest.raises(DataError, match=words):
        as_rows((X, labels), ids=IDS)


INPUTS = {
    "frame": Frame(X.numpy()),
    "nullable frame": Frame(X.numpy().astype(object)),
    "Arrow": Arrow(X.numpy()),
    "Arrow table": Table(X.numpy()),
    "list": X.tolist(),
    "list of tensors": list(X),
    "list of arrays": list(X.numpy()),
    "objects": X.numpy().astype(object),
    "big endian": X.numpy().astype(">f4"),
    "reversed": X.flip(0).numpy()[::-1],
    "requires grad": X.clone().requires_grad_(),
    "long double": X.numpy().astype(np.longdouble),
    "array of arrays": None,
}
INPUTS["array of arrays"] = np.empty(6, dtype=object)
INPUTS["array of arrays"][:] = list(X.numpy())


@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
def test_inputs_are_read_as_numbers(inputs):
    read, _ = as_rows((inputs, Y)).batch(torch.arange(6))
    assert torch.equal(read.float(), X)
    assert not read.requires_grad


def test_read_only_memory_is_not_written_and_warns_of_nothing():
    array = X.numpy().copy()
    array.flags.writeable = False
    assert torch.equal(as_rows((array, Y)).batch(torch.arange(6))[0], X)


REFUSED_INPUTS = {
    "texts": (np.array([["a"] * 2] * 6), "to be numbers, got texts such as 'a'"),
    "one number": (np.float32(1), "got a single number"),
    "nothing": (None, "to be an array, got None"),
    "ragged": ([[1.0], [1.0, 2.0], [3.0]], r"got \(2,\) in row p1 where others have \(1,\)"),
    "ragged tensors": ([X[0], X[1], X[2, :1]], r"got \(1,\) in row p2"),
    "missing": (np.array([[1, 2], [3, None]], dtype=object), "missing value in row p1"),
    "NaN": (torch.where(X == 7, torch.nan, X), "NaN or infinity in row p3"),
    "infinity": (torch.where(X == 10, torch.inf, X), "NaN or infinity in row p5"),
    "masked": (np.ma.masked_equal(X.numpy(), 4), "missing value in row p2"),
    "complex": (torch.complex(X, X), "a tensor complex"),
    "meta": (X.to("meta"), "without data"),
    "dates": (np.zeros((6, 2), "M8[s]"), "got dtype datetime64"),
    "objects": (np.array([{}] * 6), "objects of type dict"),
    "empty mapping": ({}, "got an empty mapping"),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(("inputs", "words"), REFUSED_INPUTS.values(), ids=REFUSED_INPUTS)
def test_inputs_without_a_plain_meaning_are_refused(inputs, words):
    with pytest.raises(DataError, match=words):
        as_rows((inputs, Y), ids=IDS)


def test_a_mapping_may_hold_several_inputs():
    named = {"left": X, "right": X.numpy() * 2}
    for data in (({"left": X, "right": X * 2}, Y), {"x": named, "y": Y, "id": IDS}):
        inputs, labels = as_rows(data).batch(torch.tensor([4, 1]))
        assert torch.equal(inputs["right"], 2 * X[[4, 1]])
        assert torch.equal(labels, Y[[4, 1]])
    assert len(expunge.forget_ids({"x": named, "y": Y, "id": IDS}, ["p3"]).retain) == 5
    with pytest.raises(DataError, match="as many rows under each name, got left 6, right 5"):
        as_rows(({"left": X, "right": X[:5]}, Y))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((TensorDataset(X, Y), TensorDataset(X, Y)), "got a pair of data sets. Pass the training"),
        (Frame(X.numpy()), r"got Frame. Pass its columns: \(frame"),
        ({"x": X, "label": Y}, "arrays x and y, got .*label='label'"),
        (Subset((X, Y), np.arange(6) < 2), "a mask of truth values"),
    ],
    ids=["pair of data sets", "frame alone", "another name", "mask"],
)
def test_containers_are_refused_with_the_cure(data, words):
    with pytest.raises(DataError, match=words):
        as_rows(data)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("ant", "a list of names"),
        ([], "a list of names"),
        ([1, 2], "to be names, got 1"),
        (["ant", "ant"], "'ant' twice"),
        (["ant", "bee"], "among `classes` of the data, got 'cat' in row 2"),
    ],
)
def test_class_names_are_texts_each_once(classes, words):
    with pytest.raises(DataError, match=words):
        as_rows((X, NAMES), fields=Fields(classes=classes))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.sampled_from(
        [NAType(), Fraction(1, 2), np.float16(1), np.datetime64("2020"), torch.tensor(1)]
    ),
)
DTYPES = [
    "?",
    "i1",
    "u2",
    "u4",
    "u8",
    ">i4",
    "f2",
    "f4",
    "f8",
    "g",
    "c8",
    "S2",
    "U2",
    "O",
    "M8[s]",
    "V3",
]


@st.composite
def arrays(draw):
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    kind = np.dtype(draw(st.sampled_from(DTYPES)))
    if kind.kind == "O":
        array = np.empty(shape, dtype=object)
        for place in np.ndindex(shape):
            array[place] = draw(scalars)
    else:
        size = int(np.prod(shape)) * kind.itemsize
        array = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype=kind)
        array = array.reshape(shape)
    wrapped = draw(st.sampled_from([None, Frame, Arrow, Table, list, "tensor", "masked", "flip"]))
    if wrapped == "tensor":
        try:
            return torch.as_tensor(array.copy())
        except Exception:  # noqa: BLE001 - numpy has kinds that torch has not
            return array
    if wrapped == "masked":
        return np.ma.masked_array(array, mask=draw(st.booleans()))
    if wrapped == "flip":
        return array[::-1] if array.ndim else array
    return array if wrapped is None else (list(array) if wrapped is list and array.ndim else array)


anything = st.one_of(
    arrays(),
    scalars,
    st.lists(scalars, max_size=4),
    st.lists(st.lists(scalars, max_size=2), max_size=4),
    st.dictionaries(st.text(max_size=2), arrays(), max_size=2),
)
items = st.lists(
    st.one_of(
        scalars,
        st.tuples(anything, scalars),
        st.tuples(anything, anything, scalars),
        st.dictionaries(st.sampled_from(["x", "y", "label", "id", "image", "z"]), anything),
    ),
    max_size=4,
)


class Listed(torch.utils.data.Dataset):
    def __init__(self, rows, targets):
        self.rows, self.targets = rows, targets

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


data = st.one_of(
    anything,
    st.tuples(anything, anything),
    st.fixed_dictionaries({"x": anything, "y": anything}, optional={"id": anything}),
    items,
    st.builds(Listed, items, anything),
    st.builds(
        lambda base, where: Subset(base, where), st.builds(Listed, items, anything), anything
    ),
)
plain = st.one_of(st.just((X, Y)), st.just((X, NAMES)))
CASES = int(os.environ.get("EXPUNGE_FUZZ", "200"))


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(given_data=data, ids=st.one_of(st.none(), anything))
def test_whatever_is_brought_is_rows_or_a_typed_error(given_data, ids):
    try:
        rows = as_rows(given_data, ids=ids)
        if len(rows):
            rows.batch(torch.arange(len(rows)))
        assert len(rows) == len(rows.labels) == len(rows.ids) == len(set(rows.ids))
        assert not len(rows) or int(rows.labels.min()) >= 0
    except ExpungeError:
        return


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(train=plain, wanted=anything, maker=st.sampled_from(["classes", "indices", "ids", "fine"]))
def test_whatever_is_asked_for_is_a_request_or_a_typed_error(train, wanted, maker):
    makers = {
        "classes": expunge.forget_classes,
        "indices": expunge.forget_indices,
        "ids": expunge.forget_ids,
        "fine": lambda data, asked: expunge.forget_subclasses(data, asked, [0]),
    }
    try:
        task = makers[maker](train, wanted)
        assert 0 < len(task.forget) < 6
    except ExpungeError:
        return
