"""What ``extract`` and ``plan`` are asked for: images, networks, layers, and limits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import click

import embedkit as ek
from embedkit.cli.layers import weights_of

if TYPE_CHECKING:
    from embedkit.extraction.decoding import Decode
    from embedkit.extraction.rounding import Dtype
    from embedkit.images.imageset import ImageSet
    from embedkit.networks.backends import Backend
    from embedkit.networks.network import Network

_Command: TypeAlias = Callable[..., Any]

_ASKING = (
    click.argument("images"),
    click.option(
        "-n",
        "--network",
        "networks",
        multiple=True,
        default=("resnet50",),
        help="May repeat: images are then read once for all.  [default: resnet50]",
    ),
    click.option("--weights", default="default", help="default, none, or a file."),
    click.option(
        "-l",
        "--layers",
        multiple=True,
        help="all, blocks, stages, last, a name or a glob; may repeat.  "
        "[default: stages]",
    ),
    click.option(
        "--pool",
        "pools",
        multiple=True,
        help="avg, max, gem, avg2x2, max2x2, cls, tokens_avg, flatten, none or "
        "'random_projection(64)'; LAYER=POOL for some layers alone.  [default: avg]",
    ),
    click.option(
        "--dtype",
        type=click.Choice(("float32", "float16")),
        default="float32",
        show_default=True,
        help="What layers are stored as.",
    ),
    click.option(
        "--backend",
        default="torch",
        show_default=True,
        help="torch, torch_channels_last, torch_fused, openvino, cuda_amp, or auto for "
        "the fastest that agrees with torch.",
    ),
    click.option(
        "--decode",
        type=click.Choice(("exact", "fast")),
        default="exact",
        show_default=True,
        help="fast: large JPEGs no larger than the network needs; says how far off that "
        "is.",
    ),
    click.option("--path-column", help="For tables: the column that holds paths."),
    click.option("--id-column", help="For tables: the column that holds ids."),
    click.option(
        "--image-column", help="For Parquet files: the column that holds the images."
    ),
    click.option("--array", help="For HDF5 and Zarr files: the array of images."),
    click.option(
        "--root",
        type=click.Path(),
        help="For tables and lists: where relative paths start.",
    ),
    click.option(
        "--batch-size", type=click.IntRange(1), help="Images per forward pass."
    ),
)

_ALLOWING = (
    click.option("--memory-limit", help="Of one worker, like '2 GiB'."),
    click.option("--time-budget", help="What the run may take, like 2h."),
    click.option(
        "--disk-budget", help="What layers may take, uncompressed, like '1 TiB'."
    ),
    click.option("--max-files", type=click.IntRange(1), help="Files of the store."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is to be extracted, as the options say it."""

    images: str
    networks: tuple[str, ...]
    weights: str
    layers: tuple[str, ...]
    pools: tuple[str, ...]
    dtype: Dtype
    backend: Backend
    decode: Decode
    path_column: str | None
    id_column: str | None
    image_column: str | None
    array: str | None
    root: str | None
    batch_size: int | None

    def opened(self) -> ImageSet:
        """Return the images."""
        return ek.open_images(
            self.images,
            path_column=self.path_column,
            id_column=self.id_column,
            image_column=self.image_column,
            array=self.array,
            root=self.root,
        )

    def loaded(self) -> list[Network]:
        """Return the networks."""
        weights = weights_of(self.weights)
        return [ek.load_network(name, weights=weights) for name in self.networks]

    @property
    def arguments(self) -> dict[str, Any]:
        """What `embedkit.extract` and `embedkit.plan` are both given."""
        return {
            "layers": wanted(self.layers),
            "pool": pooled(self.pools),
            "dtype": self.dtype,
            "backend": self.backend,
            "decode": self.decode,
            "batch_size": self.batch_size,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowing:
    """What a run may take, as the options say it."""

    memory_limit: str | None
    time_budget: str | None
    disk_budget: str | None
    max_files: int | None

    @property
    def given(self) -> dict[str, Any]:
        """The limits that were given."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


def strategy_option(command: _Command) -> _Command:
    """Give a command ``--strategy``."""
    return click.option(
        "--strategy",
        type=click.Choice(("auto", "fused", "staged", "lazy")),
        default="auto",
        show_default=True,
        help="Layers in one pass (fused), each from the map before it (staged), or each "
        "from the images (lazy). The numbers are the same.",
    )(command)


def asks(command: _Command) -> _Command:
    """Give a command the options of `Asking`, as its argument ``asking``."""
    return _with(command, _ASKING, Asking, name="asking")


def allows(command: _Command) -> _Command:
    """Give a command the options of `Allowing`, as its argument ``allowing``."""
    return _with(command, _ALLOWING, Allowing, name="allowing")


def _with(
    command: _Command,
    options: tuple[Callable[[_Command], _Command], ...],
    kind: type[Asking | Allowing],
    *,
    name: str,
) -> _Command:
    """Gather the options of a kind into one argument."""

    @functools.wraps(command)
    def gathered(**given: Any) -> Any:
        mine = {each.name: given.pop(each.name) for each in fields(kind)}
        return command(**given, **{name: kind(**mine)})

    found: _Command = gathered
    for option in reversed(options):
        found = option(found)
    return found


def wanted(layers: tuple[str, ...]) -> str | list[str]:
    """Return the layers as `embedkit.extract` takes them."""
    if not layers:
        return "stages"
    return layers[0] if len(layers) == 1 else list(layers)


def pooled(pools: tuple[str, ...]) -> str | Mapping[str, str]:
    """Return ways of pooling as `embedkit.extract` takes them: one, or by layer."""
    given: dict[str, str] = {}
    for each in pools:
        layer, mark, _ = each.partition("(")[0].rpartition("=")
        key = layer if mark else "*"
        if key in given:
            message = f"--pool is given twice for {key!r}: {given[key]!r} and {each!r}"
            raise click.UsageError(message)
        given[key] = each[len(layer) + len(mark) :]
    rest = given.pop("*", "avg")
    return {**given, "*": rest} if given else rest
