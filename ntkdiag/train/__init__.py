"""The reference trainer: train a denoiser under given loss weights, save and resume it, draw samples, evaluate them.

It shows whether loss weights help. It never measures a kernel: the weights are an argument.
"""

from ntkdiag.errors import explain_calls
from ntkdiag.state_dicts import WeightsTaken, load_weights, save_weights
from ntkdiag.train.config import TrainConfig
from ntkdiag.train.cost import Cost, training_cost
from ntkdiag.train.evaluation.bucket_losses import BucketValues, bucket_losses
from ntkdiag.train.evaluation.feature_network import FeatureNetwork, train_feature_network
from ntkdiag.train.evaluation.image_quality import (
    frechet_distance,
    neighbour_shares,
    polynomial_mmd,
    sliced_wasserstein,
)
from ntkdiag.train.evaluation.sample_quality import (
    EnergyDistance,
    Estimate,
    energy_distance,
    energy_distance_to_data,
    kl_divergence,
    log_likelihood,
)
from ntkdiag.train.flow import flow_log_density, flow_map
from ntkdiag.train.loop import train
from ntkdiag.train.loss import Batch, denoising_losses
from ntkdiag.train.own_samples import own_samples
from ntkdiag.train.presets import PRESETS, Preset
from ntkdiag.train.result import TrainResult
from ntkdiag.train.sampling import sample

__all__ = [
    "PRESETS",
    "Batch",
    "BucketValues",
    "Cost",
    "EnergyDistance",
    "Estimate",
    "FeatureNetwork",
    "Preset",
    "TrainConfig",
    "TrainResult",
    "WeightsTaken",
    "bucket_losses",
    "denoising_losses",
    "energy_distance",
    "energy_distance_to_data",
    "flow_log_density",
    "flow_map",
    "frechet_distance",
    "kl_divergence",
    "load_weights",
    "log_likelihood",
    "neighbour_shares",
    "own_samples",
    "polynomial_mmd",
    "sample",
    "save_weights",
    "sliced_wasserstein",
    "train",
    "train_feature_network",
    "training_cost",
]

explain_calls(__name__, "nd.train.train(denoiser, data, weights, config)")
