"""Things that belong together, as far as their links reach: connected components, by arrays.

Links come in parts and are not kept, so that memory follows the things and not their links, of
which there may be the square.

Shapes: N things, L links.
"""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Components:
    """A forest over N things in which no parent has a higher number than its child.

    Args:
        count: N.
    """

    def __init__(self, count: int) -> None:
        self._parent_N = np.arange(count)

    def roots(self, things_L: Indices) -> Indices:
        """Return the first thing of each one's component, as far as it is linked by now."""
        root_L = self._parent_N[things_L]
        while True:
            above_L = self._parent_N[root_L]
            if (above_L == root_L).all():
                self._parent_N[things_L] = root_L  # the next way is shorter
                return root_L
            root_L = self._parent_N[above_L]

    def link(self, first_L: Indices, second_L: Indices) -> None:
        """Join the components of each pair."""
        while len(first_L):
            one_L, other_L = self.roots(first_L), self.roots(second_L)
            apart_L = one_L != other_L
            first_L, second_L = one_L[apart_L], other_L[apart_L]
            np.minimum.at(
                self._parent_N, np.maximum(first_L, second_L), np.minimum(first_L, second_L)
            )

    def all_roots(self) -> Indices:
        """Return the first thing of the component of each: int64 (N,)."""
        return self.roots(np.arange(len(self._parent_N)))
