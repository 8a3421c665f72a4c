"""What Alembic runs to reach the database: the connection, and its transaction, are those of `migrations.upgrade`."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    transactional_ddl=True,  # SQLite too: `sql.open_engine` says BEGIN itself
)
context.run_migrations()
