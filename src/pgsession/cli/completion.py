"""`pgsession completion` prints what a shell completes the other commands by."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_PGSESSION_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the script by which SHELL completes commands and options.

    In ~/.bashrc: eval "$(pgsession completion bash)". In ~/.zshrc: eval "$(pgsession completion zsh)". For fish:
    pgsession completion fish > ~/.config/fish/completions/pgsession.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(click.Group(), {}, "pgsession", VARIABLE).source())
    return 0
