"""A sample of images in which every class has its share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def stratified(labels: Sequence[int], limit: int | None, seed: int) -> list[int]:
    """The places of `limit` images, in order; all places if there are not more.

    Images are put in a random order within each class, and classes one after another. Then every k-th is taken, from a
    random start, where k need not be whole. So each image is taken with the same chance, and each class has its share
    of the sample to within one image. The mean of the sample is thus an estimate of that of all images, without
    weights. Its error is not larger than that of a plain sample, so Wilson's interval holds.
    """
    count = len(labels)
    if limit is None or limit >= count:
        return list(range(count))
    random = np.random.default_rng(seed)
    order = np.lexsort((random.random(count), np.asarray(labels)))
    steps = np.floor((np.arange(limit) + random.random()) * (count / limit)).astype(np.int64)
    return sorted(int(place) for place in order[np.minimum(steps, count - 1)])
