"""Low ranks and tensor trains: laws of the singular value decomposition, and nets that are factorised."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from atelier import checkpoint, cost, families, lowrank, tensor_train
from atelier.errors import AtelierError
from atelier.families.mlp import Model
from atelier.prune import score

SHAPE, CLASSES = (1, 8, 8), 4
sides = st.integers(1, 9)
digits = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4)
seeds = st.integers(0, 1000)


def matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, columns)))


def net(**changes) -> tuple[Model, dict]:
    torch.manual_seed(0)
    own = {"hidden": (30, 20)} | changes
    return Model(SHAPE, CLASSES, **own).eval(), own


# ---- low ranks


@settings(derandomize=True, deadline=None)
@given(sides, sides, seeds, st.data())
def test_two_factors_are_scipys_truncated_decomposition_and_rows_keep_their_norms(rows, columns, seed, data):
    weight = matrix(rows, columns, seed)
    rank = data.draw(st.integers(1, min(rows, columns)))
    u, v = lowrank.factorise(weight, rank)
    assert u.shape == (rows, rank) and v.shape == (rank, columns)
    left, values, right = linalg.svd(weight.numpy(), full_matrices=False)
    np.testing.assert_allclose((u @ v).numpy(), left[:, :rank] * values[:rank] @ right[:rank], atol=1e-10)
    np.testing.assert_allclose((u @ v - weight).norm().item() ** 2, (values[rank:] ** 2).sum(), atol=1e-10)
    np.testing.assert_allclose(u.norm(dim=1).numpy(), (u @ v).norm(dim=1).numpy(), atol=1e-10)


@settings(derandomize=True, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), seeds, st.data())
def test_no_other_matrix_of_that_rank_is_nearer(rows, columns, seed, data):
    """Eckart and Young: neither one at random, nor one near to the truncated decomposition."""
    weight = matrix(rows, columns, seed)
    rank = data.draw(st.integers(1, min(rows, columns) - 1))
    u, v = lowrank.factorise(weight, rank)
    best = (u @ v - weight).norm()
    a, b = matrix(rows, rank, seed + 1), matrix(rank, columns, seed + 2)
    projected = a @ torch.linalg.lstsq(a, weight).solution  # the best with these columns
    for other in (a @ b, projected, (u + 1e-2 * a) @ (v + 1e-2 * b)):
        assert (other - weight).norm() >= best - 1e-12


@settings(derandomize=True, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8), st.floats(0.01, 1.0))
def test_the_rank_is_the_least_that_holds_the_energy(values, energy):
    values = sorted(values, reverse=True)
    rank, squares = lowrank.rank_for(values, energy), np.square(values)
    assert 1 <= rank <= len(values)
    assert squares[:rank].sum() >= energy * squares.sum() * (1 - 1e-12)
    assert squares[: rank - 1].sum() < energy * squares.sum() * (1 + 1e-12)


@pytest.mark.parametrize("residual", [False, True])
def test_with_full_ranks_a_net_gives_the_same_logits(residual):
    model, own = net(hidden=(30, 20, 30), residual=residual, activation=("tanh", "prelu", "relu"))
    thin, changed = lowrank.factorised(model, SHAPE, CLASSES, own, (30, 20, 0))
    x = torch.rand(50, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(thin.classify(x), model.classify(x), rtol=0, atol=1e-5)
    assert changed == {**own, "ranks": (30, 20, 0)} and thin.activation[1].weight == model.activation[1].weight
    assert not thin.training and not any("0.bias" in name for name in thin.state_dict() if "layers.0" in name)


def test_a_factorised_net_is_smaller_and_is_saved_and_pruned_by_its_true_norms(tmp_path):
    model, own = net()
    thin, changed = lowrank.factorised(model, SHAPE, CLASSES, own, (5, 0))
    exact = cost.exact(thin, SHAPE)
    assert exact["multiply_adds"] == 5 * (64 + 30) + 30 * 20 + 20 * 4
    assert exact["parameters"] == exact["multiply_adds"] + 30 + 20 + 4
    checkpoint.save(tmp_path, {"family": "mlp", "shape": SHAPE, "classes": CLASSES, "settings": changed}, thin)
    again, _ = checkpoint.load(tmp_path)
    x = torch.rand(5, *SHAPE)
    with torch.no_grad():
        assert torch.equal(again.classify(x), thin.classify(x))
    whole = (thin.layers[0][1].weight @ thin.layers[0][0].weight).norm(dim=1)
    np.testing.assert_allclose(score.weight_norm(thin)["hidden.0"], whole.detach().numpy(), rtol=1e-5)


def test_a_layer_that_would_be_no_smaller_stays():
    model, _ = net()
    assert lowrank.ranks_for(model, 1.0) == (0, 0)
    with torch.no_grad():
        model.layers[0].weight.copy_(matrix(30, 1, 0) @ matrix(1, 64, 1))
    assert lowrank.ranks_for(model, 0.999) == (1, 0)


def test_layers_without_ranks_are_as_they_were():
    plain, zeros = net()[0], net(ranks=(0, 0))[0]
    assert [*plain.state_dict()] == [
        f"{layer}.{part}"
        for layer in ("layers.0", "layers.1", "head")
        for part in (
            "weight",
            "bias",
        )
    ]
    assert all(torch.equal(tensor, zeros.state_dict()[name]) for name, tensor in plain.state_dict().items())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: lowrank.factorise(matrix(3, 5, 0), 0), "rank is 0"),
        (lambda: lowrank.factorise(matrix(3, 5, 0), 4), "give 1 to 3"),
        (lambda: lowrank.rank_for([1.0], 0.0), "energy is 0"),
        (lambda: lowrank.rank_for([1.0], 1.1), "energy is 1.1"),
        (lambda: lowrank.factorised(net(ranks=(3, 0))[0], SHAPE, CLASSES, {}, (2, 2)), r"has ranks \[3, 0\] already"),
        (lambda: net(ranks=(3,)), "ranks has 1 numbers for 2 hidden layers"),
        (lambda: tensor_train.decompose(matrix(6, 4, 0), (3, 3), (2, 2), 1), "do not make up"),
        (lambda: tensor_train.decompose(matrix(6, 4, 0), (3, 2), (2, 2), 0), "rank is 0"),
    ],
)
def test_what_makes_no_factors_is_refused_in_one_line(call, said):
    with pytest.raises((AtelierError, ValueError), match=said) as refused:
        call()
    assert "\n" not in str(refused.value)


def test_params_refuse_ranks_that_are_no_net():
    with pytest.raises(AtelierError, match="tiny.net: ranks has 1 numbers"):
        families.check("mlp", {"hidden": (30, 20), "ranks": (3,)}, "tiny.net")


# ---- tensor trains


@settings(derandomize=True, deadline=None)
@given(digits, seeds)
def test_without_a_bound_a_train_is_the_matrix(pairs, seed):
    rows, columns = zip(*pairs, strict=True)
    weight = matrix(math.prod(rows), math.prod(columns), seed)
    cores = tensor_train.decompose(weight, rows, columns, rank=10**6)
    torch.testing.assert_close(tensor_train.matrix(cores), weight, rtol=0, atol=1e-12)


@settings(derandomize=True, deadline=None)
@given(digits, seeds, st.integers(1, 6), st.integers(1, 5))
def test_the_product_from_cores_is_that_of_the_matrix_they_stand_for(pairs, seed, rank, items):
    rows, columns = zip(*pairs, strict=True)
    weight = matrix(math.prod(rows), math.prod(columns), seed)
    cores = tensor_train.decompose(weight, rows, columns, rank)
    ranks = [1, *(core.shape[3] for core in cores)]
    assert [core.shape for core in cores] == [
        (before, m, n, after) for before, m, n, after in zip(ranks, rows, columns, ranks[1:], strict=False)
    ]
    assert max(ranks) <= rank and tensor_train.count(cores) == sum(core.numel() for core in cores)
    # By the definition: an entry is the product of the matrices that the digits of its row and column choose.
    whole = tensor_train.matrix(cores)
    i, j = math.prod(rows) - 1, math.prod(columns) // 2
    at = zip(np.unravel_index(i, rows), np.unravel_index(j, columns), cores, strict=True)
    assert float(torch.linalg.multi_dot([torch.eye(1, dtype=torch.float64), *(c[:, m, n] for m, n, c in at)])) == (
        pytest.approx(float(whole[i, j]), abs=1e-12)
    )
    x = matrix(items, math.prod(columns), seed + 1)
    torch.testing.assert_close(tensor_train.product(cores, x), x @ whole.T, rtol=0, atol=1e-10)


def test_the_error_falls_with_the_rank_and_is_that_of_a_low_rank_for_two_digits():
    weight = matrix(12, 12, 0)
    errors = [
        tensor_train.relative_error(tensor_train.decompose(weight, (3, 2, 2), (2, 3, 2), rank), weight)
        for rank in (1, 2, 4, 8, 100)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-12
    # With the digits (rows, 1) and (1, columns) the train is U V.
    cores = tensor_train.decompose(weight, (12, 1), (1, 12), 3)
    u, v = lowrank.factorise(weight, 3)
    torch.testing.assert_close(tensor_train.matrix(cores), u @ v, rtol=0, atol=1e-12)


def test_a_dense_layer_of_cores_trains_and_is_counted():
    torch.manual_seed(0)
    weight, bias = torch.randn(30, 64), torch.randn(30)
    layer = tensor_train.Dense(tensor_train.decompose(weight, (5, 6), (8, 8), 100), bias)
    x = torch.randn(7, 64)
    torch.testing.assert_close(layer(x), x @ weight.T + bias, rtol=0, atol=1e-4)
    layer(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())
    model, _ = net()
    model.layers[0] = tensor_train.Dense(tensor_train.decompose(model.layers[0].weight, (5, 6), (8, 8), 2), bias)
    assert cost.exact(model, SHAPE)["parameters"] == 5 * 8 * 2 + 2 * 6 * 8 + 30 + 620 + 84
