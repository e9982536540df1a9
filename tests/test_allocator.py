"""The simulated allocator: each rule of PyTorch's by an example, and what holds for any program."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vbench.flops.allocator import MIB, Block, CachingAllocator, OutOfMemoryError


@pytest.mark.parametrize(
    ("request_bytes", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),  # the last one of the small pool
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),  # a segment of its own
        (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),  # no more than 1 MiB of a large segment is not split off
    ],
)
def test_what_one_request_takes(request_bytes: int, allocated: int, reserved: int) -> None:
    allocator = CachingAllocator()
    allocator.malloc(request_bytes)
    assert (allocator.allocated, allocator.reserved) == (allocated, reserved)


def test_a_freed_block_is_used_again_and_the_smallest_that_fits() -> None:
    allocator = CachingAllocator()
    large, small = allocator.malloc(40 * MIB), allocator.malloc(16 * MIB)
    allocator.free(large)
    allocator.free(small)
    assert allocator.malloc(15 * MIB + 512) is small  # a rest below 1 MiB stays with it
    assert allocator.allocated == 16 * MIB
    assert allocator.malloc(30 * MIB) is large
    assert allocator.reserved == 56 * MIB
    assert allocator.allocated == 46 * MIB


def test_free_neighbours_are_joined() -> None:
    allocator = CachingAllocator()
    blocks = [allocator.malloc(4 * MIB) for _ in range(5)]  # one segment
    assert allocator.reserved == 20 * MIB
    for at in (1, 3, 2):
        allocator.free(blocks[at])
    allocator.malloc(12 * MIB)
    assert allocator.reserved == 20 * MIB


def test_a_full_card_gives_unused_segments_back_first() -> None:
    allocator = CachingAllocator(capacity=100 * MIB)
    allocator.free(allocator.malloc(60 * MIB))
    allocator.malloc(90 * MIB)
    assert allocator.reserved == 90 * MIB
    with pytest.raises(OutOfMemoryError):
        allocator.malloc(20 * MIB)
    assert allocator.peak_reserved == 90 * MIB


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30 * MIB)), max_size=60))
def test_whatever_a_program_does(steps: list[tuple[bool, int]]) -> None:
    allocator, live = CachingAllocator(), list[tuple[Block, int]]()
    for drops, number in steps:
        if drops and live:
            allocator.free(live.pop(number % len(live))[0])
        else:
            live.append((allocator.malloc(number), number))
        assert allocator.allocated == sum(block.size for block, _ in live) <= allocator.reserved
        assert all(asked <= block.size < asked + MIB + 512 for block, asked in live)
        assert allocator.peak <= allocator.peak_reserved
    for block, _ in live:
        allocator.free(block)
    assert allocator.allocated == 0
    allocator.capacity = 0
    with pytest.raises(OutOfMemoryError):
        allocator.malloc(40 * MIB)
    assert allocator.reserved == 0  # every segment was whole again
