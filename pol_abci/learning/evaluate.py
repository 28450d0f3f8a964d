"""How many images weights classify rightly, and the sample that progress is judged by.

Protocol section 6. Each image has its own scale, so results do not depend on batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pol_abci.learning.sampling import to_inputs
from pol_abci.rules.seed import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from pol_abci.learning.task import Task

IMAGES_AT_ONCE = 512
IMAGES_BETWEEN = 128
"""Where somebody wants to look up in between: a small model needs twice the time with 64."""


def draw_evaluation_sample(task: Task, seed: bytes) -> list[int]:
    """E_n: ordinals of the test set, from the seed s_n of a generation."""
    count = task.params.walk.evaluation_samples
    return Stream("evaluation", seed).draw_distinct(count, len(task.test))


def count_correct(
    task: Task,
    weights: Tensor,
    ordinals: Sequence[int] | None = None,
    between_images: Callable[[], None] | None = None,
) -> int:
    """c(W) over the given ordinals of E, or all of E.

    The class is the lowest of those with the greatest logit. An image that makes a value which is
    not finite, or reaches 2^60, counts as wrong. `weights` may lie on any device. `between_images`
    is called after each 128; it may raise to leave.
    """
    weights = weights.to(task.device)
    images, labels = task.test.images, task.test.labels
    if ordinals is not None:
        images, labels = images[ordinals], labels[ordinals]
    correct = 0
    at_once = IMAGES_AT_ONCE if between_images is None else IMAGES_BETWEEN
    for start in range(0, len(labels), at_once):
        part = slice(start, start + at_once)
        inputs = to_inputs(images[part], task.test.pixel_divisor).to(task.device)
        logits, is_valid = task.model.evaluate(weights, inputs, task.params.arithmetic.forward_bits)
        # numpy's argmax takes the first of equals, which torch's does not promise.
        classes = np.argmax(logits.cpu().numpy(), axis=1)
        is_right = (classes == labels[part]) & is_valid.cpu().numpy()
        correct += int(np.count_nonzero(is_right))
        if between_images is not None:
            between_images()
    return correct
