"""``embedkit demo``: the whole journey on handwritten digits, in under a minute."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import embedkit as ek
from embedkit.cli.options import kept, neighbors_of, workers
from embedkit.cli.output import common, emit, extraction_bar, line, say, table
from embedkit.cli.probe import print_scores
from embedkit.cli.probe import rows as score_rows
from embedkit.errors import InputError
from embedkit.networks.bundled.held_out import write_held_out
from embedkit.planning.units import told_bytes

if TYPE_CHECKING:
    import xarray as xr

    from embedkit.extraction.run import Progress
    from embedkit.images.imageset import ImageSet
    from embedkit.networks.network import Network
    from embedkit.store.store import Store

N_WORKERS = 2
N_NEIGHBORS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """How the extraction went."""

    speed: str
    dashboard: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the analyses came to."""

    scores: xr.Dataset
    layer: str
    neighbor_accuracy: float
    cluster_rand: float
    community_rand: float
    picture: Path


@click.command(epilog="Example: embedkit demo demo")
@click.argument("folder", type=click.Path(path_type=Path), default="demo")
@common
def demo(*, folder: Path, as_json: bool) -> None:
    """Run the whole journey on handwritten digits and leave the results in FOLDER."""
    if folder.is_file():
        raise InputError(f"{folder} is a file: name a folder for the demo, new or old")
    began = time.perf_counter()
    images = _open_digits(folder / "digits")
    network = ek.load_network("embedkit/digits")
    say(repr(images))
    say(repr(network))
    run = _extract(images, network, folder / "demo.zarr")
    # Extracting once more computes nothing, and refuses a store of other images.
    store = ek.extract(images, network, folder / "demo.zarr", layers="all")
    found = _analyse(store, images, folder / "map.png")
    if as_json:
        emit(_document(store, found, run))
    else:
        _print(store, found, run)
        line(f"{time.perf_counter() - began:.0f} s in all")


def _open_digits(folder: Path) -> ImageSet:
    """Write the held-out digits as PNG files in class folders, once, and open them."""
    if not folder.is_dir():
        say(f"writing the held-out digits to {folder}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_held_out(folder)
    return ek.open_images(folder)


def _extract(images: ImageSet, network: Network, path: Path) -> _Run:
    """Extract on two worker processes, where anything is left to do."""
    if path.exists() and ek.open_store(path).complete:
        say(f"{path} is finished: nothing to extract")
        return _Run(speed="finished before", dashboard="not started")
    seen: list[Progress] = []
    with workers(N_WORKERS) as client, extraction_bar() as show:

        def follow(progress: Progress) -> None:
            seen.append(progress)
            show(progress)

        ek.extract(images, network, path, layers="all", on_progress=follow)
        link = "not started" if client is None else str(client.dashboard_link)
    return _Run(speed=_speed(seen), dashboard=link)


def _speed(seen: list[Progress]) -> str:
    """Return images a second from the first block to the last, and the whole time."""
    first, last = seen[0], seen[-1]
    rate = (last.images_done - first.images_done) / max(
        last.seconds - first.seconds, 1e-9
    )
    start = f"the first block after {first.seconds:.1f} s: workers load the network"
    return f"{rate:.0f} images/s with {N_WORKERS} workers ({start})"


def _analyse(store: Store, images: ImageSet, picture: Path) -> _Found:
    """Compute, or take from the store, everything that the demo tells."""
    say("probing every layer")
    if "probe/label" not in store.results:
        store.save("probe/label", ek.probe(store, target="label"))
    scores = store.load("probe/label").compute()
    layer = str(scores.attrs["best_layer"])
    say(f"neighbors, communities and clusters of the best layer, {layer}")
    nn = neighbors_of(store, layer, n_neighbors=N_NEIGHBORS, metric="cosine").compute()
    graph = ek.neighbor_graph(nn)
    communities = kept(store, f"communities/{layer}", lambda: ek.communities(graph))
    clusters = kept(
        store,
        f"cluster/{layer}",
        lambda: ek.cluster(store[layer], neighbors=nn, min_cluster_size=10),
    )
    say("map (UMAP compiles itself the first time)")
    xy = kept(
        store, f"map/{layer}", lambda: ek.project(graph, min_dist=0.8, spread=2.0)
    )
    if not picture.exists():
        title = f"{len(images)} handwritten digits the network never saw, by {layer}"
        ek.pl.save_map(xy["map"], picture, color="label", images=images, title=title)
    return _Found(
        scores=scores,
        layer=layer,
        neighbor_accuracy=ek.neighbor_accuracy(nn, nn["label"]),
        cluster_rand=ek.adjusted_rand(clusters["label"], nn["label"])[0],
        community_rand=ek.adjusted_rand(communities["community"], nn["label"])[0],
        picture=picture,
    )


def _print(store: Store, found: _Found, run: _Run) -> None:
    info = store.info()
    line("")
    line(f"extraction: {run.speed}")
    table(
        (
            (name, layer["shape"][0], told_bytes(layer["nbytes"]))
            for name, layer in info["layers"].items()
        ),
        columns=("layer", ">features", ">bytes"),
    )
    line(
        f"{len(store)} layers of {info['images']} images: {told_bytes(info['nbytes'])} of "
        f"activations, {told_bytes(info['nbytes_stored'])} on disk"
    )
    line("")
    line("a linear probe on every layer:")
    print_scores(found.scores)
    line("")
    line(f"in layer {found.layer}:")
    right = f"{found.neighbor_accuracy:.1%}"
    line(f"  {N_NEIGHBORS} nearest neighbors name the digit: {right} right")
    index = "against the digits, adjusted Rand index"
    line(f"  HDBSCAN clusters {index} {found.cluster_rand:.2f}")
    line(f"  Leiden communities {index} {found.community_rand:.2f}")
    line("")
    line(f"store:     {store.path}")
    line(f"map:       {found.picture.absolute()}")
    line(f"dashboard: {run.dashboard}")


def _document(store: Store, found: _Found, run: _Run) -> dict[str, Any]:
    return {
        "store": store.info(),
        "probe": {"best_layer": found.layer, "layers": score_rows(found.scores)},
        "neighbor_accuracy": found.neighbor_accuracy,
        "adjusted_rand": {
            "cluster": found.cluster_rand,
            "communities": found.community_rand,
        },
        "extraction": run.speed,
        "picture": str(found.picture.absolute()),
        "dashboard": run.dashboard,
    }
