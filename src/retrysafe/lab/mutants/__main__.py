"""Runs one server of the laboratory by hand: `python -m retrysafe.lab.mutants NAME --port 8080`."""

from __future__ import annotations

import sys

import click
import uvicorn

from retrysafe.lab.mutants.catalogue import SERVERS
from retrysafe.lab.mutants.serving import config


@click.command()
@click.argument("name", type=click.Choice(sorted(SERVERS)))
@click.option("--port", type=int, default=8080, show_default=True, help="Where it listens, on the loopback.")
def main(name: str, port: int) -> None:
    """Run a server with one known defect, or `Server`, which has none."""
    click.echo(f"{name}: {' '.join((SERVERS[name].__doc__ or '').split())}", err=True)
    uvicorn.Server(config(SERVERS[name](), port)).run()


if __name__ == "__main__":
    sys.exit(main())
