"""Every layer of every image: network activations in Zarr, and what to learn from them.

Names are resolved on first use, so ``import embedkit`` loads no heavy library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedkit import view as pl
    from embedkit.analysis.agreement import adjusted_rand, neighbor_accuracy
    from embedkit.analysis.append import append_neighbors
    from embedkit.analysis.cluster import cluster
    from embedkit.analysis.communities import communities, modularity
    from embedkit.analysis.graph import adjacency, neighbor_graph
    from embedkit.analysis.index.calls import build_index, open_index
    from embedkit.analysis.index.object import Index
    from embedkit.analysis.neighbors import neighbors
    from embedkit.analysis.probe import probe
    from embedkit.analysis.project import project
    from embedkit.deploy.connect import connect
    from embedkit.extraction.driver import extract
    from embedkit.extraction.plans.planned import plan
    from embedkit.extraction.verify import verify
    from embedkit.images.imageset import ImageSet
    from embedkit.images.open import open_images
    from embedkit.networks.load import load_network
    from embedkit.networks.network import Network
    from embedkit.planning.plan import Plan
    from embedkit.retrieval.control import duplicate_threshold
    from embedkit.retrieval.duplicates import duplicates
    from embedkit.retrieval.search import search
    from embedkit.store.store import Store, open_store

__version__ = "0.1.0"

_HOME = {
    "ImageSet": "embedkit.images.imageset",
    "Index": "embedkit.analysis.index.object",
    "Network": "embedkit.networks.network",
    "Plan": "embedkit.planning.plan",
    "Store": "embedkit.store.store",
    "adjacency": "embedkit.analysis.graph",
    "adjusted_rand": "embedkit.analysis.agreement",
    "append_neighbors": "embedkit.analysis.append",
    "build_index": "embedkit.analysis.index.calls",
    "cluster": "embedkit.analysis.cluster",
    "communities": "embedkit.analysis.communities",
    "connect": "embedkit.deploy.connect",
    "duplicate_threshold": "embedkit.retrieval.control",
    "duplicates": "embedkit.retrieval.duplicates",
    "extract": "embedkit.extraction.driver",
    "load_network": "embedkit.networks.load",
    "modularity": "embedkit.analysis.communities",
    "neighbor_accuracy": "embedkit.analysis.agreement",
    "neighbor_graph": "embedkit.analysis.graph",
    "neighbors": "embedkit.analysis.neighbors",
    "open_images": "embedkit.images.open",
    "open_index": "embedkit.analysis.index.calls",
    "open_store": "embedkit.store.store",
    "pl": "embedkit.view",
    "plan": "embedkit.extraction.plans.planned",
    "probe": "embedkit.analysis.probe",
    "project": "embedkit.analysis.project",
    "search": "embedkit.retrieval.search",
    "verify": "embedkit.extraction.verify",
}

__all__ = [
    "ImageSet",
    "Index",
    "Network",
    "Plan",
    "Store",
    "adjacency",
    "adjusted_rand",
    "append_neighbors",
    "build_index",
    "cluster",
    "communities",
    "connect",
    "duplicate_threshold",
    "duplicates",
    "extract",
    "load_network",
    "modularity",
    "neighbor_accuracy",
    "neighbor_graph",
    "neighbors",
    "open_images",
    "open_index",
    "open_store",
    "pl",
    "plan",
    "probe",
    "project",
    "search",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import the home of a public name when it is first asked for."""
    if name not in _HOME:
        message = f"module 'embedkit' has no attribute {name!r}"
        raise AttributeError(message)
    module = importlib.import_module(_HOME[name])
    value = module if name == "pl" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
