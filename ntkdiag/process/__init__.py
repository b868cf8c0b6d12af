"""The diffusion process: schedules, prediction targets, log-SNR buckets and optimal denoisers.

Everything here is a function of the log-SNR λ = ln α²/σ²: `schedules` mix data and noise, `target` is what a
network predicts, `buckets` are where it is measured, `paired_draws` on what, `bayes` is the loss that no network can go
below.
"""
