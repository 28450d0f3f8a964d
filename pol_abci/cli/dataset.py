"""`dataset`: whether this machine has what a chain learns, and digests for a genesis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pol_abci.cli.commands import (
    EXIT_CODES,
    data_dir_option,
    home_option,
    json_option,
    print_json,
)
from pol_abci.node.home import load_home

if TYPE_CHECKING:
    from pol_abci.learning.datasets import Dataset


@click.group(epilog=EXIT_CODES)
def dataset() -> None:
    """Find datasets on this machine, and check them.

    A node downloads nothing: digits come with scikit-learn, Fashion-MNIST with Debian's package
    dataset-fashion-mnist, or as its four files in a folder that --data-dir or pol.toml names;
    CIFAR-10 as cifar-10-batches-py, which `fetch` gets, or as a folder of image files.
    """


@dataset.command(epilog=EXIT_CODES)
@home_option
@data_dir_option
@json_option
def check(*, home: Path, data_dir: Path | None, as_json: bool) -> None:
    """Compare the dataset of a home's chain with its genesis."""
    here = load_home(home)
    task = here.genesis.params.task
    from pol_abci.learning.datasets import (  # noqa: PLC0415 (numpy takes its time to load)
        check_digest,
        load_dataset,
    )

    train, test = load_dataset(task.dataset, data_dir or here.settings.data_dir)
    check_digest(task.dataset, "train", train, task.train_digest)
    check_digest(task.dataset, "test", test, task.test_digest)
    _print(task.dataset, train, test, as_json=as_json)
    if not as_json:
        click.echo(f"these are what {here.settings.chain_id} learns")


@dataset.command(epilog=EXIT_CODES)
@click.argument("name")
@data_dir_option
@json_option
def digest(name: str, *, data_dir: Path | None, as_json: bool) -> None:
    """Print the digests of the dataset NAME.

    They stand in a genesis; with them come counts and shapes.
    """
    from pol_abci.learning.datasets import load_dataset  # noqa: PLC0415 (as above)

    _print(name, *load_dataset(name, data_dir), as_json=as_json)


@dataset.command(epilog=EXIT_CODES)
@click.argument("name", type=click.Choice(["cifar10"]))
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The folder to put it into; later commands take the same.",
)
def fetch(name: str, *, data_dir: Path) -> None:
    """Download the dataset NAME through torchvision, 170 MB, and show what came."""
    from pol_abci.learning.datasets import load_dataset  # noqa: PLC0415 (as above)
    from pol_abci.learning.datasets.cifar import fetch_cifar10  # noqa: PLC0415 (as above)

    fetch_cifar10(data_dir)
    _print(name, *load_dataset(name, data_dir), as_json=False)


def _print(name: str, train: Dataset, test: Dataset, *, as_json: bool) -> None:
    parts = {"train": train, "test": test}
    if as_json:
        described = {part: _compose_document(each) for part, each in parts.items()}
        print_json({"dataset": name, "source": train.source, **described})
        return
    click.echo(f"{name}, {train.classes} classes, from {train.source}")
    for part, each in parts.items():
        document = _compose_document(each)
        size = "x".join(str(length) for length in document["shape"])
        click.echo(f"{part:5}  {document['count']:,} images of {size}, digest {document['digest']}")


def _compose_document(part: Dataset) -> dict[str, Any]:
    from pol_abci.learning.datasets import compute_digest  # noqa: PLC0415 (as above)

    return {
        "count": len(part),
        "shape": list(part.images.shape[1:]),
        "digest": compute_digest(part).hex(),
    }
