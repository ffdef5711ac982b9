"""What alembic runs: migrations on the connection that storage.schema hands over."""

from alembic import context

found = context.config.attributes
context.configure(connection=found["connection"], target_metadata=found["metadata"])
with context.begin_transaction():
    context.run_migrations()
