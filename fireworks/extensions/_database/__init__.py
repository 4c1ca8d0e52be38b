"""What `fireworks.extensions.database` is made of: schemas, types, values, errors, writing and reading."""
