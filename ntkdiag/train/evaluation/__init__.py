"""What a trained network is worth: losses by noise level, samples and their quality."""
