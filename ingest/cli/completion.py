"""``ingest completion``: what a shell needs to complete our commands and flags."""

from __future__ import annotations

import click

SHELLS = {
    "bash": 'in ~/.bashrc: eval "$(ingest completion bash)"',
    "zsh": 'in ~/.zshrc, after compinit: eval "$(ingest completion zsh)"',
    "fish": "ingest completion fish > ~/.config/fish/completions/ingest.fish",
}
VARIABLE = "_INGEST_COMPLETE"


@click.command("completion", epilog="\b\n" + "\n".join(SHELLS.values()))
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes commands and flags."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    completion = found(context.find_root().command, {}, "ingest", VARIABLE)
    # Not source(), which for bash starts one to ask its version.
    click.echo(completion.source_template % completion.source_vars())
