"""What a run shows of itself while it trains: tables in CSV, samples, and TensorBoard where it is installed."""
