"""The lines that the manual tells users to add to their trainers, run as they stand there.

EDM and k-diffusion cannot be installed here; their conventions are honoured by the doubles of the tests beside.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import ntkdiag as nd
from ntkdiag.weights import WeightTable, rule

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "trainers.md"
IMAGES = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
# What the lines may take for given: variables of the trainers that they are added to.
OF_THE_TRAINER = {
    *("noise_scheduler", "timesteps", "sigmas", "loss", "losses", "log_snr"),
    *("c", "K", "config", "inner_model", "accelerator", "module", "Trainer"),
}
LEVELS = torch.linspace(-4, 4, 6)


def blocks() -> dict[str, str]:
    """Name of an integration → its lines."""
    section = PAGE.read_text().partition("## In your own trainer\n")[2].partition("\n## ")[0]
    return dict(
        re.findall(
            r"^\*\*(.+?)\*\*.*?\n\n<!-- not run: .*? -->\n```python\n(.*?)```",
            section,
            re.MULTILINE | re.DOTALL,
        )
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs the lines of an integration where weights.csv is a table for its target; gives what they leave behind."""
    monkeypatch.chdir(tmp_path)

    def execute(name: str, table: WeightTable, **given: Any) -> dict[str, Any]:
        table.save("weights.csv")
        lines = blocks()[name]
        assert sum(bool(line) for line in lines.splitlines()) <= 4
        assert given.keys() <= OF_THE_TRAINER, "a name that the lines neither import nor find in a trainer"
        exec(compile(lines, f"{PAGE.name}, {name}", "exec"), given)
        return given

    return execute


def test_these_are_all_integrations() -> None:
    folder = ROOT / "ntkdiag" / "integrations"
    named = " ".join(blocks().values())
    assert len(blocks()) == 6
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "wrapped"}
    assert [module for module in modules if f"ntkdiag.integrations.{module}" not in named] == []


def test_diffusers_ddpm_style(run: Callable[..., dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diffusers = pytest.importorskip("diffusers")
    scheduler, timesteps = diffusers.DDPMScheduler(), torch.tensor([0, 10, 200, 500, 900, 999])
    loss = IMAGES.square()
    done = run(
        "diffusers, DDPM-style",
        rule("min_snr", "epsilon"),
        noise_scheduler=scheduler,
        timesteps=timesteps,
        loss=loss,
    )
    snr = scheduler.alphas_cumprod[timesteps] / (1 - scheduler.alphas_cumprod[timesteps])
    expected = ((5 / snr).clamp(max=1) * loss.mean((1, 2, 3))).mean()
    torch.testing.assert_close(done["loss"], expected, rtol=1e-5, atol=0.0)


def test_diffusers_flow_style(run: Callable[..., dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    sigmas = scheduler.sigmas[torch.tensor([0, 10, 200, 500, 900, 999])].reshape(-1, 1, 1, 1)
    table = rule("cosmap", "flow", nd.schedules.flow(), normalise=False)
    done = run("diffusers, flow-style and EDM-style", table, noise_scheduler=scheduler, sigmas=sigmas)
    expected = 2 / (torch.pi * (1 - 2 * sigmas + 2 * sigmas**2))
    torch.testing.assert_close(done["weighting"], expected, rtol=1e-5, atol=0.0)


def test_edm(run: Callable[..., dict[str, Any]]) -> None:
    from test_integrations_edm import Loop, Precond

    config = SimpleNamespace(loss_kwargs=SimpleNamespace(P_mean=-0.4, P_std=1.0, class_name="their own"))
    run("EDM and EDM2", rule("edm", "x0", sigma_data=0.5), c=config)
    loop = Loop(Precond(), **vars(config.loss_kwargs))
    assert type(loop.loss_fn).__name__ == "WeightedEDM2Loss"
    level = torch.tensor([0.1, 1.0, 10.0])
    torch.testing.assert_close(loop.loss_fn.weight(level), (level**2 + 0.25) / (level * 0.5) ** 2)
    assert torch.isfinite(loop.step(0)).all()


def test_k_diffusion(run: Callable[..., dict[str, Any]]) -> None:
    from test_integrations_k_diffusion import SIGMA, Double, Inner

    library = SimpleNamespace(config=SimpleNamespace(make_denoiser_wrapper=lambda config: Double))
    done = run("k-diffusion", rule("edm", "x0", sigma_data=1.0), K=library, config={}, inner_model=Inner())
    assert done["model"].weighting is done["weights"]
    torch.testing.assert_close(done["model"].weighting(SIGMA), torch.ones(5), rtol=1e-5, atol=0.0)


def test_accelerate(run: Callable[..., dict[str, Any]]) -> None:
    pytest.importorskip("accelerate")
    from test_integrations_accelerate import accelerator

    table, losses = rule("erd", "v"), torch.arange(6.0)
    done = run(
        "a plain accelerate loop",
        table,
        accelerator=accelerator(),
        log_snr=LEVELS,
        losses=losses,
    )
    torch.testing.assert_close(done["loss"], (table(LEVELS) * losses).mean())
    assert done["weights"].steps == 1


def test_lightning(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("lightning.pytorch")
        from test_integrations_lightning import Module, batches, lightning

        settings = {
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": 1,
        }
        module = Module(rule("erd", "v"))
        before = module.line.weight.clone()

        def trainer(callbacks: list[Any]) -> Any:
            return lightning.Trainer(default_root_dir=tmp_path, callbacks=callbacks, **settings)

        done = run("Lightning", rule("min_snr", "v"), module=module, Trainer=trainer)
        done["trainer"].fit(module, batches())
    assert module.weights.name == "min_snr(gamma=5)" and not torch.equal(module.line.weight, before)
