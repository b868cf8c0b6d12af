"""The diffusion process: schedules, prediction targets, log-SNR buckets and optimal denoisers."""
