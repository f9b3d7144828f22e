"""Equal inputs are found by content: among the records, and among what stays."""

import pytest
import torch

from expunge.data.views import as_rows
from expunge.errors import DataError
from expunge.methods.prune.twins import find_twins
from expunge.testing import ToyData

X = torch.arange(12.0).view(6, 2)
Y = torch.tensor([0, 1, 0, 1, 0, 1])


def _rows(*places, labels=None):
    """Forget rows with the content of these rows of X."""
    chosen = list(places)
    return as_rows((X[chosen], Y[chosen] if labels is None else torch.tensor(labels)))


def test_records_of_one_content_are_a_group():
    found = find_twins(_rows(3, 0, 3, 2, 0), None)
    assert found.groups == ([0, 2], [1, 4], [3])
    assert found.retained == {}


def test_every_copy_of_a_record_knows_the_first_row_that_stays():
    found = find_twins(_rows(3, 0, 3), _rows(1, 3, 5, 3))
    assert found.groups == ([0, 2], [1])
    assert found.retained == {0: 1, 2: 1}


def test_named_inputs_are_compared_as_a_whole():
    left, right = X.clone(), X.flip(0).clone()
    left[4], right[4] = left[0], right[0]
    left[5] = left[0]
    rows = as_rows(ToyData({"left": left, "right": right}, torch.zeros(6).long()))
    found = find_twins(rows.select(torch.tensor([0])), rows.select(torch.tensor([3, 5, 4])))
    assert found.retained == {0: 2}


def test_one_input_with_two_labels_is_refused():
    with pytest.raises(DataError, match=r"got 1 and 0 for the same input, within the forget set\."):
        find_twins(_rows(3, 0, 3, labels=[1, 0, 0]), None)
    with pytest.raises(DataError, match=r"in the forget set and what stays\. Correct the data"):
        find_twins(_rows(3, 0), _rows(1, 3, labels=[1, 0]))


def test_labels_of_rows_that_stay_are_not_our_matter():
    assert find_twins(_rows(3), _rows(0, 0, labels=[0, 1])).retained == {}
