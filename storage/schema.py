"""The tables' versions: bringing a database to the one that this code needs."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from storage import schedule_tables  # noqa: F401 - its tables are known to `metadata`
from storage.api_tables import metadata

#: Any number that nothing else locks on in the same Postgres database.
_UPGRADE_LOCK = 7_204_711_026


def upgrade(connection: Connection) -> None:
    """Bring the tables to this version within the connection's transaction, one process a time.

    SQLite's writing transaction is its own lock.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _UPGRADE_LOCK})
    config = _config()
    config.attributes |= {"connection": connection, "metadata": metadata}
    command.upgrade(config, "head")


def revisions(connection: Connection) -> tuple[str | None, str]:
    """The revision that the database has, and the one that this code needs."""
    found = MigrationContext.configure(connection).get_current_revision()
    wanted = ScriptDirectory.from_config(_config()).get_current_head()
    assert wanted is not None, "the package has its migrations"
    return found, wanted


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "storage:migrations")
    config.set_main_option("path_separator", "os")
    return config
