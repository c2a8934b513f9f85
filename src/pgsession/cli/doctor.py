"""`pgsession doctor` finds out what keeps nodes from answering from memory, and what mends it."""

from __future__ import annotations

import click
import msgspec

from pgsession import Admin, Finding

from ._failures import Status
from ._output import Output, plain
from ._parameters import Target, on_tables, without_password

_SIGNS = {"problem": "PROBLEM", "warning": "warning", "unknown": "?", "well": "well"}
_COLORS = {"problem": "red", "warning": "yellow", "unknown": None, "well": "green"}


@click.command()
@click.option(
    "--listener-conninfo", metavar="CONNINFO", callback=without_password,
    help="Where the listener connects, else PGSESSION_LISTENER_CONNINFO, else DATABASE.",
)  # fmt: skip
@on_tables
def doctor(target: Target, output: Output, listener_conninfo: str | None) -> int:
    """Look for each cause that keeps nodes from answering from memory, and name its remedy; change nothing.

    Run it where a node runs, as the service's role, with the service's conninfo and PGSESSION_... variables.

    Exit status 1: there is a problem, so that nodes do not work or do not answer from memory. 3: there is something
    that may become one. 0: neither; what could not be looked for is marked with a question mark.
    """
    config = target.config
    if listener_conninfo is not None:
        config = msgspec.structs.replace(config, listener_conninfo=listener_conninfo)
    found = Admin(target.conninfo, config).diagnose()
    levels = {finding.level for finding in found}
    if output.as_json:
        output.rows([msgspec.structs.asdict(finding) for finding in found], {}, nothing="")
    else:
        _tell(found)
    return (
        Status.FAILED
        if "problem" in levels
        else Status.SOMETHING_LEFT
        if "warning" in levels
        else Status.WELL
    )


def _tell(found: list[Finding]) -> None:
    width = max(len(finding.cause) for finding in found)
    for finding in found:
        sign = click.style(f"{_SIGNS[finding.level]:<7}", fg=_COLORS[finding.level])
        click.echo(f"{sign}  {finding.cause:<{width}}  {plain(finding.message)}")
        if finding.remedy is not None:
            click.echo(f"{'':<7}  {'':<{width}}  remedy: {plain(finding.remedy)}")
