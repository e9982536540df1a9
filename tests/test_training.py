"""Every family trains, and a training step's memory is parted into what is known of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from vbench.errors import UnsupportedError
from vbench.jobs.launch import Launcher
from vbench.meters.training import Trainer
from vbench.models import create

MIB = 2**20
# Sizes: the least that the model takes, or one of more than a chunk of tokens.
FAMILIES = {
    "vig_t": 144,
    "vig_h_t": 32,
    "vrwkv_t": 144,
    "vrwkv6_t": 144,
    "vil_t": 144,
    "vil2_t": 144,
    "vir_s": 144,
    "vision_gru_t": 32,
    "vmamba_t": 32,
    "vim_t": 144,
    "mlla_t": 64,
    "deit_t": 32,
    "swin_t": 32,
}


def trainer(
    model: str, side: int, mode: str = "parallel", batch: int = 1, dtype: torch.dtype = torch.float32
) -> Trainer:
    torch.manual_seed(0)
    images = torch.randn(batch, 3, side, side, dtype=dtype)
    return Trainer(create(model, side, mode, drop_path_rate=0.0).to(dtype), images)  # type: ignore[arg-type]


def trains(trainer: Trainer) -> None:
    """A step has finite gradients for all parameters, nearly all of them not zero; the next has a smaller loss."""
    assert trainer.model.training
    trainer.forward()
    first = trainer.loss
    trainer.backward()
    silent = 0  # the bias of a window of one token, say, has no effect
    for name, p in trainer.model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        silent += not p.grad.any()
    assert silent <= 0.05 * len(list(trainer.model.parameters()))
    trainer.update()
    assert all(p.grad is None for p in trainer.model.parameters())
    trainer.step()
    assert trainer.loss < first


@pytest.mark.parametrize(("model", "side"), FAMILIES.items())
def test_every_family_trains_at_batch_1(model: str, side: int) -> None:
    trains(trainer(model, side))


@pytest.mark.parametrize("model", ["vig_t", "vir_s"])
def test_recurrent_mode_trains(model: str) -> None:
    trains(trainer(model, 48, "recurrent", batch=2))


@pytest.mark.parametrize("model", ["vig_t", "vrwkv_t"])
def test_bfloat16_trains(model: str) -> None:
    trains(trainer(model, 32, dtype=torch.bfloat16))


def test_the_step_is_torchs_own() -> None:
    mine = trainer("deit_t", 32, batch=2)
    theirs = create("deit_t", 32).train()
    theirs.load_state_dict(mine.model.state_dict())
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-4)
    labels = torch.randint(1000, (2,), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(mine.images), labels).backward()
        optimizer.step()
        mine.step()
    for a, b in zip(mine.model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_float16_weights_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="take bfloat16, float32, or amp-fp16"):
        Trainer(nn.Linear(2, 2).half(), torch.zeros(1, 2).half())


def test_a_norm_over_one_value_is_unsupported() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 4), nn.BatchNorm2d(4), nn.Flatten())
    with pytest.raises(UnsupportedError, match=r"no training at batch 1 and 4x4 px: .*1 value per channel"):
        Trainer(model, torch.randn(1, 3, 4, 4)).forward()
    Trainer(model, torch.randn(2, 3, 4, 4)).step()
    model = nn.Sequential(nn.Conv2d(3, 4, 4), nn.InstanceNorm2d(4, affine=True), nn.Flatten())
    with pytest.raises(UnsupportedError, match=r"no training at batch 2 and 4x4 px: .*1 spatial element"):
        Trainer(model, torch.randn(2, 3, 4, 4)).forward()


def test_other_errors_pass() -> None:
    class Broken(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Trainer(Broken(2, 2), torch.zeros(1, 2)).forward()


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


def test_memory_of_a_step(launcher: Launcher) -> None:
    found = {kept: launcher.run("jobs:training_peak", {"kept": kept}, 60).parts["memory"] for kept in (4, 12)}
    for kept, seen in found.items():
        assert (seen["weights_bytes"], seen["input_bytes"], seen["gradients_bytes"]) == (2 * MIB, 8 * MIB, 2 * MIB)
        assert seen["optimizer_bytes"] == 4 * MIB + 4  # two moments, and the count of steps
        held = sum(seen[f"{name}_bytes"] for name in ("weights", "input", "gradients", "optimizer", "activation"))
        assert seen["peak_bytes"] == held
        assert kept * 8 * MIB <= seen["activation_bytes"] < (kept + 4) * 8 * MIB
        assert seen["slack_bytes"] < 4 * MIB
        assert "call 2" in seen["method"]
    difference = found[12]["peak_bytes"] - found[4]["peak_bytes"]
    assert difference == pytest.approx(64 * MIB, abs=MIB)


def test_a_slow_step_is_made_once(launcher: Launcher) -> None:
    seen = launcher.run("jobs:training_peak", {"kept": 4, "repeat_below_s": 0}, 60).parts["memory"]
    assert (seen["calls"], seen["growth_bytes"]) == (1, None)
    assert "call 1" in seen["method"]
    assert seen["optimizer_bytes"] == 4 * MIB + 4
