"""What every reference network promises, whatever its architecture."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, vmap

from ntkdiag import models
from ntkdiag.errors import InputError
from ntkdiag.models.embedding import bounded_log_snr

SMALL = [
    ("mlp", (2,), {"width": 16, "depth": 2}),
    ("mlp", (1, 4, 4), {"width": 16, "depth": 1, "classes": 3}),
    ("dit", (1, 8, 8), {"width": 16, "depth": 2, "heads": 2}),
    ("dit", (3, 4, 8), {"width": 8, "depth": 1, "heads": 1, "patch": 4, "classes": 3}),
    ("unet", (1, 8, 8), {"channels": 8, "attention": 4}),
    ("unet", (3, 4, 8), {"channels": 6, "multipliers": [2, 1], "blocks": 2, "head_width": 4, "classes": 3}),
    ("uvit", (1, 8, 8), {"width": 16, "depth": 3, "heads": 2}),
    ("uvit", (3, 4, 8), {"width": 6, "depth": 1, "heads": 1, "patch": 4, "classes": 3}),
]


@pytest.fixture(params=SMALL, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request):
    name, shape, options = request.param
    return models.build(name, shape, seed=1, **options).double(), shape, options


def draw(shape, count=5):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return x, torch.linspace(-8, 8, count, dtype=torch.float64)


def test_output_has_the_shape_and_dtype_of_the_input(case):
    network, shape, _ = case
    for count in (0, 1, 5):
        x, log_snr = draw(shape, count)
        assert network(x, log_snr).shape == x.shape
        assert network(x, log_snr).dtype == torch.float64
    assert network.float()(*(part.float() for part in draw(shape))).dtype == torch.float32


def test_samples_of_a_batch_do_not_influence_each_other(case):
    network, shape, _ = case
    x, log_snr = draw(shape)
    alone = torch.cat([network(x[i : i + 1], log_snr[i : i + 1]) for i in range(len(x))])
    assert torch.allclose(network(x, log_snr), alone, rtol=1e-12, atol=1e-12)


def test_output_depends_on_the_input_and_on_the_noise_level(case):
    network, shape, _ = case
    x, log_snr = draw(shape)
    out = network(x, log_snr)
    assert (network(x + 0.5, log_snr) - out).abs().max() > 1e-3
    assert (network(x, log_snr + 1) - out).abs().flatten(1).max(dim=1).values.min() > 1e-4


def test_infinite_log_snr_is_an_ordinary_input(case):
    network, shape, _ = case
    x, _ = draw(shape, 2)
    ends = network(x, torch.tensor([float("-inf"), float("inf")], dtype=torch.float64))
    near = network(x, torch.tensor([-400.0, 400.0], dtype=torch.float64))
    assert torch.allclose(ends, near)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_over_samples_agrees_with_the_batch(case):
    network, shape, _ = case
    x, log_snr = draw(shape)
    state = dict(network.named_parameters()) | dict(network.named_buffers())

    def one(x, log_snr):
        return functional_call(network, state, (x[None], log_snr[None]))[0]

    assert torch.allclose(vmap(one)(x, log_snr), network(x, log_snr), rtol=1e-10, atol=1e-12)


def test_every_parameter_of_a_fresh_network_receives_gradient(case):
    """A live network: the untrained control would otherwise see a kernel of the last layer alone."""
    network, shape, options = case
    x, log_snr = draw(shape)
    labels = torch.arange(5) % 3 if "classes" in options else None
    (network(x, log_snr, labels) - x).square().sum().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_labels_matter_and_none_means_no_label(case):
    network, shape, options = case
    x, log_snr = draw(shape, 3)
    if "classes" not in options:
        with pytest.raises(InputError, match="built without classes"):
            network(x, log_snr, torch.zeros(3, dtype=torch.long))
        return
    labelled = [network(x, log_snr, torch.full((3,), k)) for k in range(3)]
    assert (labelled[0] - labelled[1]).abs().max() > 1e-4
    assert torch.equal(network(x, log_snr), network(x, log_snr, torch.full((3,), 3)))


def test_inputs_are_left_alone(case):
    network, shape, _ = case
    x, log_snr = draw(shape)
    copies = x.clone(), log_snr.clone()
    network(x, log_snr)
    assert torch.equal(x, copies[0])
    assert torch.equal(log_snr, copies[1])


def test_wrong_shapes_are_told_before_a_matrix_product_trips(case):
    network, shape, _ = case
    x, log_snr = draw(shape)
    with pytest.raises(InputError, match=r"network input x: expected shape \[N, .*got \[5, "):
        network(x[..., :1], log_snr)
    with pytest.raises(InputError, match=r"log_snr: expected shape \[5\]; got \[4\]"):
        network(x, log_snr[:4])
    with pytest.raises(InputError, match="network input log_snr"):
        network(x, log_snr[0])


def test_seed_decides_the_weights_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (models.build("mlp", (2,), seed=s) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    later = models.build("mlp", (2,), seed=3)
    for name, weight in first.named_parameters():
        assert torch.equal(weight, dict(again.named_parameters())[name])
        assert torch.equal(weight, dict(later.named_parameters())[name])
    assert not torch.equal(first.out.weight, other.out.weight)


@pytest.mark.parametrize(
    ("name", "shape", "options", "words"),
    [
        ("resnet", (1, 8, 8), {}, "one of mlp, dit, unet, uvit; got 'resnet'"),
        ("mpl", (2,), {}, "Did you mean 'mlp'"),
        ("mlp", (2,), {"widht": 8}, "option of model 'mlp'.*Did you mean 'width'"),
        ("mlp", (2,), {"heads": 8}, "option of model 'mlp'"),
        ("mlp", (2,), {"width": 0}, "width: expected an integer of at least 1; got 0"),
        ("mlp", (2,), {"depth": 1.5}, "depth: expected an integer"),
        ("mlp", (0,), {}, "shape"),
        ("dit", (1, 8, 8), {"patch": 3}, "patch: expected a divisor.*3 for 8×8"),
        ("dit", (8, 8), {}, "(channels, height, width)"),
        ("dit", (1, 8, 8), {"width": 64, "heads": 5}, "multiple of 4 and of heads=5"),
        ("dit", (1, 8, 8), {"width": 6, "heads": 2}, "multiple of 4"),
        ("dit", (1, 8, 8), {"classes": 0}, "classes"),
        ("unet", (2,), {}, "(channels, height, width)"),
        (
            "unet",
            (1, 6, 8),
            {"multipliers": (1, 2, 2)},
            "multipliers: expected no more levels than.*6×8.*3 levels",
        ),
        ("unet", (1, 8, 8), {"multipliers": 2}, "multipliers: expected a factor for each level"),
        ("unet", (1, 8, 8), {"multipliers": ()}, "multipliers: expected a factor for each level"),
        ("unet", (1, 8, 8), {"multipliers": (1, 0)}, "multipliers: expected an integer of at least 1"),
        ("unet", (1, 8, 8), {"attention": -1}, "attention: expected an integer of at least 0"),
        ("uvit", (1, 8, 8), {"depth": 4}, "depth: expected an odd number.*got 4"),
        ("uvit", (1, 8, 8), {"patch": 3}, "patch: expected a divisor.*3 for 8×8"),
        ("uvit", (8, 8), {}, "(channels, height, width)"),
        ("uvit", (1, 8, 8), {"width": 64, "heads": 5}, "multiple of heads=5"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(name, shape, options, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(").replace(")", r"\)")):
        models.build(name, shape, **options)


def test_bounded_log_snr_is_odd_increasing_and_bounded():
    grid = torch.linspace(-30, 30, 601, dtype=torch.float64)
    bounded = bounded_log_snr(grid)
    assert (bounded.diff() > 0).all()
    assert torch.allclose(bounded, -bounded.flip(0), rtol=1e-12)
    assert bounded_log_snr(torch.tensor([float("-inf"), float("inf")])).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_hears_the_noise_level_as_float32_does(dtype):
    """Sines of up to 50 radians: a log-SNR or a frequency in bfloat16 would put them off by tenths."""
    network = models.build("mlp", (2,), width=16)
    x, log_snr = draw((2,), 41)
    heard = []
    network.condition.hidden.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    network(x.float(), log_snr.float())
    output = network.to(dtype)(x.to(dtype), log_snr.float())
    assert output.dtype == heard[1].dtype == dtype
    torch.testing.assert_close(heard[1].float(), heard[0], rtol=0, atol=torch.finfo(dtype).eps)
    assert network.double().condition.waves.dtype == torch.float64
