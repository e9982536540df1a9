"""Operators of the recurrent backbones: one folder each, one file a form, one signature."""

from vbench.kernels.registry import OPS, Form, default_form, forms, operator

__all__ = ["OPS", "Form", "default_form", "forms", "operator"]
