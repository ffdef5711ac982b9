"""`keys add`, `keys list` and `keys revoke`: who may use the HTTP API."""

from typing import Annotated, Any

import typer
from rich.table import Column, Table

from producer.commands.output import AsJson, out, print_json, say
from producer.description import when
from storage.keys import Key, Keys, Scope
from storage.ledger import Ledger
from storage.settings import load_settings, require

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def _keys() -> Keys:
    return Keys(Ledger.open(require(load_settings(), "database_url")).database)


@app.command()
def add(
    owner: Annotated[str, typer.Argument(help="Whose jobs it enters and sees.")],
    scope: Annotated[
        Scope, typer.Option(help="What it allows: each scope holds the ones before it.")
    ] = Scope.SUBMIT,
    max_queued: Annotated[
        int | None, typer.Option(min=0, help="Jobs that may wait at once.")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(min=0, help="Pixels of a picture: width times height.")
    ] = None,
    max_per_minute: Annotated[int | None, typer.Option(min=0, help="Requests a minute.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once: the ledger keeps only its hash."""
    made = _keys().add(
        owner, scope, max_queued=max_queued, max_pixels=max_pixels, max_per_minute=max_per_minute
    )
    if as_json:
        secrets = {"token": made.token, "webhook_secret": made.webhook_secret}
        print_json({**_shown(made.key), **secrets})
        return
    say(f"id              {made.key.id}")
    say(f"key             {made.token}")
    say(f"webhook secret  {made.webhook_secret}")
    say("Neither can be shown again.")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the keys, oldest first."""
    keys = _keys().all()
    if as_json:
        for key in keys:
            print_json(_shown(key))
        return
    names = ("id", "begins", "owner", "scope", "queued", "pixels", "a minute", "revoked")
    table = Table(*(Column(name, overflow="fold") for name in names), box=None)
    for key in keys:
        limits = (key.max_queued, key.max_pixels, key.max_per_minute)
        allowed = ["any" if limit is None else f"{limit:,}" for limit in limits]
        table.add_row(key.id, key.hint, key.owner, key.scope, *allowed, when(key.revoked_at) or "")
    out.print(table, markup=False, soft_wrap=True)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Its id, or how it begins.")], as_json: AsJson = False
) -> None:
    """End a key, within seconds everywhere. Its owner's jobs stay."""
    ended = _keys().revoke(key)
    if as_json:
        print_json(_shown(ended))
        return
    say(f"{ended.id} of {ended.owner} opens nothing any more.")


def _shown(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "owner": key.owner,
        "scope": key.scope,
        "hint": key.hint,
        "max_queued": key.max_queued,
        "max_pixels": key.max_pixels,
        "max_per_minute": key.max_per_minute,
        "created_at": when(key.created_at),
        "revoked_at": when(key.revoked_at),
    }
