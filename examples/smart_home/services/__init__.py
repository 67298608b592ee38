"""What the product does. Services own the database sessions and hold none while they call the gateway."""
