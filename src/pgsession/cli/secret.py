"""`pgsession secret rotate` makes another secret, from which the names of the nodes' channels follow."""

from __future__ import annotations

import click

from ._output import Output
from ._parameters import Target, on_all


@click.group()
def secret() -> None:
    """Look after the secret that names the channels between nodes."""


@secret.command()
@on_all
def rotate(target: Target, output: Output) -> int:
    """Make another secret, as after a leak; who knows the old one hears nothing more.

    Run it as the owner of the tables. Each node reads from the database until its listener is connected again, which it
    is within a second or so. Sessions and tokens stay as they are.
    """
    target.admin.rotate_secret()
    output.done({"rotated": True}, "there is another secret: nodes connect their listeners again")
    return 0
