"""`pgsession nodes` lists who serves sessions from memory."""

from __future__ import annotations

import click

from ._output import Output
from ._parameters import Target, on_tables


@click.command()
@on_tables
def nodes(target: Target, output: Output) -> int:
    """List the nodes that are registered, each with its last sign of life.

    A node gives one once a minute. One whose last is minutes old is stuck, or died without a word; it goes by itself,
    as soon as another node notices.
    """
    rows = [
        {
            "node": node.node,
            "last_sign_of_life": node.registered_at,
            "serves_for_seconds": node.serves_for.total_seconds(),
        }
        for node in target.admin.nodes()
    ]
    columns = {"node": "node", "last_sign_of_life": "last sign of life", "serves_for_seconds": "serves for"}
    output.rows(rows, columns, nothing="no node is registered")
    return 0
