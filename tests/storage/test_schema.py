import subprocess
import sys

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from storage.database import Database
from storage.ledger import Ledger
from storage.tables import metadata
from tests.storage.specs import a_spec


def test_upgrade_makes_the_tables_and_repeating_it_harms_nothing(empty_database_url: str) -> None:
    ledger = Ledger.open(empty_database_url)
    found, wanted = ledger.schema()
    assert found is None

    ledger.upgrade()
    ledger.submit([a_spec()])
    ledger.upgrade()

    assert ledger.schema() == (wanted, wanted)
    assert len(ledger.jobs()) == 1
    ledger.close()


def test_the_migrations_make_the_tables_that_the_code_describes(ledger_url: str) -> None:
    database = Database(ledger_url)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()


_UPGRADE = """
import sys
from storage.ledger import Ledger
ledger = Ledger.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
ledger.upgrade()
found, wanted = ledger.schema()
sys.exit(found != wanted)
"""


def test_several_processes_may_upgrade_at_once(empty_database_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _UPGRADE, empty_database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0, 0], errors
