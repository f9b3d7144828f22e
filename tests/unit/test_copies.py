"""Copies of rows: the same however they are read, of the form they came in, and by the book."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from expunge.data.copies import (
    NOISE,
    checked_views,
    noisy,
    refuse_unfit_views,
    spread_of,
    viewed,
)
from expunge.data.digests import content_digests
from expunge.data.images import image_views
from expunge.data.rows import Rows
from expunge.data.views import as_rows
from expunge.errors import DataError

N = 40
LABELS = torch.arange(N) % 3
TOKENS = torch.randint(0, 50, (N, 6), generator=torch.Generator().manual_seed(7))


def _draw(*shape, dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    return (scale * torch.randn(N, *shape, generator=generator, dtype=torch.float64)).to(dtype)


def _named(**parts):
    return Rows(
        LABELS,
        tuple(str(i) for i in range(N)),
        torch.arange(N),
        lambda i: ({name: value[i] for name, value in parts.items()}, LABELS[i]),
    )


FORMS = {
    "table": as_rows((_draw(5), LABELS)),
    "table in double": as_rows((_draw(5, dtype=torch.float64), LABELS)),
    "table in half": as_rows((_draw(5, dtype=torch.bfloat16), LABELS)),
    "numbers": as_rows((_draw(), LABELS)),
    "grey images": as_rows((_draw(4, 6), LABELS)),
    "images": as_rows((_draw(3, 4, 6), LABELS)),
    "named": _named(image=_draw(3, 4, 6), tokens=TOKENS, level=_draw(2)),
    "tokens": as_rows((TOKENS, LABELS)),
}
FLOATING = {name: rows for name, rows in FORMS.items() if name != "tokens"}


def _all(rows, size=64, order=None):
    """Everything that rows give, one dict of stacked tensors."""
    parts = []
    for inputs, _ in rows.batches(size, order):
        parts.append({"": inputs} if isinstance(inputs, torch.Tensor) else inputs)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


# noise


@pytest.mark.parametrize("rows", FLOATING.values(), ids=FLOATING)
def test_a_noisy_copy_has_the_form_of_the_rows(rows):
    copies = noisy(rows, spread_of(rows), seed=0)
    assert (copies.ids, len(copies)) == (rows.ids, len(rows))
    assert torch.equal(copies.labels, rows.labels)
    old, new = _all(rows), _all(copies)
    assert old.keys() == new.keys()
    for name, value in old.items():
        assert (new[name].shape, new[name].dtype) == (value.shape, value.dtype)
        assert torch.equal(new[name], value) is not value.is_floating_point()
        assert torch.equal(value, _all(rows)[name])


@given(st.integers(1, N), st.permutations(range(N)), st.sampled_from(sorted(FLOATING)))
def test_the_noise_of_a_row_depends_on_that_row_alone(size, order, form):
    rows, places = FLOATING[form], torch.tensor(order)
    copies = noisy(rows, spread_of(rows), seed=3)
    whole = _all(copies)
    assert _same(_all(copies, size, places), {k: v[places] for k, v in whole.items()})
    few = places[: max(1, size // 2)]
    assert _same(_all(copies.select(few)), {k: v[few] for k, v in whole.items()})
    apart = noisy(rows.select(few), spread_of(rows), seed=3)
    assert _same(_all(apart), {k: v[few] for k, v in whole.items()})


def test_equal_rows_under_other_numbers_have_equal_noise():
    x = _draw(5)
    rows, moved = as_rows((x, LABELS)), as_rows((x.flip(0), LABELS.flip(0)))
    spread = spread_of(rows)
    first, second = (_all(noisy(r, spread, seed=0))[""] for r in (rows, moved))
    assert torch.equal(first, second.flip(0))


def test_each_seed_and_each_row_has_noise_of_its_own():
    rows = as_rows((torch.arange(N).float().repeat(7, 1).T.contiguous(), LABELS))
    spread = torch.ones(7)
    first, second = (_all(noisy(rows, spread, seed=s))[""] for s in (0, 1))
    noise = first - _all(rows)[""]
    assert len(noise.unique(dim=0)) == N
    assert not bool((first == second).any())


def test_noise_is_a_tenth_of_the_spread_and_normal():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=generator, dtype=torch.float64) * torch.tensor([1, 10, 0.0])
    rows = as_rows((x, torch.zeros(400, dtype=torch.int64)))
    spread = spread_of(rows)
    noise = _all(noisy(rows, spread, seed=0))[""] - x
    assert NOISE == 0.1
    torch.testing.assert_close(noise.std(0)[:2], 0.1 * spread[:2], rtol=0.1, atol=0.0)
    assert bool((noise.mean(0)[:2].abs() < 0.02 * spread[:2]).all())
    assert torch.equal(noise[:, 2], torch.zeros(400, dtype=torch.float64))


def test_no_row_at_all_is_read_as_none():
    copies = noisy(FORMS["table"], torch.ones(5), seed=0)
    inputs, labels = copies.batch(torch.arange(0))
    assert (tuple(inputs.shape), len(labels)) == ((0, 5), 0)


def test_no_global_state_is_touched():
    before = torch.random.get_rng_state()
    for rows in FLOATING.values():
        _all(noisy(rows, spread_of(rows), seed=0))
    refuse_unfit_views(image_views, FORMS["images"], "forget")
    assert torch.equal(torch.random.get_rng_state(), before)


# spread


@pytest.mark.parametrize(
    ("form", "axes", "shape"),
    [
        ("table", 0, (5,)),
        ("numbers", 0, ()),
        ("grey images", None, ()),
        ("images", (0, 2, 3), (3, 1, 1)),
    ],
)
def test_spread_is_the_standard_deviation(form, axes, shape):
    rows = FORMS[form]
    found, wanted = spread_of(rows), _all(rows)[""].double().numpy().std(axes)
    assert tuple(found.shape) == shape
    np.testing.assert_allclose(found.numpy().reshape(np.shape(wanted)), wanted, rtol=1e-10)


def test_spread_of_named_inputs_leaves_whole_numbers_out():
    found = spread_of(FORMS["named"])
    assert set(found) == {"image", "level"}
    assert torch.equal(found["image"], spread_of(FORMS["images"]))
    assert spread_of(FORMS["tokens"]) is None
    assert spread_of(_named(tokens=TOKENS)) is None
    assert spread_of() is None


def test_spread_is_that_of_several_rows_together():
    rows = as_rows((_draw(5) + 100 * LABELS[:, None], LABELS))
    parts = [rows.select(torch.arange(c, N, 3)) for c in range(3)]
    torch.testing.assert_close(spread_of(*parts), spread_of(rows))


def test_spread_reads_two_thousand_rows_at_most_and_always_the_same():
    x = torch.arange(5000.0)[:, None]
    read = []

    def rows():
        labels = torch.zeros(5000, dtype=torch.int64)
        kept = as_rows((x, labels))
        return Rows(labels, kept.ids, kept.index, lambda i: (read.append(i), kept.read(i))[1])

    first = spread_of(rows(), rows())
    assert 1000 < len(torch.cat(read)) == 2000
    assert torch.equal(first, spread_of(rows(), rows()))
    assert float(first) == pytest.approx(float(x.std()), rel=0.05)


# views


def _by_loops(image, view):
    """The views of one image (h, w), pixel by pixel: mirrored, left, right, up, down."""
    h, w = image.shape
    out = np.empty_like(image)
    for i in range(h):
        for j in range(w):
            down, right = [(0, 0), (0, 2), (0, -2), (2, 0), (-2, 0)][view]
            row, column = min(max(i + down, 0), h - 1), min(max(j + right, 0), w - 1)
            out[i, j] = image[i, w - 1 - j] if view == 0 else image[row, column]
    return out


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (1, 2, 1), (1, 8, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_image_views_are_those_of_slow_loops(shape, dtype):
    x = _draw(*shape, scale=40.0).abs().to(dtype)
    made = image_views(x)
    assert len(made) == 5
    for number, view in enumerate(made):
        assert (view.shape, view.dtype) == (x.shape, dtype)
        for image, found in zip(
            x.reshape(-1, *shape[-2:]), view.reshape(-1, *shape[-2:]), strict=True
        ):
            np.testing.assert_array_equal(found.numpy(), _by_loops(image.numpy(), number))


def test_image_views_of_named_inputs_leave_the_rest():
    inputs, _ = FORMS["named"].batch(torch.arange(4))
    plain = image_views(inputs["image"])
    for view, image in zip(image_views(inputs), plain, strict=True):
        assert torch.equal(view["image"], image)
        assert list(view) == list(inputs)
        assert all(torch.equal(view[k], inputs[k]) for k in ("tokens", "level"))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (torch.ones(2, 5), "got rows of shape (5,). Name a function that makes views of such rows"),
        (torch.ones(2, 3, 4, 5, 6), "got rows of shape (3, 4, 5, 6)."),
        (torch.ones(2, 32, 32, 3), "got rows of shape (32, 32, 3), with the channels last."),
        ({"a": torch.ones(2, 5)}, "got 0: 'a' (5,). Name a function"),
        (
            {"a": torch.ones(2, 5, 5), "b": torch.ones(2, 3, 4, 4)},
            "one image tensor among the named inputs for `views` = \"images\", got 2: 'a' (5, 5),",
        ),
        ({"a": torch.ones(2, 32, 32, 1)}, "rows of shape 'a' (32, 32, 1), with the channels last"),
    ],
)
def test_image_views_refuse_what_is_no_image(inputs, words):
    with pytest.raises(DataError, match=r"Expected .*image") as error:
        image_views(inputs)
    assert words in str(error.value)
    assert 'or "none"' in str(error.value)


def _twice(inputs):
    if isinstance(inputs, dict):
        return [{k: v + v for k, v in inputs.items()}, inputs]
    return [inputs + inputs, inputs]


@given(st.integers(1, N), st.permutations(range(N)), st.sampled_from(sorted(FORMS)))
def test_views_are_rows_read_on_demand(size, order, form):
    rows, places = FORMS[form], torch.tensor(order)
    first, second = viewed(rows, _twice)
    assert first.ids == second.ids == rows.ids
    assert torch.equal(first.labels, rows.labels)
    assert _same(_all(second, size, places), _all(rows, N, places))
    assert _same(_all(first, size, places), {k: v + v for k, v in _all(rows, N, places).items()})
    refuse_unfit_views(_twice, rows, "forget")


def test_views_and_noise_go_together():
    rows = FORMS["images"]
    mirrored = viewed(rows, image_views)[0]
    copies = noisy(mirrored, spread_of(rows), seed=0)
    assert content_digests(copies) != content_digests(mirrored) != content_digests(rows)
    assert _same(_all(copies, 7), _all(copies))


@pytest.mark.parametrize("spec", [None, "none"])
def test_no_views(spec):
    assert checked_views(spec) is None


def test_named_views():
    assert checked_views("images") is image_views
    assert checked_views(_twice) is _twice


@pytest.mark.parametrize("spec", ["image", "mypkg.data:views", 3, True, ["images"]])
def test_other_views_are_refused(spec):
    with pytest.raises(
        DataError, match='Expected `views` to be "images", "none" or a fun'
    ) as error:
        checked_views(spec)
    assert f"got {spec!r}" in str(error.value)


def _random(inputs):
    return [inputs + torch.rand_like(inputs)]


def _growing():
    counter = iter(range(1000))
    return lambda inputs: [inputs] * (1 + next(counter))


def _raising(inputs):
    raise ValueError("no such axis")


@pytest.mark.parametrize(
    ("views", "words"),
    [
        (lambda x: x.flip(-1), "to return a list of batches, one a view, got Tensor. Return [view"),
        (lambda x: (x for _ in range(2)), "one a view, got generator"),
        (lambda x: [], "one a view, got an empty list"),
        (lambda x: None, "one a view, got NoneType"),
        (lambda x: [x, x.numpy()], "every view to be a tensor, like the batch, got ndarray as vi"),
        (lambda x: [{"x": x}], "to be a tensor, like the batch, got dict as view 0"),
        (lambda x: [x, x[:1]], "of the batch, got (1, 5) and torch.float32 in view 1. One view"),
        (lambda x: [x.double()], "type torch.float32 of the batch, got (8, 5) and torch.float64"),
        (lambda x: [x, x / 0], "Expected finite views, got NaN or infinity in view 1"),
        (_random, "making those of 8 rows of `forget` twice gave different values"),
        (_growing(), "making those of 8 rows of `forget` twice gave different values"),
        (_raising, "to make views of a batch, but it raised ValueError: no such axis. Fix the f"),
        (image_views, "(5,). Name a function that makes views of such rows"),
    ],
)
def test_views_that_do_not_serve_are_refused(views, words):
    with torch.random.fork_rng(), pytest.raises(DataError, match=r"Expected .*view") as error:
        refuse_unfit_views(views, FORMS["table"], "forget")
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("views", "words"),
    [
        (lambda x: [x["image"]], "every view to be a dict of tensors, like the batch, got Tensor"),
        (lambda x: [{"image": x["image"]}], "to hold the inputs ['image', 'level', 'tokens'], got"),
        (lambda x: [x | {"level": 1.0}], "to hold tensors, got float for 'level' in view 0"),
        (lambda x: [x | {"tokens": x["level"]}], "and type torch.int64 of the batch, got (8, 2)"),
    ],
)
def test_views_of_named_inputs_keep_their_form(views, words):
    with pytest.raises(DataError, match="every view to") as error:
        refuse_unfit_views(views, FORMS["named"], "holdout")
    assert words in str(error.value)
    assert "(Tried on rows of `holdout`.)" in str(error.value)


def test_views_are_checked_whenever_they_are_read():
    def halves(inputs):
        return [inputs] * (2 if len(inputs) == 1 else 3)

    first, _ = viewed(FORMS["table"], halves)
    with pytest.raises(DataError, match="as many views for every batch, got 3 after 2"):
        first.batch(torch.arange(4))

    def broken(inputs):
        return [inputs if len(inputs) == 1 else inputs * torch.inf]

    with pytest.raises(DataError, match="Expected finite views"):
        viewed(FORMS["table"], broken)[0].batch(torch.arange(4))


def test_a_function_that_changes_its_batch_changes_no_data():
    x = _draw(5)

    def negative(inputs):
        return [inputs.neg_()]

    rows = as_rows((x, LABELS))
    refuse_unfit_views(negative, rows, "forget")
    assert torch.equal(viewed(rows, negative)[0].batch(torch.arange(3))[0], -_draw(5)[:3])
    assert torch.equal(x, _draw(5))
