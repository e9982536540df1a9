"""Statistics of many series of samples at once: those of one length lie in one array, a row a series. Pure.

A number that is computed here is the one that the same series has by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]  # (samples,) of one series, in their order
Rows = NDArray[np.float64]  # (series, samples)
BLOCK = 2**18  # numbers in an array that is computed at once


def series_of(samples: Sequence[float] | Samples) -> Samples:
    """One series as an array. Raises: ValueError if it is empty, or has a value that is not finite."""
    series = np.asarray(samples, dtype=np.float64)
    if series.ndim != 1 or not len(series):
        raise ValueError("a launch needs at least one sample")
    if not np.isfinite(series).all():
        raise ValueError("samples must be finite")
    return series


def by_length(series: Sequence[Samples], block: int = BLOCK) -> Iterator[tuple[NDArray[np.intp], Rows]]:
    """The series in arrays of at most `block` numbers, or of one series: their places, and a row for each."""
    lengths = np.fromiter(map(len, series), np.intp, len(series))
    order = np.argsort(lengths, kind="stable")
    ends = np.flatnonzero(np.diff(lengths[order])) + 1
    for places in np.split(order, ends) if len(order) else ():
        step = max(1, block // max(1, int(lengths[places[0]])))
        for first in range(0, len(places), step):
            part = places[first : first + step]
            yield part, np.array([series[place] for place in part], np.float64)


def each(series: Sequence[Samples], of: Callable[[Rows], NDArray[np.float64]]) -> NDArray[np.float64]:
    """(series,) what `of` says of each series, from arrays of `by_length`."""
    found = np.empty(len(series))
    for places, rows in by_length(series):
        found[places] = of(rows)
    return found


def medians(rows: Rows) -> NDArray[np.float64]:
    """(series,) the median of each row."""
    found: NDArray[np.float64] = np.median(rows, axis=1)
    return found


def means(rows: Rows) -> NDArray[np.float64]:
    """(series,) the mean of each row."""
    found: NDArray[np.float64] = rows.mean(axis=1)
    return found


def effective(rows: Rows) -> NDArray[np.float64]:
    """(series,) how many independent samples would give the median of each row as exactly; between 1 and its samples.

    The error of a median depends on the autocorrelation of the signs about it, which is summed over lags while
    neighbouring pairs are positive (Geyer 1992). Outliers do not change it. All samples of a series that alternates
    count.
    """
    n = rows.shape[1]
    signs = np.sign(rows - np.median(rows, axis=1, keepdims=True))
    signs -= signs.mean(axis=1, keepdims=True)
    power = np.einsum("ij,ij->i", signs, signs)
    if n < 4:
        return np.full(len(rows), float(n))
    spectrum = np.abs(np.fft.rfft(signs, 2 * n)) ** 2
    correlation = np.fft.irfft(spectrum)[:, :n] / np.where(power == 0, 1.0, power)[:, None]
    pairs = correlation[:, : n // 2 * 2].reshape(len(rows), -1, 2).sum(axis=2)
    counts = np.logical_and.accumulate(pairs > 0, axis=1)
    total = 2 * np.where(counts, pairs, 0.0).sum(axis=1) - 1
    found: NDArray[np.float64] = np.where(power == 0, float(n), np.clip(n / np.maximum(total, 1.0), 1.0, n))
    return found
