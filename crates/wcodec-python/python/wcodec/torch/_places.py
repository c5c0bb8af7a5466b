"""Places in scratch memory for weights that are used in a known order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._weight import Use

# What lies where: (start, end, number of the group).
Layout = list[tuple[int, int, int]]

# Layouts that are kept in sight.
_BEAM = 8


class Group:
    """Uses that are decoded together, and their place in scratch memory."""

    __slots__ = ("after", "size", "start", "uses")

    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.size = 0
        self.start = 0
        # The number of the last group before it that has some of its place, -1 if there is none: when that one has been used, this one
        # can be decoded.
        self.after = -1


def place(groups: list[Group], room: int) -> None:
    """Gives groups, in the order of their use, their places in `room` bytes, into which each of them fits. A group had better not wait
    for the one just before it, since nothing is decoded ahead then; large ones less than small ones. A beam search: the best place of
    a group depends on those behind it."""
    # Cost, layout, places so far as a chain.
    beam: list[tuple[float, Layout, tuple | None]] = [(0.0, [], None)]
    for number, group in enumerate(groups):
        found = []
        for cost, taken, chain in beam:
            for start in _starts(taken, group.size, room):
                after = max((n for s, e, n in taken if s < start + group.size and start < e), default=-1)
                waits = group.size * 0.25 ** (number - after - 1) if after >= 0 else 0
                found.append((cost + waits, start, after, taken, chain))
        found.sort(key=lambda one: one[0])
        beam, seen = [], set()
        for cost, start, after, taken, chain in found:
            layout = _with(taken, start, start + group.size, number)
            shape = tuple((s, e) for s, e, _ in layout)
            if shape not in seen:
                seen.add(shape)
                beam.append((cost, layout, (chain, start, after)))
                if len(beam) == _BEAM:
                    break
    chain = beam[0][2]
    for group in reversed(groups):
        chain, group.start, group.after = chain


def _starts(taken: Layout, size: int, room: int) -> Iterable[int]:
    """Places worth a look: those that touch what is there, or an end."""
    starts = {0, room - size}
    for start, end, _ in taken:
        starts.update(at for at in (end, start - size) if 0 <= at <= room - size)
    return sorted(starts)


def _with(taken: Layout, start: int, end: int, number: int) -> Layout:
    before = [(s, min(e, start), n) for s, e, n in taken if s < start]
    behind = [(max(s, end), e, n) for s, e, n in taken if e > end]
    return [*before, (start, end, number), *behind]
