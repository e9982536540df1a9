"""FLOPs of dense linear algebra: factorisations and solutions whose work follows from the shapes alone.

They are the leading terms of the classical algorithms, as LAPACK counts them (Golub and Van Loan, Matrix Computations;
LAPACK Working Note 41). Singular values, eigenvalues, least squares and the exponential of a matrix are iterated until
the numbers are good enough. How often depends on the values, so they are in no table.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from torch import Tensor

Given = dict[str, Any]  # arguments by the names of torch's schema


def _sides(x: Tensor) -> tuple[int, int, int]:
    """How many matrices, and the rows and columns of each."""
    *batch, rows, columns = x.shape
    return prod(batch), rows, columns


def _lu(x: Tensor) -> float:
    """Gauss's elimination: 2/3 n³ for a square."""
    count, *sides = _sides(x)
    return count * (max(sides) * min(sides) ** 2 - min(sides) ** 3 / 3)


def _cholesky(x: Tensor) -> float:
    count, n, _ = _sides(x)
    return count * n**3 / 3


def _reflectors(x: Tensor) -> float:
    """Householder's reflectors that make a matrix triangular: 4/3 n³ for a square."""
    return 2 * _lu(x)


def _product(x: Tensor, columns: int, k: int) -> float:
    """The first columns of the product of k reflectors as long as those of `x`: 4/3 n³ for a square."""
    count, m, _ = _sides(x)
    return count * (4 * m * columns * k - 2 * (m + columns) * k**2 + 4 * k**3 / 3)


def _qr(given: Given) -> float:
    x, mode = given["A"], given["mode"]
    _, m, n = _sides(x)
    k = min(m, n)
    return _reflectors(x) + (0 if mode == "r" else _product(x, m if mode == "complete" else k, k))


def _multiplied(x: Tensor, k: int, *, left: bool) -> float:
    """A matrix times the product of k reflectors as long as its columns, or as its rows."""
    long, across = x.shape[-2 if left else -1], x.shape[-1 if left else -2]
    return x.numel() / (long * across) * (4 * long * across * k - 2 * across * k**2)


def _solved(solution: Tensor, matrix: Tensor, triangles: int) -> float:
    """n² for each right-hand side and each triangle of n × n."""
    return triangles * matrix.shape[-1] * solution.numel()


# By the arguments and the first result.
LINEAR_ALGEBRA: dict[str, Callable[[Given, Tensor], float]] = {
    "linalg_lu": lambda given, _: _lu(given["A"]),
    "linalg_lu_factor_ex": lambda given, _: _lu(given["A"]),
    "_linalg_det": lambda given, _: _lu(given["A"]) + prod(given["A"].shape[:-1]),  # and the diagonal's product
    "_linalg_slogdet": lambda given, _: _lu(given["A"]) + 2 * prod(given["A"].shape[:-1]),  # logarithms, a sum
    "linalg_inv_ex": lambda given, _: 3 * _lu(given["A"]),  # 2 n³
    "_linalg_solve_ex": lambda given, x: _lu(given["A"]) + _solved(x, given["A"], 2),
    "linalg_lu_solve": lambda given, x: _solved(x, given["LU"], 2),
    "linalg_cholesky_ex": lambda given, _: _cholesky(given["self"]),
    "cholesky_inverse": lambda given, _: 2 * _cholesky(given["self"]),
    "cholesky_solve": lambda given, x: _solved(x, given["input2"], 2),
    "_cholesky_solve_helper": lambda given, x: _solved(x, given["A"], 2),
    "linalg_ldl_factor_ex": lambda given, _: _cholesky(given["self"]),
    "linalg_ldl_solve": lambda given, x: _solved(x, given["LD"], 2),
    "linalg_solve_triangular": lambda given, x: _solved(x, given["self"], 1),
    "triangular_solve": lambda given, x: _solved(x, given["A"], 1),
    "linalg_qr": lambda given, _: _qr(given),
    "geqrf": lambda given, _: _reflectors(given["self"]),
    "ormqr": lambda given, x: _multiplied(x, given["input2"].shape[-1], left=given["left"]),
    "linalg_householder_product": lambda given, x: _product(x, x.shape[-1], given["tau"].shape[-1]),
}
