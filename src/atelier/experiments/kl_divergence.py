"""Kullback-Leibler divergences of a code from its prior: closed forms, means over draws, the library and integrals."""

import math
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Gt

from atelier.data.store import Store
from atelier.latent import Posterior
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from atelier.latent import Code

FLOORS = {"rounding": {"test.deviation": 1e-9}, "chance": {"test.surprise": 4.0}, "zero": {"test.lowest": -1e-9}}
P, Q = (0.36, 0.48, 0.16), (1 / 3, 1 / 3, 1 / 3)  # the notes' example; they write Q as (.33, .33, .33)
SIGMAS = (1.0, 0.1, 0.01, 1e-4)
AT_ONCE = 10_000  # draws


def measure(
    seed: int,
    store: Store,
    *,
    posterior: Posterior,
    freedom: Annotated[float, Gt(2)] = 5.0,
    units: Annotated[int, Ge(1)] = 20,
    draws: Annotated[int, Ge(100)] = 200_000,
) -> dict[str, Any]:
    """Of a random posterior of independent units, in float64. kl: in nats, in closed form; for Student's t, with
    none, the integral. deviation: of the closed form from the library's, by its size. surprise: of the mean over draws
    from kl, in standard errors of that mean, which chance seldom makes more than 4. noise: the standard deviation of
    one draw's estimate, which is all that a training step has where there is no closed form, in nats. lowest: the least
    of the closed form over scales from 1e-6 to 1, location 0.
    """
    import torch
    from torch import distributions

    from atelier.draws import fixed
    from atelier.latent import Code, standards

    rng = np.random.default_rng(seed)
    location, log_scale = (torch.from_numpy(rng.normal(0, spread, (1, units))) for spread in (1.0, 0.5))
    code = Code(*standards(posterior, freedom), location, log_scale)
    kl = by_integral(code, freedom) if posterior == "student" else float(code.closed_kl())
    generator = fixed(location.device, seed)
    drawn = [code.repeated(AT_ONCE).draw(generator) for _ in range(-(-draws // AT_ONCE))]
    estimates = torch.cat([(log_q - code.log_prior(z)).flatten() for z, log_q in drawn])
    found = {
        "test.kl": kl,
        "test.surprise": float((estimates.mean() - kl).abs() / estimates.std()) * math.sqrt(len(estimates)),
        "test.noise": float(estimates.std()),
    }
    if posterior == "student":
        return found
    scale, zero = log_scale.exp(), torch.zeros_like(location)
    library = {
        "gaussian": distributions.Normal(location, scale),
        "uniform": distributions.Uniform(location - scale, location + scale),
    }[posterior]
    expected = float(distributions.kl_divergence(library, distributions.Normal(zero, zero + 1)).sum())
    scales = torch.linspace(math.log(1e-6), 0, 1001, dtype=torch.float64)[:, None]
    closed = Code(code.standard, code.prior, torch.zeros_like(scales), scales).closed_kl()
    return found | {"test.deviation": abs(kl - expected) / expected, "test.lowest": float(closed.min())}


def by_integral(code: "Code", freedom: float) -> float:
    """KL in nats between Student's t of these locations and scales and the standard one, unit by unit, by SciPy."""
    from scipy.integrate import quad
    from scipy.stats import t

    def integrand(z: float, at: float, scale: float) -> float:
        log_density = t.logpdf(z, freedom, at, scale)
        return float(np.exp(log_density) * (log_density - t.logpdf(z, freedom)))

    units = zip(code.location.flatten().tolist(), code.log_scale.exp().flatten().tolist(), strict=True)
    return sum(quad(integrand, -math.inf, math.inf, args=unit, epsabs=1e-9, epsrel=1e-8)[0] for unit in units)


def of_shares(p: tuple[float, ...], q: tuple[float, ...]) -> float:
    """sum p log(p / q) in nats."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def right(sigma: float) -> float:
    """KL(N(0, sigma^2), N(0, 1)) in nats."""
    return 0.5 * (sigma**2 - 1.0 - math.log(sigma**2))


def sign_turned(sigma: float) -> float:
    """As D4.3's last line has it: + log sigma^2."""
    return 0.5 * (sigma**2 - 1.0 + math.log(sigma**2))


def text(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> str:
    said = (0.33,) * 3
    rows = ["## Faults in the sources' divergences", ""]
    rows += ["| Row | What is computed | P from Q | Q from P |", "| :-- | :-- | --: | --: |"]
    for row, what, q, unit in (
        ("D3.9", "as the notes have it: Q = (.33, .33, .33), logarithm to base 10", said, math.log(10)),
        ("D3.9", "the same in nats: Q does not sum to 1", said, 1.0),
        ("D3.9", "Q = 1/3 each, in nats", Q, 1.0),
    ):
        rows.append(f"| {row} | {what} | {of_shares(P, q) / unit:.5f} | {of_shares(q, P) / unit:.5f} |")
    rows += [
        "",
        "The notes give .0414 and .0375 and no unit. So they are logarithms to base 10 of a Q that sums to .99, the "
        "second cut off, not rounded; and with that Q the first direction is the larger one, with 1/3 the second is.",
        "",
        "| Row | KL(N(0, sigma²), N(0, 1)) in nats | " + " | ".join(f"sigma {sigma:g}" for sigma in SIGMAS) + " |",
        "| :-- | :-- |" + " --: |" * len(SIGMAS),
    ]
    for what, way in (("as the last line of D4.3 has it, + log sigma²", sign_turned), ("with − log sigma²", right)):
        rows.append(f"| D4.3 | {what} | " + " | ".join(f"{way(sigma):.3f}" for sigma in SIGMAS) + " |")
    rows += [
        "",
        "A divergence is never below 0; with the sign turned it falls without bound as sigma goes to 0, so a net that "
        "minimised it would shrink its posteriors to points. The source also leaves out what the square of the "
        "location does: it pulls every location to 0.",
    ]
    return "\n".join(rows)


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = "KL of N(0, sigma²) from N(0, 1) against sigma, and what the last line of D4.3 has for it."
    return {"sign.png": (caption, _draw)}


def _draw() -> "Figure":
    figure, (axes,) = grid(1, 1, 5.5, 3.2)
    sigmas = np.geomspace(1e-3, 4, 200)
    for label, way, colour in (("− log sigma²", right, COLOURS[0]), ("+ log sigma²", sign_turned, COLOURS[1])):
        axes.plot(sigmas, [way(sigma) for sigma in sigmas], color=colour, label=label)
    axes.set(xlabel="sigma", ylabel="nats", xscale="log")
    axes.legend()
    return figure
