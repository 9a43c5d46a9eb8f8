"""``ingest doctor``: looks at everything that an engine needs, and says what is wrong and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ingest.cli.printing import say, say_json
from ingest.cli.settings import of_running_engine, with_settings
from ingest.config.loading import DEFAULT_TOML, SITE_TOML, Origins

WRONG, AWAY = 2, 3  # exit codes, as of all commands


@click.command("doctor")
@click.option("--json", "as_json_", is_flag=True, help="one JSON object: ok, and the findings")
@with_settings
def doctor_command(settings: Origins, as_json_: bool) -> int:
    """Look at broker, database, roles, clock, limits, files and disk, and say what is wrong and what to do.

    It changes nothing and takes no message. Exit code 0: an engine can work (or does); 2: something is wrong;
    3: nothing is, but the broker or the database does not answer.
    """
    from ingest.engine.examination import as_json, examine_all
    from ingest.engine.surroundings import Surroundings

    config_file = click.get_current_context().params.get("config_file")
    surroundings = Surroundings(
        toml_file=Path(config_file or (DEFAULT_TOML if DEFAULT_TOML.exists() else SITE_TOML))
    )
    findings = []
    config = settings.config
    at_work = (
        config if config.queue_source and config.database else of_running_engine(config, may_be_away=True)
    )
    for finding in examine_all(config, surroundings, at_work):
        findings.append(finding)
        if not as_json_:
            say(f"{finding.state:<5}  {finding.what:<11}  {finding.text}")
            if finding.remedy:
                say(f"       {'':<11}  do: {finding.remedy}")
    if as_json_:
        say_json(json.dumps(as_json(findings), indent=2).encode())
    states = {str(finding.state) for finding in findings}
    return WRONG if "wrong" in states else AWAY if "away" in states else 0
