"""The diffusion process: schedules, prediction targets, log-SNR buckets and optimal denoisers.

Everything here is a function of the log-SNR λ = ln α²/σ²; `schedule` says what a process is, `schedules`
constructs them, `target` what a network predicts, `buckets` where it is measured, `bayes` how well any
network could do.
"""
