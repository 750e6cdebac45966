"""What the gradient suffers when a code is one of K: estimators beside the exact gradient, a sum over all codes.

An encoder says a vector z for an item; code k, a vector v_k, is drawn with probability q_k proportional to
exp(-|z - v_k|^2); a decoder of one hidden layer gives -log p(item given v_k) = f(v_k). Of E f by z, the exact gradient
is the sum over k of f(v_k) dq_k/dz.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt

from atelier.data.store import Store
from atelier.experiments import items
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Generator, Tensor

FLOORS = {"chance": {"test.bias": 0.05}}  # more than what chance leaves of an estimator without bias
HIDDEN, WIDTH, STEPS = 32, 4, 40  # of the decoder, of a vector, and of training by the exact gradient
AT_ONCE = 100  # draws

Estimator = Literal["gumbel", "score", "straight-gumbel", "straight-softmax", "straight-vector"]


def measure(
    seed: int,
    store: Store,
    *,
    estimator: Estimator,
    temperature: Annotated[float, Gt(0)] = 1.0,
    codes: Annotated[int, Ge(2)] = 16,
    count: Annotated[int, Ge(1)] = 50,
    draws: Annotated[int, Ge(2)] = 20_000,
) -> dict[str, Any]:
    """After a short training by the exact gradient. bias: the norm of the mean estimate less the exact gradient, by the
    exact gradient's, over all items and numbers of z, less what the mean of so many draws is off by chance; spread: the
    root of the summed variances of one draw's estimate, by the same norm; angle: the cosine between the mean estimate
    and the exact gradient; surely: the largest q_k, mean over items.

    straight-vector: f's gradient at the vector drawn, passed on to z (VQ-VAE); straight-softmax: f's gradient by the
    code's one-hot, through the softmax; gumbel: a softmax of logits with Gumbel noise at `temperature` in place of the
    code; straight-gumbel: the code drawn, and gumbel's derivative; score: (f - E f) times d log q / dz (REINFORCE).
    """
    import torch

    from atelier.draws import fixed

    torch.manual_seed(seed)
    x = torch.from_numpy(items(store, "train", count)[0].round())
    net = Net(x.shape[1], codes, len(x))
    net.settle(x)
    exact = net.exact(x)
    generator, total, squares = fixed(x.device, seed), torch.zeros_like(exact), 0.0
    for start in range(0, draws, AT_ONCE):
        found = net.estimates(x, estimator, temperature, min(AT_ONCE, draws - start), generator)
        total += found.sum(0)
        squares += float(found.square().sum())
    mean, size = total / draws, float(exact.norm())
    variance = (squares - draws * float(mean.square().sum())) / (draws - 1)
    left = float((mean - exact).square().sum()) - variance / draws  # the second is what a finite mean adds to the first
    bias, spread = (max(square, 0.0) ** 0.5 / size for square in (left, variance))
    return {
        "test.bias": bias,
        "test.spread": spread,
        "test.angle": float((mean * exact).sum() / mean.norm()) / size,
        "test.surely": float(net.logits(net.z.detach()).softmax(-1).amax(-1).detach().mean()),
        "series": [bias, spread],
    }


class Net:
    """z of every item (n, width), the codes' vectors (codes, width), and the decoder of a vector; in float64."""

    def __init__(self, pixels: int, codes: int, count: int) -> None:
        import torch
        from torch import nn

        self.z = torch.randn(count, WIDTH, dtype=torch.float64, requires_grad=True)
        self.book = torch.randn(codes, WIDTH, dtype=torch.float64, requires_grad=True)
        self.decoder = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, pixels)).double()

    def logits(self, z: "Tensor") -> "Tensor":
        """(..., n, width) -> (..., n, codes)."""
        return -(z[..., None, :] - self.book).square().sum(-1)

    def f(self, x: "Tensor", vectors: "Tensor") -> "Tensor":
        """-log p(x given vectors) in nats: (n, pixels) and (..., n, width) -> (..., n)."""
        from atelier.latent import bernoulli_log_likelihood

        return -bernoulli_log_likelihood(x, self.decoder(vectors))

    def expectation(self, x: "Tensor") -> "Tensor":
        """E f of every item, (n,), summed over all codes."""
        every = self.f(x, self.book[:, None].expand(-1, len(x), -1))  # (codes, n)
        return (self.logits(self.z).softmax(-1) * every.T).sum(-1)

    def exact(self, x: "Tensor") -> "Tensor":
        import torch

        (gradient,) = torch.autograd.grad(self.expectation(x).sum(), self.z)
        return gradient

    def settle(self, x: "Tensor") -> None:
        """Some steps by the exact gradient: to a net that is neither random nor done."""
        import torch

        optimizer = torch.optim.Adam([self.z, self.book, *self.decoder.parameters()], lr=0.01)
        for _ in range(STEPS):
            optimizer.zero_grad()
            self.expectation(x).mean().backward()
            optimizer.step()

    def estimates(
        self, x: "Tensor", estimator: Estimator, temperature: float, draws: int, generator: "Generator"
    ) -> "Tensor":
        """One estimate a draw of the gradient by z: (draws, n, width)."""
        import torch
        from torch.nn import functional as F

        from atelier.latent import gumbel, straight_through

        z = self.z.detach().expand(draws, -1, -1).clone().requires_grad_()
        logits, book = self.logits(z), self.book.detach()
        noisy = logits + gumbel(logits, generator)
        chosen = noisy.argmax(-1)
        match estimator:
            case "straight-vector":
                loss = self.f(x, straight_through(book[chosen], z))
            case "straight-softmax":
                onehot = F.one_hot(chosen, len(book)).to(z.dtype)
                loss = self.f(x, straight_through(onehot, logits.softmax(-1)) @ book)
            case "gumbel":
                loss = self.f(x, (noisy / temperature).softmax(-1) @ book)
            case "straight-gumbel":
                onehot = F.one_hot(chosen, len(book)).to(z.dtype)
                loss = self.f(x, straight_through(onehot, (noisy / temperature).softmax(-1)) @ book)
            case "score":
                surplus = (self.f(x, book[chosen]) - self.expectation(x)).detach()
                loss = surplus * logits.log_softmax(-1).gather(-1, chosen[..., None])[..., 0]
        (gradient,) = torch.autograd.grad(loss.sum(), z)
        return gradient


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = (
        "Bias against spread of one draw's gradient, both by the size of the exact gradient; a dot for each seed. An "
        "average over draws lessens the spread and leaves the bias."
    )
    return {"bias-and-spread.png": (caption, lambda: _draw(series))}


def _draw(series: dict[str, list[Any]]) -> "Figure":
    figure, (axes,) = grid(1, 1, 6.5, 4.2)
    for i, (model, runs) in enumerate(series.items()):
        (bias, spread), marker = np.array(runs).T, "os^D"[i // len(COLOURS) % 4]
        axes.plot(spread, bias, marker, color=COLOURS[i % len(COLOURS)], label=model, markersize=5)
    axes.set(xlabel="spread", ylabel="bias", xscale="log", yscale="log")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure
