"""The database's clock: the only one that leases and due times go by, so hosts need not agree."""

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class Now(FunctionElement[float]):
    """Seconds since the epoch, as the database server reads them when the statement begins."""

    type = Double()
    inherit_cache = True


@compiles(Now, "postgresql")
def _postgresql(element: Now, compiler: SQLCompiler, **_: Any) -> str:
    # Not clock_timestamp(): an index cannot be searched with a volatile function.
    return "CAST(EXTRACT(EPOCH FROM statement_timestamp()) AS DOUBLE PRECISION)"


@compiles(Now, "sqlite")
def _sqlite(element: Now, compiler: SQLCompiler, **_: Any) -> str:
    # unixepoch('subsec') needs SQLite 3.42.
    return "((julianday('now') - 2440587.5) * 86400.0)"
