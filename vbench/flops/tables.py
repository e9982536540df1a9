"""What an operation of torch costs, by its name: FLOPs an element, a view, a movement of bytes, a random number.

One FLOP is an operation (+ - · / max) or a value of a function (exp, √, sigmoid, Φ) of each element. A norm counts its
gain and bias whether or not it has them. Work that is done once a row, such as the root in a norm, or once a place,
such as the weights of a resize, is left out where it is a part of a larger operation. Arithmetic on integers alone is
none of floating-point numbers, and costs nothing. What needs more than a factor an element is in `formulas.py`, what
has MACs in `products.py`.

Names are torch's, without the underscore of in-place operations. An operation that torch makes of others is in no
table, since the ledger sees these.
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# FLOPs an element of the (first) result.
PER_OUTPUT: dict[str, int] = {
    **dict.fromkeys(  # an operation, or a value of a function
        _names(
            """_conj_physical _cummax_helper _cummin_helper _prelu_kernel abs acos acosh add angle asin asinh atan atan2
            atanh ceil celu clamp clamp_max clamp_min conj_physical copysign cos cosh cummax cummin cumprod cumsum
            deg2rad digamma div elu erf erfc erfinv exp exp2 expm1 fft_fftfreq fft_rfftfreq floor floor_divide fmax
            fmin fmod frac gcd hardshrink hardsigmoid hardtanh hypot i0 igamma igammac lcm leaky_relu lgamma log
            log10 log1p log2 log_sigmoid_forward logit logspace maximum minimum mul mvlgamma neg nextafter polygamma
            pow prelu rad2deg reciprocal relu remainder round rrelu_with_noise rrelu_with_noise_functional rsqrt rsub
            sgn sigmoid sign sin sinc sinh softplus softshrink sqrt sub tan tanh threshold trunc"""
        ),
        1,
    ),
    **dict.fromkeys(  # torch.special's functions
        _names(
            """special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_erfcx
            special_i0e special_i1 special_i1e special_log_ndtr special_modified_bessel_i0 special_modified_bessel_i1
            special_modified_bessel_k0 special_modified_bessel_k1 special_ndtri special_scaled_modified_bessel_k0
            special_scaled_modified_bessel_k1 special_spherical_bessel_j0 special_zeta"""
        ),
        1,
    ),
    **dict.fromkeys(_names("_add_relu addcdiv addcmul addr"), 2),
    **dict.fromkeys(_names("gelu glu hardswish silu"), 2),  # x · f(x), or a · f(b)
    **dict.fromkeys(_names("ldexp special_entr special_xlog1py xlogy"), 2),  # a function, a product
    **dict.fromkeys(_names("_fused_dropout _masked_scale native_dropout"), 2),  # times a mask, times a factor
    "bartlett_window": 2,  # a product, a difference
    **dict.fromkeys(_names("hamming_window hann_window"), 3),  # a cosine, a product, a sum
    **dict.fromkeys(
        _names("blackman_window kaiser_window"), 6
    ),  # that twice; or square, two roots, Bessel's, quotients
    "linalg_cross": 3,  # two products, a difference
    "mish": 3,  # x · tanh(softplus(x))
    "lerp": 3,  # a + t · (b - a)
    "polar": 4,  # a cosine, a sine, two products
    **dict.fromkeys(
        _names("_logcumsumexp logaddexp logaddexp2 logcumsumexp"), 4
    ),  # greatest, difference, function, sum
    # greatest, difference, exponential, sum, quotient
    **dict.fromkeys(_names("_log_softmax _masked_softmax _safe_softmax _softmax"), 5),
    # mean, difference, square, sum, quotient, gain, bias
    **dict.fromkeys(
        _names("_batch_norm_with_update _batch_norm_with_update_functional native_group_norm native_layer_norm"), 7
    ),
    # their statistics are given
    **dict.fromkeys(_names("_batch_norm_no_update _native_batch_norm_legit_no_training batch_norm_elemt"), 4),
    "_fused_rms_norm": 4,  # square, sum, quotient, gain
    "_weight_norm_interface": 4,  # of the weight: square, sum, quotient, gain
    **dict.fromkeys(_names("upsample_linear1d"), 4),  # a MAC a tap
    "upsample_bilinear2d": 8,
    "upsample_trilinear3d": 16,
    "upsample_bicubic2d": 32,
    # to integers: quotient, rounded, sum, within limits; and back: difference, product
    **dict.fromkeys(_names("quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic"), 4),
    "dequantize": 2,
    **dict.fromkeys(
        _names(
            """_fake_quantize_per_tensor_affine_cachemask_tensor_qparams fake_quantize_per_channel_affine_cachemask
            fake_quantize_per_tensor_affine_cachemask"""
        ),
        6,
    ),
    "_fused_moving_avg_obs_fq_helper": 8,  # that, the least and the greatest
}

# FLOPs an element of the (first) argument: reductions.
PER_INPUT: dict[str, int] = {
    **dict.fromkeys(_names("amax amin col2im max mean min nansum prod segment_reduce sum unfold_backward"), 1),
    **dict.fromkeys(_names("_aminmax aminmax"), 2),
    **dict.fromkeys(_names("linalg__powsum linalg_vector_norm native_norm norm"), 2),  # square, sum
    **dict.fromkeys(_names("dist renorm"), 3),  # that, and a difference before it, or a factor behind it
    **dict.fromkeys(_names("histc histogram"), 3),  # difference, product and quotient; counting adds integers
    "allclose": 5,  # two magnitudes, a product, a sum, a difference
    "logsumexp": 4,  # greatest, difference, exponential, sum
    **dict.fromkeys(_names("batch_norm_stats std std_mean var var_mean"), 4),  # mean, difference, square, sum
}

# The same where the numbers are complex. An operation of the two tables above that is neither here nor in
# `formulas.COMPLEX_ARITHMETIC` is unknown then.
COMPLEX: dict[str, int] = {
    **dict.fromkeys(_names("_conj_physical angle conj_physical"), 1),
    **dict.fromkeys(_names("cumsum mean neg sum"), 2),
    "abs": 4,  # two squares, a sum, a root
    "polar": 4,
    **dict.fromkeys(_names("linalg_vector_norm norm"), 4),  # two squares, two sums
    "exp": 5,  # an exponential, a cosine, a sine, two products
    "log": 6,  # a magnitude, its logarithm, an angle
    "sgn": 6,  # a magnitude, two quotients
    "reciprocal": 6,  # two squares, a sum, a sign, two quotients
    **dict.fromkeys(_names("cumprod prod"), 6),
    **dict.fromkeys(_names("std std_mean var var_mean"), 8),  # mean, difference, squared magnitude, sum
}

# FLOPs an element that is compared, beside the sum where one is asked for.
LOSSES: dict[str, int] = {
    "mse_loss": 2,  # difference, square
    "soft_margin_loss": 3,  # product, exponential, logarithm
    **dict.fromkeys(_names("huber_loss smooth_l1_loss"), 4),  # difference, magnitude, and of it a square and a factor
    "binary_cross_entropy": 7,  # two logarithms, two differences, two products, a sum
    "binary_cross_entropy_with_logits": 7,  # greatest, product, difference, magnitude, exponential, logarithm, sum
}

# One FLOP for each element of each window; the window's sides are an argument.
WINDOWS = _names(
    """avg_pool1d avg_pool2d avg_pool3d fractional_max_pool2d fractional_max_pool3d max_pool2d_with_indices
    max_pool3d_with_indices mkldnn_max_pool2d mkldnn_max_pool3d"""
)

# Views of the same bytes: nothing is computed and nothing moves.
VIEWS = _names(
    """_conj _fw_primal _make_dual _neg_view _reshape_alias _unsafe_view alias as_strided detach diagonal expand lift
    lift_fresh movedim permute select set slice split split_with_sizes squeeze t transpose unbind unfold unsafe_split
    unsafe_split_with_sizes unsqueeze view view_as_complex view_as_real"""
)

# These only allocate memory; they launch no kernel.
ALLOCATIONS = _names("empty empty_like empty_permuted empty_strided new_empty new_empty_strided")

# Bytes are moved, allocated, compared, counted or selected; no new number is computed.
MOVES = (
    ALLOCATIONS
    | frozenset(f"{view}_copy" for view in VIEWS)
    | _names(  # moved, or written
        """_chunk_cat _copy_from _copy_from_and_resize _efficientzerotensor _lazy_clone _pack_padded_sequence
        _pin_memory _reshape_copy _resize_output _stack _to_copy _unsafe_index _unsafe_masked_index arange
        as_strided_scatter block_diag cat channel_shuffle clone complex constant_pad_nd copy diag_embed
        diagonal_scatter embedding eye fill flip full full_like gather im2col index index_copy index_fill
        index_select linspace lu_unpack masked_fill masked_scatter masked_select max_unpool2d max_unpool3d
        narrow_copy native_channel_shuffle new_full new_ones new_zeros ones ones_like pixel_shuffle pixel_unshuffle
        range reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d
        replication_pad2d replication_pad3d resize resize_as roll rot90 scalar_tensor select_scatter slice_scatter
        stack take tril tril_indices triu triu_indices where zero zeros zeros_like"""
    )
    | _names(  # the nearest pixel
        """_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_nearest1d
        upsample_nearest2d upsample_nearest3d"""
    )
    | _names(  # compared, counted, selected
        """__ilshift_ __irshift_ __lshift_ __rshift_ _unique _unique2 all any argmax argmin argsort bitwise_and
        bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor bucketize count_nonzero eq frexp ge
        gt heaviside int_repr isin isinf isnan isneginf isposinf kthvalue le logical_and logical_not logical_or
        logical_xor lt median mode nan_to_num nanmedian ne nonzero nonzero_static searchsorted signbit sort topk
        unique_consecutive unique_dim unique_dim_consecutive"""
    )
    | _names(  # looked at
        """_assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async _functional_assert_scalar
        _functional_sym_constrain_range _functional_sym_constrain_range_for_size _has_same_storage_numel _is_all_true
        _is_any_true _linalg_check_errors _local_scalar_dense _print equal is_pinned is_same_size is_set_to
        sym_constrain_range sym_constrain_range_for_size"""
    )
)

# Random numbers. What a generator computes to draw them is no arithmetic of the model.
RANDOM = _names(
    """_sample_dirichlet _standard_gamma bernoulli binomial cauchy exponential geometric log_normal multinomial normal
    normal_functional poisson rand rand_like randint randint_like randn randn_like random randperm uniform"""
)

# Operations that torch makes of others, products among them. All others that it makes have no MACs.
MADE_OF_PRODUCTS = _names(
    """_convolution _convolution_mode _scaled_dot_product_attention_math bilinear cdist chain_matmul conv1d conv2d
    conv3d conv_transpose1d conv_transpose2d conv_transpose3d corrcoef cov einsum gru gru_cell inner linalg_matmul
    linalg_matrix_power linalg_multi_dot linalg_pinv linalg_tensorinv linalg_tensorsolve linalg_vecdot linear lstm
    lstm_cell matmul matrix_power pinverse rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell scaled_dot_product_attention
    slow_conv3d smm tensordot thnn_conv2d"""
)

# Namespaces of operations that compute nothing: marks of a profiler, questions about a tensor.
SILENT = frozenset({"prim", "profiler"})
