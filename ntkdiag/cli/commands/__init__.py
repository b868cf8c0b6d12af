"""One file a command: options in, one call into the other rooms, results out."""
