"""What an operation of torch costs, by its name: FLOPs an element, a view, a movement of bytes.

One FLOP is an operation (+ - · / max) or a value of a function (exp, √, sigmoid, Φ) of each element. A norm counts its
gain and bias whether or not it has them. Work that is done once a row, such as the root in a norm, or once a place,
such as the weights of a resize, is left out where it is a part of a larger operation. What needs more than a factor an
element is in `formulas.py`.

Names are torch's, without the underscore of in-place operations.
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# FLOPs an element of the (first) result.
PER_OUTPUT: dict[str, int] = {
    **dict.fromkeys(
        _names(
            """_prelu_kernel abs add angle ceil clamp clamp_max clamp_min conj_physical cos cummax cumprod cumsum div
            elu erf exp exp2 expm1 floor floor_divide fmod hardsigmoid hardtanh leaky_relu log log10 log1p log2
            log_sigmoid_forward maximum minimum mul neg pow prelu reciprocal relu remainder round rsqrt rsub sigmoid
            sign sin softplus sqrt sub tan tanh trunc"""
        ),
        1,
    ),
    **dict.fromkeys(_names("addcdiv addcmul"), 2),
    **dict.fromkeys(_names("gelu hardswish silu"), 2),  # x · f(x)
    "mish": 3,  # x · tanh(softplus(x))
    "lerp": 3,  # a + t · (b - a)
    "polar": 4,  # a cosine, a sine, two products
    # greatest, difference, exponential, sum, quotient
    **dict.fromkeys(_names("_log_softmax _safe_softmax _softmax"), 5),
    "logcumsumexp": 4,
    # mean, difference, square, sum, quotient, gain, bias
    **dict.fromkeys(_names("_native_batch_norm_legit native_batch_norm native_group_norm native_layer_norm"), 7),
    "_native_batch_norm_legit_no_training": 4,  # its statistics are given
    "_fused_rms_norm": 4,  # square, sum, quotient, gain
    "upsample_bilinear2d": 8,  # a MAC a tap
    "upsample_bicubic2d": 32,
}

# FLOPs an element of the (first) argument: reductions.
PER_INPUT: dict[str, int] = {
    **dict.fromkeys(_names("_adaptive_avg_pool2d amax amin col2im max mean min prod sum"), 1),
    "linalg_vector_norm": 2,  # square, sum
    "logsumexp": 4,  # greatest, difference, exponential, sum
    **dict.fromkeys(_names("std std_mean var var_mean"), 4),  # mean, difference, square, sum
}

# The same where the numbers are complex. An operation of the two tables above that is neither here nor in
# `formulas.COMPLEX_ARITHMETIC` is unknown then.
COMPLEX: dict[str, int] = {
    **dict.fromkeys(_names("angle conj_physical"), 1),
    **dict.fromkeys(_names("cumsum mean neg sum"), 2),
    "abs": 4,  # two squares, a sum, a root
    "polar": 4,
    "linalg_vector_norm": 4,  # two squares, two sums
    "exp": 5,  # an exponential, a cosine, a sine, two products
    "log": 6,  # a magnitude, its logarithm, an angle
    "reciprocal": 6,  # two squares, a sum, a sign, two quotients
    **dict.fromkeys(_names("cumprod prod"), 6),
    **dict.fromkeys(_names("std std_mean var var_mean"), 8),  # mean, difference, squared magnitude, sum
}

# One FLOP for each element of each window; the window's sides are the second argument.
WINDOWS = _names("avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices")

# Views of the same bytes: nothing is computed and nothing moves.
VIEWS = _names(
    """_conj _neg_view _reshape_alias _unsafe_view alias as_strided detach diagonal expand lift_fresh movedim permute
    select slice split split_with_sizes squeeze t transpose unbind unfold unsafe_split unsafe_split_with_sizes unsqueeze
    view view_as_complex view_as_real"""
)

# Bytes are moved, allocated, compared or selected; no new number is computed.
MOVES = _names(
    """_local_scalar_dense _to_copy _unsafe_index all any arange argmax argmin argsort bitwise_and bitwise_not
    bitwise_or cat channel_shuffle clone complex constant_pad_nd copy embedding empty empty_like empty_strided eq eye
    fill flip full full_like gather ge gt im2col index index_copy index_fill index_select isinf isnan le linspace
    logical_and logical_not logical_or lt masked_fill ne new_empty new_empty_strided new_full new_ones new_zeros ones
    ones_like pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d repeat replication_pad1d
    replication_pad2d resize roll scalar_tensor scatter slice_scatter sort stack topk tril triu upsample_nearest2d where
    zero zeros zeros_like"""
)

# These only allocate memory; they launch no kernel.
ALLOCATIONS = _names("empty empty_like empty_strided new_empty new_empty_strided")
