"""Images as they are and a little beside: mirrored, and shifted by two pixels.

Views that keep the label of most photographs; not that of letters, digits or texts, which are not
themselves in a mirror. Who asks for them says that they do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.data.rows import Inputs
from expunge.errors import DataError

__all__ = ["image_views"]

_SHIFT = 2
_CURE = 'Name a function that makes views of such rows, or "none"'


def image_views(inputs: Inputs) -> tuple[Inputs, ...]:
    """The mirror image, and the image two pixels further left, right, up and down.

    For images (n, h, w) or (n, c, h, w), alone or as the only such tensor of named inputs. What a
    shift leaves open is filled with the pixels of the edge, which are of the data's own range
    however that is normalised. Raises DataError for other inputs.
    """
    if isinstance(inputs, Tensor):
        return _moved(_image(inputs, ""))
    images = {name: value for name, value in inputs.items() if value.ndim in (3, 4)}
    if len(images) != 1:
        shown = ", ".join(f"{name!r} {_shape(value)}" for name, value in inputs.items())
        raise DataError(
            'Expected one image tensor among the named inputs for `views` = "images", got '
            f"{len(images)}: {shown}. {_CURE}."
        )
    name, image = next(iter(images.items()))
    return tuple({**inputs, name: view} for view in _moved(_image(image, f"{name!r} ")))


def _image(value: Tensor, name: str) -> Tensor:
    if value.ndim not in (3, 4):
        raise DataError(
            'Expected images (n, h, w) or (n, c, h, w) for `views` = "images", got rows of shape '
            f"{name}{_shape(value)}. {_CURE}."
        )
    if value.ndim == 4 and value.shape[3] in (1, 3) and min(value.shape[1:3]) >= 8:
        raise DataError(
            'Expected images (n, c, h, w) for `views` = "images", got rows of shape '
            f"{name}{_shape(value)}, with the channels last. {_CURE}."
        )
    return value


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape[1:])


def _moved(image: Tensor) -> tuple[Tensor, ...]:
    shifts = [(axis, step) for axis in (-1, -2) for step in (_SHIFT, -_SHIFT)]
    return (image.flip(-1), *(_shifted(image, axis, step) for axis, step in shifts))


def _shifted(image: Tensor, axis: int, step: int) -> Tensor:
    """What was at i + step comes to i; beyond the edge stands the edge."""
    last = image.shape[axis] - 1
    places = (torch.arange(last + 1, device=image.device) + step).clamp(0, last)
    return image.index_select(axis, places)
