"""The tables of batches. A batch is what one submission of a dataset made of each of its rows.

A row of a batch is one entry of the source with one of the recipe's variants. It has led to a job
(`job`), refers to the job that an equal row had led to before (`skipped`), or could not become one
(`failed`, with a code and a reason). A job belongs to the batch in `jobs.batch`, the one that last
made it run; the rows of any number of batches may refer to it. What has become of a row is what
has become of its job: see storage.batches.
"""

from sqlalchemy import Boolean, Column, Double, ForeignKey, Index, Integer, String, Table, Text

from storage.tables import Id, metadata

__all__ = ["batch_rows", "batches", "metadata"]

batches = Table(
    "batches",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(200), nullable=False),
    #: What the user named, local paths made absolute.
    Column("source", Text, nullable=False),
    #: JSON, in the form in which a recipe is read.
    Column("recipe", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    #: NULL: rows are still coming in, or the submission was interrupted.
    Column("submitted_at", Double),
    #: How many rows it has, once all of them are there.
    Column("total", Integer),
    #: JSON: the numbers of the rows that run first; NULL where all do.
    Column("pilot", Text),
    #: Its other rows' jobs wait for a release.
    Column("held", Boolean, nullable=False),
)
Index("ix_batches_name", batches.c.name, batches.c.id)

batch_rows = Table(
    "batch_rows",
    metadata,
    Column("batch_id", Id, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    #: From 0 on, in the source's order.
    Column("number", Integer, primary_key=True, autoincrement=False),
    #: For people: `cats/list.csv:12`, `cats/a.png`.
    Column("place", Text, nullable=False),
    #: A relative path without ending; with the variant unlike any other of the batch. NULL: the
    #: entry could not be read.
    Column("entry", String(1024)),
    #: Such as `strength-0.4.seed-7`; empty where there is but one.
    Column("variant", String(400), nullable=False),
    #: The picture as the source names it, relative to it, or a URL. NULL: no picture, or its bytes.
    Column("file", Text),
    #: JSON: the entry's other columns as they were read.
    Column("cells", Text),
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="SET NULL")),
    #: `job`, `skipped` or `failed`.
    Column("outcome", String(10), nullable=False),
    Column("code", String(100)),
    Column("reason", Text),
)
Index("ix_batch_rows_job_id", batch_rows.c.batch_id, batch_rows.c.job_id)
Index(
    "uq_batch_rows_name",
    batch_rows.c.batch_id,
    batch_rows.c.entry,
    batch_rows.c.variant,
    unique=True,
)
