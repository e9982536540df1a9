"""CUDA's caching allocator, simulated: what PyTorch gives out and what it reserves, without a device. Sizes in bytes.

PyTorch takes memory from the driver in *segments* and gives it out in *blocks*. It keeps a freed block for the next
request of its size, so that a program holds more than its tensors need. The rules and the constants are those of
PyTorch 2.11 (c10/cuda/CUDACachingAllocator) with its default settings, for one stream.
"""

from __future__ import annotations

from bisect import bisect_left, insort

MIB = 2**20
ROUND = 512  # every request is rounded up to a multiple of this
SMALL = MIB  # a larger request comes from the pool of large segments
SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB  # for a request below `OWN_SEGMENT`; a larger one gets a segment of its own
OWN_SEGMENT = 10 * MIB
ROUND_SEGMENT = 2 * MIB


class OutOfMemoryError(Exception):
    """The simulated card is full, even after all unused segments went back to the driver."""


class Block:
    """A piece of a segment. `before` and `after` are its neighbours there."""

    __slots__ = ("after", "before", "free", "serial", "size", "small")

    def __init__(self, size: int, *, small: bool, serial: int) -> None:
        self.size, self.small, self.serial, self.free = size, small, serial, False
        self.before: Block | None = None
        self.after: Block | None = None


class ExactAllocator:
    """Gives out what is asked for and keeps nothing, as the CPU's does with large blocks.

    Attributes are those of `CachingAllocator`.
    """

    def __init__(self) -> None:
        self.allocated = self.peak = 0

    @property
    def peak_reserved(self) -> int:
        return self.peak

    def malloc(self, nbytes: int) -> Block:
        """A block of `nbytes`."""
        self.allocated += nbytes
        self.peak = max(self.peak, self.allocated)
        return Block(nbytes, small=False, serial=0)

    def free(self, block: Block) -> None:
        """Take a block back."""
        self.allocated -= block.size


class CachingAllocator:
    """Gives out blocks and takes them back.

    Args:
        capacity: bytes that segments can take in all; None for no limit.

    Attributes:
        allocated, reserved: bytes in blocks that are given out, and bytes in segments, now.
        peak, peak_reserved: the most that each has been.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.allocated = self.reserved = self.peak = self.peak_reserved = 0
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}  # by size, the oldest first
        self._serial = 0

    def malloc(self, nbytes: int) -> Block:
        """A block of at least `nbytes`. Raises: OutOfMemoryError."""
        size = max(ROUND, -(-nbytes // ROUND) * ROUND)
        small = size <= SMALL
        block = self._fitting(size, small=small) or self._segment(size, small=small)
        rest = block.size - size
        if rest >= ROUND if small else rest > SMALL:
            self._split(block, size)
        self.allocated += block.size
        self.peak = max(self.peak, self.allocated)
        return block

    def free(self, block: Block) -> None:
        """Take a block back, and join it with free neighbours."""
        self.allocated -= block.size
        if block.after is not None and block.after.free:
            self._join(block, block.after)
        if block.before is not None and block.before.free:
            block = self._join(block.before, block)
        else:
            self._offer(block)

    def _fitting(self, size: int, *, small: bool) -> Block | None:
        """The smallest free block that is large enough."""
        pool = self._free[small]
        at = bisect_left(pool, size, key=lambda each: each[0])
        if at == len(pool):
            return None
        block = pool.pop(at)[2]
        block.free = False
        return block

    def _segment(self, size: int, *, small: bool) -> Block:
        """A new segment, as one block."""
        own = -(-size // ROUND_SEGMENT) * ROUND_SEGMENT
        wanted = SMALL_SEGMENT if small else LARGE_SEGMENT if size < OWN_SEGMENT else own
        if self.capacity is not None and self.reserved + wanted > self.capacity:
            self._give_back()
            if self.reserved + wanted > self.capacity:
                raise OutOfMemoryError
        self.reserved += wanted
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return self._new(wanted, small=small)

    def _new(self, size: int, *, small: bool) -> Block:
        self._serial += 1
        return Block(size, small=small, serial=self._serial)

    def _give_back(self) -> None:
        """Return every segment of which nothing is given out to the driver."""
        for pool in self._free.values():
            whole = [each for each in pool if each[2].before is None and each[2].after is None]
            self.reserved -= sum(size for size, *_ in whole)
            pool[:] = [each for each in pool if each not in whole]

    def _split(self, block: Block, size: int) -> None:
        """Cut a block to `size`; the rest is free."""
        rest = self._new(block.size - size, small=block.small)
        rest.before, rest.after = block, block.after
        if block.after is not None:
            block.after.before = rest
        block.after, block.size = rest, size
        self._offer(rest)

    def _join(self, block: Block, after: Block) -> Block:
        """Two neighbours as one block; a free one of them stays on offer at its new size."""
        free = block.free
        if free:
            self._withdraw(block)
        if after.free:
            self._withdraw(after)
        block.size += after.size
        block.after = after.after
        if after.after is not None:
            after.after.before = block
        if free:
            self._offer(block)
        return block

    def _offer(self, block: Block) -> None:
        block.free = True
        insort(self._free[block.small], (block.size, block.serial, block))

    def _withdraw(self, block: Block) -> None:
        pool = self._free[block.small]
        del pool[bisect_left(pool, (block.size, block.serial), key=lambda each: each[:2])]
        block.free = False
