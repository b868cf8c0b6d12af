"""Weight tables: weights by log-SNR, their files, and their mean under a training density."""
