"""Own how Alembic runs: always inside the transaction that relay.store.migrate hands over."""

from alembic import context

from relay.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # true of both databases; Alembic doubts it of SQLite
    render_as_batch=True,
)
context.run_migrations()
