"""What each entry point must come to: its status in both phases, and its MACs and parameters by hand.

All have 64 px, of which the stem makes 256 tokens of 8 channels, unless the row says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

N, C = 256, 8
STEM, HEAD = N * C * 3 * 16, C * 10
BASE = STEM + HEAD  # 98,384 MACs
BASE_P = C * 3 * 16 + C + C * 10 + 10  # 482 parameters
MIX, MIX_P = N * C * C, C * C + C  # a linear layer of 8 by 8 on all tokens
SCORES = N * N * 2 * C  # of one head of attention, both products


@dataclass(frozen=True, slots=True)
class Row:
    """An entry point and what it comes to.

    `infer` and `train` are statuses, several where each is right: "ok|unsupported". "usage" ends the whole sweep with
    one line. `words` must be in the reason of whatever is not "ok". `flags` are those of what the model does, and "*"
    leaves them open. `macs` and `params` are None where no short sum gives them.
    """

    entry: str
    macs: int | None = None
    params: int | None = None
    infer: str = "ok"
    train: str = "ok"
    words: str = ""
    flags: str = ""
    side: int = 64  # px
    batch: int = 2  # of training and throughput

    def status(self, phase: str) -> list[str]:
        return (self.train if phase == "train" else self.infer).split("|")


BUILDING = (
    Row("ItemRates", BASE + 3 * MIX, BASE_P + 3 * MIX_P),
    Row("FloatOfTensor", BASE, BASE_P),
    Row("TolistRates", BASE, BASE_P),
    Row("NumpyBuffer", BASE, BASE_P),
    Row("NumpyParameter", BASE, BASE_P + C),
    Row("PlainAttribute", BASE, BASE_P),
    Row("ListOfTensors", BASE, BASE_P),
    Row("ArangeInForward", BASE, BASE_P),
    Row("Lazy", BASE, BASE_P),
    Row("scripted", BASE, BASE_P),
    Row("traced", BASE, BASE_P),
    Row("HalfScripted", BASE + MIX, BASE_P + MIX_P),
    Row("WarmsUp", BASE, BASE_P + N * C),
    Row("LoadsItself", BASE, BASE_P),
    Row("Mapped", BASE + MIX, BASE_P + C * C),
    Row("Seeded", BASE, BASE_P),
    Row("Diagonalised", BASE, BASE_P + C),
    Row("DeepCopied", BASE, BASE_P + C * 3 * 16 + C),
    Row("OnItsDevice", BASE + MIX, BASE_P + MIX_P),
    Row("MovesItself", BASE, BASE_P),
    Row("ChecksItsWeights", BASE, BASE_P),
)
VALUES = (
    *(Row(name, BASE, BASE_P) for name in ("Prune", "Branch", "Numpy", "NumpyFourier", "Halting", "Shifted")),
    *(Row(name, BASE, BASE_P) for name in ("Nonzero", "Unique", "Asserts", "Scaled", "Compared", "Masked")),
    Row("Listed", BASE, BASE_P),
    Row("Routed", BASE + C * 4 + MIX, BASE_P + C * 4 + 4 + 4 * MIX_P),
    Row("Talks", BASE, BASE_P),
)
_SDPA, _SDPA_P = BASE + 4 * MIX + SCORES, BASE_P + 4 * MIX_P
_WIDE = 2 * N * C * 4 + 2 * N * C * 16 + N * N * (4 + 16)
_NARROW = 2 * MIX + 2 * N * C * 2 + 2 * N * N * (4 + 1)
_ENCODER = 2 * N * C * 3 * 16 + 2 * C * 10 + 2 * (N * (4 * 16 * 16 + 2 * 16 * 32) + 2 * N * N * 16)
_ENCODER_P = 784 + 170 + 2 * (4 * 16 * 17 + 32 * 17 + 16 * 33 + 4 * 16)
ATTENTION = (
    *(Row(name, _SDPA, _SDPA_P) for name in ("Sdpa", "ByHand", "ByEinsum", "Multihead", "MultiheadWeights")),
    Row("Causal", BASE + 4 * MIX + N * (N + 1) // 2 * 2 * C, _SDPA_P),
    Row("Linear", BASE + 6 * MIX, _SDPA_P),
    Row("Windows", BASE + 4 * MIX + N * 16 * 2 * C, _SDPA_P),
    Row("Biased", _SDPA, _SDPA_P + 31 * 31),
    Row("WideValues", BASE + _WIDE, BASE_P + 2 * 36 + 144 + 136),
    Row("NarrowValues", BASE + _NARROW, BASE_P + 2 * MIX_P + 18 + 24),
    Row("Grouped", BASE + 3 * MIX + SCORES, BASE_P + 2 * MIX_P + 2 * 36),
    Row("Encoder", _ENCODER, _ENCODER_P),
    Row("EncoderFirstNorm", _ENCODER, _ENCODER_P),
    Row("Latents", BASE + 2 * MIX + 4 * N * 2 * C, BASE_P + 2 * MIX_P + 4 * C),
)
SEQUENCES = (
    Row("Lstm", BASE + 2 * N * 4 * 4 * (8 + 4), BASE_P + 2 * (4 * 4 * (8 + 4) + 2 * 4 * 4)),
    Row("Gru", BASE + N * 3 * C * 2 * C, BASE_P + 3 * C * 2 * C + 2 * 3 * C),
    Row("TwoLayers", BASE + 2 * N * C * 2 * C, BASE_P + 2 * (2 * C * C + 2 * C)),
    Row("Cells", BASE + N * 4 * C * 2 * C, BASE_P + 4 * C * 2 * C + 2 * 4 * C),
    Row("GruCells", BASE + N * 3 * C * 2 * C, BASE_P + 3 * C * 2 * C + 2 * 3 * C),
    Row("Cumsum", BASE, BASE_P),
    Row("Scan", BASE, BASE_P + C),
    Row("InPlaceScan", BASE, BASE_P + C),
    Row("Selective", BASE + N * C * 16 + N * C * 4, BASE_P + C * 16 + 16 + C * 4),
    Row("Cumprod", BASE, BASE_P),
    Row("Along", BASE + N * C * C * 3, BASE_P + C * C * 3 + C),
    Row("CausalAlong", BASE + (N + 3) * C * 4, BASE_P + C * 4 + C),
)
NUMBERS = (
    Row("ComplexMix", BASE + 4 * MIX, BASE_P + C * C),
    Row("ComplexGain", BASE, BASE_P + C * 16 * 9),
    Row("ComplexBuffer", BASE, BASE_P),
    Row("ComplexConvolution", BASE + 3 * MIX, BASE_P + C * C),
    Row("PairsOfReals", BASE, BASE_P + C * 16 * 9 * 2),
    Row("ViewsAsComplex", BASE, BASE_P),
    Row("Cosines", BASE + 2 * C * 16**3, BASE_P),
    Row("Wavelet", BASE, BASE_P),
    Row("DoubleGain", BASE, BASE_P + C),
    *(Row(name, BASE, BASE_P) for name in ("HalfTable", "double", "half", "Permuted", "BooleanMask")),
)
OPERATIONS = (
    Row("Antialias", BASE, BASE_P),
    Row("Warped", flags="*"),  # torch makes the places of a product, or not, by its version
    Row("Deformed", BASE + N * C * 9, BASE_P + C * 9 + 1),
    Row("Unfolded", BASE + N * C * 9 * C, BASE_P + C * 9 * C + C),
    Row("Folded", BASE, BASE_P),
    Row("Shuffled", BASE + 4 * MIX, BASE_P + 4 * MIX_P),
    Row("Same", BASE + N * C * 49, BASE_P + C * 49 + C),
    Row("SameEven", BASE + N * C * 16, BASE_P + C * 16 + C),
    Row("Reflected", BASE + N * C * 9, BASE_P + C * 9 + C),
    Row("Transposed", BASE + 4 * MIX, BASE_P + 4 * C * C + C),
    Row("Volume", BASE + N * C * 27, BASE_P + 27 + 1),
    Row("RandomMask", BASE, BASE_P, flags="*"),  # no two calls return the same
    Row("Function", BASE + MIX, BASE_P + C * C),
    Row("FunctionWithoutBackward", BASE + MIX, BASE_P + C * C, train="error|unsupported", words="backward"),
    Row("Checkpointed", BASE + MIX, BASE_P + MIX_P),
    Row("CheckpointedOldWay", BASE + MIX, BASE_P + MIX_P),
    Row("WeightNorm", BASE + N * C * 9 * C, BASE_P + C * 9 * C + 2 * C),
    Row("SpectralNorm", BASE + MIX + C * C + C, BASE_P + MIX_P),
    Row("Parametrized", BASE + MIX, BASE_P + MIX_P),
    Row("Pruned", BASE + MIX, BASE_P + MIX_P),
    Row("Functional", BASE + MIX, BASE_P + MIX_P),
    Row("Mixed", BASE + C * 4 + 4 * C * C + MIX, BASE_P + C * 4 + 4 + 4 * C * C),
    Row("Looked", BASE, BASE_P + 16 * C),
    Row("Compiled", BASE + MIX, BASE_P + MIX_P),
    Row("Unknown", BASE, BASE_P, flags="uncounted"),
    Row("ChannelsLast", BASE, BASE_P),
)
OUTPUTS = (
    *(Row(name, STEM, BASE_P) for name in ("Maps", "TupleOfMaps", "Ordered", "Map", "Tokens", "Named", "Nested")),
    *(Row(name, BASE, BASE_P) for name in ("Dict", "Dataclass", "WithLoss", "Regressor", "Scalar", "ByPhase")),
    Row("ListInTraining", STEM, BASE_P),
    Row("OneLogit", STEM + C, BASE_P - 9 * C - 9),
    Row("Labels", BASE, BASE_P, train="unsupported", words="train"),
    Row("ComplexMap", STEM, BASE_P, train="ok|unsupported"),
    Row("Nan", BASE, BASE_P, flags="nonfinite"),
    # An output without tensors cannot be checked, and the row says so.
    Row("Nothing", BASE, BASE_P, train="unsupported", words="train", flags="output_differs"),
    Row("Strings", BASE, BASE_P, train="unsupported", words="train", flags="output_differs"),
    Row("Lambdas", STEM, BASE_P, train="unsupported", words="train", flags="output_differs"),
)
TRAINING = (
    Row("NoProducts", 0, 0, train="unsupported", words="train"),
    Row("OnlyAGain", 0, 3),
    Row("Frozen", BASE, BASE_P, train="unsupported", words="train"),
    Row("HalfFrozen", BASE, BASE_P),
    *(Row(n, BASE, BASE_P, train="unsupported", words="train") for n in ("NoGrad", "Inference", "Detached")),
    Row("BatchNormTail", BASE, BASE_P + 2 * C),
    Row("BatchNormTail", BASE, BASE_P + 2 * C, train="unsupported", words="batch", batch=1),
    Row("OneImage", BASE, BASE_P, train="unsupported", words="batch"),
    Row("OneImageByShape", BASE, BASE_P, train="unsupported", words="batch"),
    Row("TwoImages", BASE, BASE_P, infer="error|unsupported", train="ok|unsupported", words="unpack|batch"),
    Row("HugeUnused", BASE, BASE_P + 2**22),
    Row("Tied", BASE + 2 * MIX, BASE_P + C * C),
    Row("Shared", BASE + 3 * MIX, BASE_P + MIX_P),
    Row("SynchronisedNorm", BASE, BASE_P + 2 * C, train="ok|error|unsupported", words="SyncBatchNorm"),
    Row("TrainReturnsNothing", BASE, BASE_P + 2 * C),
    Row("DropsPaths", BASE + MIX, BASE_P + MIX_P),
    Row("WantsLabels", BASE, BASE_P),
    Row("OwnHooks", BASE, BASE_P),
)


def _vit(grid: int, patch: int) -> tuple[int, int]:
    """MACs and parameters of one block of 48 channels, with a class token and 1000 classes."""
    patches, tokens, pixels, D = grid * grid, grid * grid + 1, 3 * patch * patch, 48
    macs = patches * pixels * D + tokens * 12 * D * D + 2 * tokens * tokens * D + D * 1000
    block = 4 * D * D + 4 * D + 8 * D * D + 5 * D + 4 * D
    return macs, pixels * D + D + D + tokens * D + block + 2 * D + D * 1000 + 1000


_NEITHER = "error|unsupported"
ENTRIES = (
    Row("vit", *_vit(4, 16)),
    Row("vit_of_14", *_vit(5, 14), side=70),
    Row("vit_at_64", *_vit(4, 16)),
    Row("vit_at_64", infer="unsupported", train="unsupported", words="96", side=96),
    Row("Positions", 24 * 24 * C * 48 + HEAD, BASE_P + C * 24 * 24, side=96),
    Row("WholeNumber", BASE, BASE_P + N * C),
    Row("grey", BASE, BASE_P),
    Row("four_channels", infer="unsupported", train="unsupported", words="4 channels"),
    Row("twelve_bands", BASE, BASE_P),
    *(Row(name, BASE, BASE_P) for name in ("function", "with_defaults", "keywords", "picky", "positional")),
    *(Row(name, BASE, BASE_P) for name in ("partially", "arrow", "built", "factory", "Configured")),
    *(Row(name, BASE, BASE_P) for name in ("AnswersEverything", "AnswersKeyErrors", "Empty", "HasProperties")),
    *(Row(name, BASE, BASE_P) for name in ("Uncopied", "CallsItself", "ImportsLate")),
    Row("RaisesAtSize", infer=_NEITHER, train=_NEITHER, words="multiple of 48"),
    Row("RaisesAtSize", 12 * 12 * C * 48 + HEAD, BASE_P, side=48),
    Row("Unshaped", infer=_NEITHER, train=_NEITHER, words="shapes"),
    Row("NeedsGpu", infer=_NEITHER, train=_NEITHER, words="needs a GPU"),
    Row("fails", infer=_NEITHER, train=_NEITHER, words="weights.bin"),
    Row("Reparameterisable", BASE + N * C * C * 10, BASE_P + C * C * 10 + 2 * C),
    Row("needs_a_width", infer="usage", train="usage", words="width"),
    Row("no_module", infer="usage", train="usage", words="returned dict"),
    Row("number", infer="usage", train="usage", words="no callable 'number'"),
)
IMPORTS = (
    Row("parses:Net", STEM, 392),
    *(Row(f"{module}:Net", BASE, BASE_P) for module in ("prints", "doubles", "heavy", "moves")),
    *(Row(f"threads:{name}", BASE, BASE_P, flags="*") for name in ("Net", "InInit", "InForward")),
    Row("strict:Net", BASE, BASE_P, train="ok|unsupported", words="grad"),
    Row("demands:Net", infer="usage", train="usage", words="SystemExit"),
    Row("exits:Net", infer="usage", train="usage", words="SystemExit"),
    Row("fails:Net", infer="usage", train="usage", words="no_such_package_of_kernels"),
    Row("asserts:Net", infer="usage", train="usage", words="this package needs CUDA"),
    Row("stops:Net", infer="usage", train="usage", words="KeyboardInterrupt"),
)
GROUPS = {
    "building": BUILDING,
    "values": VALUES,
    "attention": ATTENTION,
    "sequences": SEQUENCES,
    "numbers": NUMBERS,
    "operations": OPERATIONS,
    "outputs": OUTPUTS,
    "training": TRAINING,
    "entries": ENTRIES,
}


def model(group: str, row: Row) -> str:
    """The entry point as the command line takes it."""
    return f"zoo_of_users.{group}.{row.entry}" if ":" in row.entry else f"zoo_of_users.{group}:{row.entry}"
