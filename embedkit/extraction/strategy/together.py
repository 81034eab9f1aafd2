"""How far a run of several turns is, told as if it were one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from embedkit.extraction.run import Progress
from embedkit.store.schema import Pass
from embedkit.store.store import Store


class Together:
    """Adds up the progress of turns.

    Parameters
    ----------
    store : Store
        The store.
    passes : sequence of Pass
        Of the networks that are run.
    on_progress : callable, optional
        Is told the sum, after each block.
    """

    def __init__(
        self,
        store: Store,
        passes: Sequence[Pass],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._tell, self._n_images = on_progress, store.schema.n_images
        self._done, self._failed, self._lost = {}, {}, 0
        for one in passes:
            commits = store.commits(one).values()
            self._done[one.key] = sum(each.stop - each.start for each in commits)
            self._failed[one.key] = sum(len(each.failures) for each in commits)
        self._before = sum(self._done.values())
        self._passes, self._began = len(passes), time.perf_counter()

    def expect(self, maps: int) -> None:
        """Count so many raw maps besides the layers."""
        self._passes += maps

    def turn(
        self, passes: Sequence[Pass], *, maps: bool
    ) -> Callable[[Progress], None] | None:
        """Return what is told of a turn that computes some passes."""
        if self._tell is None:
            return None
        keys = [one.key for one in passes]
        for key in keys:
            self._done.setdefault(key, 0)
        others = sum(done for key, done in self._done.items() if key not in keys)
        failed = sum(bad for key, bad in self._failed.items() if key not in keys)
        lost, tell = self._lost, self._tell

        def follow(now: Progress) -> None:
            self._lost = lost + now.n_lost
            self._done |= dict.fromkeys(keys, 0) | {keys[0]: now.images_done}
            if not maps:
                self._failed |= dict.fromkeys(keys, 0) | {keys[0]: now.n_failed}
            tell(
                Progress(
                    images_done=others + now.images_done,
                    n_images=self._passes * self._n_images,
                    images_before=self._before,
                    n_failed=failed + (0 if maps else now.n_failed),
                    n_lost=self._lost,
                    seconds=time.perf_counter() - self._began,
                )
            )

        return follow
