"""The jobs of a run: what workers need, and where they find it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from embedkit.config import settings
from embedkit.extraction.block.job import Job, Part
from embedkit.extraction.strategy.selection import Origin, Selection
from embedkit.extraction.strategy.shortcut import cheaper_start
from embedkit.files.files import Files, files_at
from embedkit.images.draft import decoded_by
from embedkit.images.source import Source
from embedkit.networks.network import Network
from embedkit.planning.plan import Plan
from embedkit.store.commits import PRIVATE
from embedkit.store.lock import Lock
from embedkit.store.schema import Pass
from embedkit.store.store import Store

SPOOL = f"{PRIVATE}/spool"


class Jobs:
    """Makes the jobs of a run: what workers need, where they find it.

    Parameters
    ----------
    store : Store
        The store.
    networks : mapping of str to Network
        By what the store calls them.
    source : Source
        Of the images.
    lock : Lock
        Of the store.
    plan : Plan, optional
        See `embedkit.extraction.run.fill`.
    only : Selection, optional
        What of the store.
    """

    def __init__(
        self,
        store: Store,
        networks: Mapping[str, Network],
        source: Source,
        lock: Lock,
        *,
        plan: Plan | None = None,
        only: Selection | None = None,
    ) -> None:
        self._store, self._networks, self._lock = store, networks, lock
        self._source, self._plan, self._only = source, plan, only
        self._origins: dict[str, Origin | None] = dict(only.origins) if only else {}

    def wanted(self, blocks: Collection[int]) -> set[int]:
        """Return those of some blocks that are to be computed."""
        chosen = None if self._only is None else self._only.blocks
        return set(blocks) if chosen is None else set(blocks) & set(chosen)

    def origin(self, one: Pass) -> Origin | None:
        """Return the stored layer from which a pass is computed, if it is cheaper."""
        if one.key not in self._origins:
            network = self._networks[one.network]
            found = cheaper_start(self._store, network, self._decoded(one), one)
            self._origins[one.key] = None if found is None else Origin(found)
        return self._origins[one.key]

    def of(self, *passes: Pass) -> Job:
        """Return the job of passes that have the same blocks and decode alike."""
        shared, plan = None if self._only is None else self._only.spool, self._plan
        spool = spool_of(self._store) if shared is None else shared
        return Job(
            store=self._store.url,
            token=self._lock.token,
            parts=tuple(self._part(one, spool) for one in passes),
            source=self._decoded(passes[0]).spooled(spool),
            decode_threads=plan.decode_threads if plan else settings().decode_threads,
            slots=plan.threads if plan else 0,
            n_workers=plan.n_workers if plan else 1,
            # which is that of all layers together
            projected_mem=plan.projected_mem if plan and not self._only else 0,
        )

    def _part(self, one: Pass, spool: Files) -> Part:
        known = {} if self._only is None else self._only.spooled
        if one.network not in known:  # a large network takes seconds to write
            known[one.network] = self._networks[one.network].spool(spool)
        origin = self.origin(one)
        start, place = (None, None) if origin is None else (origin.layer, origin.place)
        return Part(one.identity, known[one.network], start, place)

    def _decoded(self, one: Pass) -> Source:
        """Return the source as a pass decodes it."""
        return decoded_by(self._source, one.parts["decode"])


def spool_of(store: Store) -> Files:
    """Return where networks and pixels lie for the length of a run."""
    return files_at(f"{store.url}/{SPOOL}")
