"""What Alembic runs: it works on the connection that it is given, which the caller commits."""

from alembic import context

from examples.smart_home.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
