"""Running means of weights: against weighted sums in closed form, and nets whose weights come back to the bit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from atelier.averaging import averaged, include, pace

pytestmark = pytest.mark.usefixtures("one_thread")


class Point(nn.Module):
    """A parameter, a buffer of real numbers, a count, a flag and bits, all set from one number."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, 3))
        for name, value in {"real": 0.0, "count": 0, "flag": False}.items():
            self.register_buffer(name, torch.tensor(value))

    def put(self, value: float) -> "Point":
        with torch.no_grad():
            for tensor in self.state_dict().values():
                tensor.fill_(value)
        return self


def mean_of(values: list[float], share: float) -> dict[str, torch.Tensor]:
    mean, model = None, Point()
    for step, value in enumerate(values, 1):
        mean = include(mean, model.put(value), share, step)
    return mean


@given(values=st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=30), k=st.integers(0, 12))
@settings(max_examples=50, deadline=None)
def test_the_ith_value_counts_as_a_polynomial_of_degree_k_in_i(values, k):
    """Shamir and Zhang's recursion, unrolled: in proportion to the rising factorial i (i + 1) ... (i + k - 1)."""
    mean = mean_of(values, 1 / (k + 2))
    counts = np.array([math.comb(i + k - 1, k) for i in range(1, len(values) + 1)], float)
    np.testing.assert_allclose(mean["w"], np.average(values, weights=counts), rtol=1e-5, atol=1e-5)


@given(steps=st.integers(1, 400), share=st.floats(0.01, 0.5))
@settings(max_examples=50, deadline=None)
def test_on_average_the_weights_in_the_mean_are_their_share_of_the_steps_old(steps, share):
    age = 0.0
    for step in range(1, steps + 1):
        age = (age + 1) * (1 - pace(share, step))
    assert age == pytest.approx(share * (steps - 1), abs=1e-6)


def test_at_a_tenth_the_pace_is_the_known_warm_up_two_steps_on():
    assert [pace(0.1, step) for step in (1, 2, 50)] == pytest.approx([1 - (1 + t) / (10 + t) for t in (-1, 0, 48)])


def test_real_numbers_are_averaged_counts_and_flags_are_the_latest():
    mean = mean_of([0, 1, 5], share=0.5)
    assert {name: tensor.unique().tolist() for name, tensor in mean.items()} == {
        "w": [2.0],
        "real": [2.0],
        "count": [5],
        "flag": [True],
    }


def test_the_mean_net_of_nets_that_are_linear_answers_with_the_mean_of_their_answers():
    """A batch norm after a linear layer is one of them: its running mean moves with the weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3, affine=False, momentum=1.0))
    x, mean, weight, centre = torch.randn(50, 4) + 2, None, [], []
    for step in range(1, 6):
        nn.init.normal_(net[0].weight)
        net(x)
        mean = include(mean, net, 0.5, step)
        weight.append(net[0].weight.detach().clone())
        centre.append((x @ weight[-1].T).mean(0))
    with averaged(net, mean):
        torch.testing.assert_close(net[0](x), x @ torch.stack(weight).mean(0).T)
        torch.testing.assert_close(net[1].running_mean, net[0](x).mean(0))
        assert net[1].num_batches_tracked == 5
    torch.testing.assert_close(net[1].running_mean, centre[-1])


def test_afterwards_a_net_has_its_own_weights_again_to_the_bit_and_in_place():
    model, mean = Point().put(1 / 3), mean_of([2.0], 0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    with pytest.raises(KeyError), averaged(model, mean):
        assert model.w.eq(2).all()
        raise KeyError
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == places
    with averaged(model, None):
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
