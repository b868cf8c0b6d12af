"""From options to networks, data, weights and training runs."""
