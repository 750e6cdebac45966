"""Small files of nets: exact, refused when damaged, and as small as entropy allows; k-means, codes against others."""

import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import KMeans
from torch import nn

from atelier import compress, evaluation, families, paths
from atelier.compress import entropy, format, places
from atelier.compress.share import lloyd, rounded, share, share_all
from atelier.data.store import Store
from atelier.errors import AtelierError

pytestmark = pytest.mark.usefixtures("one_thread")
laws = settings(deadline=None, derandomize=True, max_examples=60)
coders = pytest.mark.parametrize("coder", format.CODERS)
NETS = {
    "mlp": ("mlp", (1, 8, 8), {"hidden": (12, 7)}),
    "cnn": ("cnn", (1, 8, 8), {"plan": ("conv 4 3", "pool 2", "conv 5 3", "dense 6"), "batch_norm": True}),
    "gru": ("recurrent", (1, 8, 8), {"cell": "gru", "hidden": (9,)}),
    "autoencoder": ("autoencoder", (1, 8, 8), {"widths": (12, 5)}),
}


def bits_of(symbols: np.ndarray) -> float:
    """The entropy of all of them together, in bits, if they were drawn from their own histogram."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(counts @ np.log2(counts.sum() / counts))


def pruned(shape: tuple[int, ...], kept: float, count: int, seed: int) -> np.ndarray:
    """Normal weights of which a share, at random places, is left, in `count` values."""
    rng = np.random.default_rng(seed)
    return share((rng.standard_normal(shape) * (rng.random(shape) < kept)).astype(np.float32), count)


def net(name: str, kept: float = 0.3) -> tuple[dict, nn.Module]:
    """A net and its spec; every matrix is pruned and shared, other tensors are as training may leave them."""
    family, shape, hyper = NETS[name]
    torch.manual_seed(0)
    model = families.load(family)(shape, 4, **hyper)
    state = model.state_dict()
    for seed, (key, tensor) in enumerate(state.items()):
        if tensor.dim() > 1:
            state[key] = torch.from_numpy(pruned(tuple(tensor.shape), kept, 8, seed))
        elif tensor.is_floating_point():
            state[key] = torch.rand(tensor.shape) + 0.1
        else:
            state[key] = tensor + 1234
    model.load_state_dict(state)
    spec = {"family": family, "shape": list(shape), "classes": 4, "settings": hyper, "cost": {"bytes": 1}}
    return spec, model.eval()


def mlp(hidden: tuple[int, ...], weights: list[np.ndarray], inputs: int = 784) -> tuple[dict, dict]:
    """The spec and tensors of a net with these weights, and biases 0."""
    names = [f"layers.{i}" for i in range(len(hidden))] + ["head"]
    tensors = {}
    for name, weight in zip(names, weights, strict=True):
        tensors |= {f"{name}.weight": weight, f"{name}.bias": np.zeros(len(weight), np.float32)}
    return {"family": "mlp", "shape": [inputs], "classes": 10, "settings": {"hidden": list(hidden)}}, tensors


# ---- sharing


@pytest.mark.parametrize("count", [2, 5, 16])
def test_k_means_comes_to_rest_where_that_of_scikit_learn_does(count):
    values = np.sort(np.random.default_rng(0).uniform(-1, 2, 3000))
    start = np.linspace(values[0], values[-1], count)
    ours = lloyd(values, start)
    theirs = KMeans(count, init=start[:, None], n_init=1, max_iter=1000, tol=0).fit(values[:, None])
    inertia = np.square(values[:, None] - ours).min(1).sum()
    assert inertia == pytest.approx(theirs.inertia_, rel=1e-9)
    np.testing.assert_allclose(ours, np.sort(theirs.cluster_centers_[:, 0]), rtol=1e-9)


def test_a_centre_that_is_left_with_nothing_is_dropped():
    assert lloyd(np.array([0.0, 1, 10]), np.array([0.0, 1, 5, 10])).tolist() == [0, 1, 10]


@laws
@given(
    weights=hnp.arrays(np.float32, hnp.array_shapes(max_side=9), elements=st.floats(-9, 9, width=32)),
    count=st.integers(1, 6),
)
def test_shared_weights_are_few_halves_near_the_weights_and_sharing_again_changes_nothing(weights, count):
    shared = share(weights, count)
    assert shared.dtype == np.float32 and shared.shape == weights.shape
    assert len(np.unique(shared[shared != 0])) <= count
    assert not shared[weights == 0].any() and not np.signbit(shared[shared == 0]).any()
    assert np.array_equal(shared, rounded(shared)) and np.array_equal(share(shared, count), shared)
    kept = weights != 0
    if kept.any():  # between the least and the greatest, give or take a rounding
        reach = np.abs(weights).max() * 2**-10 + 1e-7
        assert weights[kept].min() - reach <= shared[kept].min() and shared[kept].max() <= weights[kept].max() + reach


def test_all_tensors_are_made_fit_for_the_file():
    rng = np.random.default_rng(0)
    tensors = {"w": rng.standard_normal((9, 9)), "b": rng.standard_normal(9), "n": np.array(7)}
    tensors = {name: x.astype(np.float32) if x.ndim else x for name, x in tensors.items()}
    found = share_all(tensors, {"w": 3})
    assert list(found) == list(tensors) and found["n"] is tensors["n"]
    assert np.array_equal(found["w"], share(tensors["w"], 3)) and np.array_equal(found["b"], rounded(tensors["b"]))
    with pytest.raises(AtelierError, match="no tensor v to share"):
        share_all(tensors, {"v": 3})


@pytest.mark.parametrize("weight", [7e4, np.inf, np.nan])
def test_weights_that_float16_has_not_are_refused(weight):
    with pytest.raises(AtelierError, match="65504"):
        share(np.array([1, weight], np.float32), 1)
    with pytest.raises(AtelierError, match="at least 1"):
        share(np.ones(3, np.float32), 0)


# ---- codes

counted = hnp.arrays(np.int64, st.integers(2, 40), elements=st.integers(0, 10**6) | st.integers(0, 3)).filter(
    lambda counts: (counts > 0).sum() > 1
)


@laws
@given(counts=counted)
def test_huffman_lengths_fill_the_tree_and_are_within_a_bit_of_entropy(counts):
    lengths = entropy.lengths(counts)
    assert ((lengths > 0) == (counts > 0)).all()
    present = lengths[lengths > 0]
    assert sum(2 ** int(present.max() - length) for length in present) == 2 ** int(present.max())  # Kraft
    shares = counts[counts > 0] / counts.sum()
    least = -(shares @ np.log2(shares))
    assert least - 1e-9 <= shares @ present < least + 1


@laws
@given(counts=hnp.arrays(np.int64, st.integers(2, 5), elements=st.integers(1, 30)))
def test_no_other_lengths_that_make_a_code_are_shorter(counts):
    k = len(counts)
    codes = (c for c in itertools.product(range(1, k), repeat=k) if sum(2.0**-length for length in c) <= 1)
    codes = [*codes, (1, 1)] if k == 2 else codes
    assert counts @ entropy.lengths(counts) == min(np.dot(counts, code) for code in codes)


@laws
@given(counts=counted)
def test_no_codeword_begins_another(counts):
    lengths = entropy.lengths(counts)
    order, starts = entropy.canonical(lengths)
    words = sorted(f"{start:0{entropy.WINDOW}b}"[: lengths[s]] for s, start in zip(order, starts, strict=True))
    assert not any(b.startswith(a) for a, b in itertools.pairwise(words))


@coders
def test_a_reader_gives_back_what_a_writer_took(coder):
    rng = np.random.default_rng(0)
    for _ in range(150):
        writer, taken = entropy.WRITERS[coder](), []
        for _ in range(rng.integers(6)):
            n, width, alphabet = rng.integers(1, 40), int(rng.integers(65)), int(rng.integers(1, 20))
            numbers = np.array([int(x) >> 64 - width for x in rng.integers(2**64, size=n, dtype=np.uint64)], np.uint64)
            symbols = rng.choice(alphabet, n, p=rng.dirichlet(np.full(alphabet, 0.3)))
            rising = np.unique(numbers)
            likely = np.clip(rng.random(n) ** 4, places.RAREST, 1 - places.RAREST)
            flags = rng.random(n) < likely
            writer.bits(numbers, width)
            entropy.put_symbols(writer, symbols, alphabet)
            entropy.put_number(writer, int(n))
            entropy.put_rising(writer, rising, width)
            if writer.maps:
                writer.flags(flags, likely)
            taken.append((numbers, width, symbols, alphabet, rising, flags, likely))
        reader = entropy.READERS[coder](writer.finish())
        for numbers, width, symbols, alphabet, rising, flags, likely in taken:
            assert np.array_equal(reader.bits(len(numbers), width), numbers)
            assert np.array_equal(entropy.take_symbols(reader, len(symbols), alphabet), symbols)
            assert entropy.take_number(reader) == len(numbers)
            assert np.array_equal(entropy.take_rising(reader, len(rising), width), rising)
            assert not reader.maps or np.array_equal(reader.flags(likely), flags)


@pytest.mark.parametrize("skew", [0.05, 0.3, 1, 10])
@pytest.mark.parametrize("alphabet", [2, 16, 200])
def test_the_range_coder_takes_what_entropy_says(skew, alphabet):
    rng = np.random.default_rng(int(100 * skew) + alphabet)
    symbols = rng.choice(alphabet, 5000, p=rng.dirichlet(np.full(alphabet, skew)))
    table = entropy.frequencies(np.bincount(symbols, minlength=alphabet))
    writer = entropy.RangeWriter()
    writer.symbols(symbols, table)
    assert len(writer.finish()) <= 1.02 * bits_of(symbols) / 8 + 8
    likely = rng.random(5000)
    flags, writer = rng.random(5000) < likely, entropy.RangeWriter()
    writer.flags(flags, likely)
    assert len(writer.finish()) <= -1.02 * np.log2(np.where(flags, likely, 1 - likely)).sum() / 8 + 8


@coders
def test_what_is_counted_is_what_is_written(coder):
    kind, symbols = entropy.WRITERS[coder], np.random.default_rng(0).binomial(20, 0.2, 3000)
    counter, writer = entropy.Counter(kind), kind()
    for each in (counter, writer):
        entropy.put_symbols(each, symbols, 21)
        each.bits(np.arange(8), 3)
    assert len(writer.finish()) == pytest.approx(counter.total / 8, abs=2)


# ---- places


@laws
@given(
    kept=hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30)).filter(np.any),
    width=st.sampled_from(places.GAP_BITS),
    grids=st.tuples(*[st.integers(0, places.GRIDS - 1)] * 2),
)
def test_places_come_back_by_every_gap_and_every_map(kept, width, grids):
    writer = entropy.HuffmanWriter()
    places.put_gaps_below(writer, kept, width)
    assert np.array_equal(places.take_gaps(entropy.HuffmanReader(writer.finish()), kept.shape), kept)
    writer = entropy.RangeWriter()
    places.put_map_under(writer, kept, grids)
    assert np.array_equal(places.take_map(entropy.RangeReader(writer.finish()), kept.shape), kept)


def test_cells_are_as_likely_as_rows_and_columns_say():
    rng = np.random.default_rng(0)
    kept = rng.random((30, 40)) < rng.random((30, 1)) * rng.random((1, 40))
    sides = [(kept.sum(axis), np.arange(kept.shape[axis] + 1.0)) for axis in (1, 0)]
    likely = places._likely(int(kept.sum()), *sides)
    for axis in (0, 1):
        np.testing.assert_allclose(likely.sum(axis), kept.sum(axis), atol=0.05)
    assert not likely[kept.sum(1) == 0].any()


# ---- files


@st.composite
def tensors(draw) -> np.ndarray:
    """Of any shape and of any bits: infinities, negative zeros, NaN of every kind; few values or many."""
    dtype = np.dtype(draw(st.sampled_from(["f4", "f4", "f8", "f2", "i8", "i4", "u1", "?"])))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7))
    top = 2 ** (1 if dtype.kind == "b" else 8 * dtype.itemsize)
    known = [0, 1, top // 2, top - 1]
    if dtype.kind == "f":
        known += [int(np.array(x, dtype).view(f"u{dtype.itemsize}")) for x in (1, -0.5, np.inf, -np.inf, np.nan)]
    elements = draw(st.sampled_from([st.sampled_from(known), st.integers(0, top - 1), st.just(0)]))
    patterns = draw(hnp.arrays(np.uint64, shape, elements=elements, fill=elements))
    return patterns.astype(f"u{dtype.itemsize}").view(dtype)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@coders
@laws
@given(given=st.lists(tensors(), max_size=4))
def test_a_file_holds_any_tensors_to_the_bit_and_its_ledger_adds_up(coder, given):
    given = {f"t.{i}": tensor for i, tensor in enumerate(given)}
    spec = {"family": "of-no-family", "settings": {"é": [1.5, None]}}
    content = format.dump({**spec, "cost": 3}, given, coder)
    assert content == format.dump(spec, given, coder)
    assert sum(format.ledger(content).values()) == len(content)
    found, loaded = format.load(content)
    assert found == spec and list(loaded) == list(given)
    assert all(same_bits(loaded[name], tensor) for name, tensor in given.items())


def test_tensors_and_coders_that_a_file_cannot_have_are_refused():
    with pytest.raises(AtelierError, match="complex64"):
        format.dump({}, {"w": np.zeros(2, np.complex64)})
    with pytest.raises(AtelierError, match="did you mean huffman"):
        format.dump({}, {}, "hufman")


@coders
@pytest.mark.parametrize("name", NETS)
def test_a_net_comes_back_to_the_bit(name, coder, tmp_path):
    spec, model = net(name)
    path = tmp_path / "net.atlr"
    ledger = compress.write(path, spec, model, coder)
    assert ledger.keys() == {"values", "indices", "codebook", "biases", "shapes", "header"}
    assert sum(ledger.values()) == path.stat().st_size
    loaded, found = compress.read(path)
    assert not loaded.training and found["family"] == spec["family"] and "cost" not in found
    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(same_bits(before[key].numpy(), after[key].numpy()) for key in before)
    # Names and shapes follow from the spec, and take no room.
    assert ledger["shapes"] < 70 and ledger["header"] <= 18


def test_a_fresh_process_computes_the_same_bits(tmp_path):
    x = torch.from_numpy(np.random.default_rng(0).random((20, 1, 8, 8), np.float32))
    torch.save(x, tmp_path / "x")
    for name in NETS:
        compress.write(tmp_path / name, *net(name))
    code = f"""
import torch
from atelier import compress
torch.set_num_threads(1)
x = torch.load("x")
with torch.no_grad():
    nets = {{name: compress.read(name)[0] for name in {list(NETS)}}}
    torch.save({{k: m.classify(x) if hasattr(m, "classify") else m.reconstruct(x) for k, m in nets.items()}}, "answers")
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    answers = torch.load(tmp_path / "answers")
    for name in NETS:
        model = net(name)[1]
        with torch.no_grad():
            expected = model.classify(x) if hasattr(model, "classify") else model.reconstruct(x)
        assert torch.equal(answers[name], expected), name


def test_tensors_that_are_not_the_nets_own_are_listed_in_the_file():
    spec, model = net("mlp")
    doubled = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    content = format.dump(spec, doubled)
    assert all(same_bits(doubled[name], tensor) for name, tensor in format.load(content)[1].items())
    assert format.ledger(content)["shapes"] > 70


def test_writing_and_reading_draw_no_random_numbers():
    spec, model = net("mlp")
    state = torch.get_rng_state()
    format.load(format.dump(spec, {name: tensor.numpy() for name, tensor in model.state_dict().items()}))
    assert torch.equal(torch.get_rng_state(), state)


def test_kept_inputs_take_no_more_than_a_bit_each_and_less_where_they_lie_together():
    rng = np.random.default_rng(0)
    near = np.hypot(*(np.indices((28, 28)) - 13.5)).ravel() < 6
    for kept, most in ((rng.random(784) < 0.5, 784), (rng.random(784) < 0.1, 400), (near, 250)):
        base = {"family": "of-no-family", "shape": [1, 28, 28], "settings": {"hidden": [3]}}
        spec = {**base, "settings": {"hidden": [3], "inputs": tuple(np.flatnonzero(kept).tolist())}}
        content = format.dump(spec, {})
        assert format.load(content)[0]["settings"] == {"hidden": [3], "inputs": list(spec["settings"]["inputs"])}
        assert 8 * (len(content) - len(format.dump(base, {}))) < most + 160  # its name and table


@pytest.mark.parametrize("numbers", [range(0, 6000, 3), range(16), [*range(20), 10**9], [1, *range(20)]])
def test_rising_numbers_come_back_whatever_they_count(numbers):
    spec = {"family": "of-no-family", "shape": [9, 128], "settings": {"chosen": list(numbers)}}
    assert format.load(format.dump(spec, {}))[0] == spec


# ---- damage


@pytest.fixture(scope="module")
def content() -> bytes:
    spec, model = net("mlp")
    return format.dump(spec, {name: tensor.numpy() for name, tensor in model.state_dict().items()})


@pytest.fixture
def undecoded(monkeypatch):
    """Decoding is an error of the test."""

    def fail(*_):
        raise AssertionError("decoded")

    for reader in entropy.READERS.values():
        monkeypatch.setattr(reader, "__init__", fail)


def refusal(content: bytes) -> str:
    with pytest.raises(AtelierError) as refused:
        format.load(content)
    with pytest.raises(AtelierError):
        format.ledger(content)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.usefixtures("undecoded")
def test_every_flipped_byte_is_refused(content):
    rng = np.random.default_rng(0)
    for place, flip in zip(rng.integers(len(content), size=100), rng.integers(1, 256, size=100), strict=True):
        damaged = bytearray(content)
        damaged[place] ^= flip
        refusal(bytes(damaged))
    for place in range(format.START + 8):  # all of the head
        refusal(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


@pytest.mark.usefixtures("undecoded")
def test_every_file_cut_short_or_longer_is_refused(content):
    for length in range(len(content)):
        refusal(content[:length])
    for more in (b"\0", b"\xff", content[-4:], content):
        assert "write it again" in refusal(content + more)


@pytest.mark.usefixtures("undecoded")
def test_other_versions_and_other_files_are_named(content):
    assert "not of version 1" in refusal(content[:4] + b"\2" + content[5:])
    assert "not a compressed net" in refusal(b"PK\3\4" + content[4:])


def test_the_place_of_a_bad_file_is_named(tmp_path, content):
    with pytest.raises(AtelierError, match="net.atlr: not there; write it"):
        compress.read(tmp_path / "net.atlr")
    (tmp_path / "net.atlr").write_bytes(content[:-1])
    with pytest.raises(AtelierError, match="net.atlr: .* damaged"):
        compress.read(tmp_path / "net.atlr")


def test_a_net_that_is_built_otherwise_now_is_refused(content, monkeypatch):
    monkeypatch.setattr(format, "_layout", lambda spec: [["layers.0.weight", "<f4", [64, 12]]])
    with pytest.raises(AtelierError, match="builds other tensors"):
        format.load(content)


@pytest.mark.parametrize(
    "written",
    [
        "41544c520106bc4ab200120d18071390cdb4220e3ce314230c807c9880648740a402ab80068008f03fb99999a041bd1d000865168015"
        "7f981a0c0e8301a1555555555557800e80000000018023c0003c008001080220045008c011c024004880920126025004a8096012e026"
        "004c4099013300900000bc00",
        "41544c5201ef01790801120d1c041390cdb41fd4b4aa2096bbf44a968e0285aea402ab80036808203e75a2666d1a420c3bec3bfc03db"
        "2d67c853e87e99c6d075186df9cd7064dbf915278f08a123c0003bff6a0008001000100020004000800080010002000370a6df5dbadb"
        "6df6cc2d88daf2b3cfdc00bbd1",
    ],
)
def test_files_of_version_1_are_read_by_every_later_one(written):
    rows, columns = np.indices((20, 40))
    weight = np.where((rows < 8) & (rows * columns % 7 == 1), np.float32(0.5), np.float32(0))
    weight[1, 2], weight[15, 30] = -0.25, 0.5
    expected = {
        "layers.0.weight": weight,
        "layers.0.bias": np.arange(20, dtype=np.float32),
        "head.weight": np.full((2, 20), np.float32(0.1)),
        "head.bias": np.array([0, -1], np.float32),
    }
    spec, tensors = format.load(bytes.fromhex(written))
    assert spec == {"family": "mlp", "shape": [40], "classes": 2, "settings": {"hidden": [20]}}
    assert format.ledger(bytes.fromhex(written))["indices"] > 0
    assert list(tensors) == list(expected) and all(same_bits(tensors[name], expected[name]) for name in expected)


# ---- sizes


@pytest.mark.parametrize("coder, more", [("range", 1.01), ("huffman", 1.05)])
def test_a_pruned_net_takes_the_entropy_of_its_places_and_of_its_codes(coder, more):
    shapes = [(300, 784), (100, 300), (10, 100)]
    weights = [pruned(shape, 0.05, 16, seed) for seed, shape in enumerate(shapes)]
    spec, tensors = mlp((300, 100), weights)
    content = format.dump(spec, tensors, coder)
    bound = sum(bits_of(w != 0) + bits_of(w[w != 0]) for w in weights) / 8
    spent = format.ledger(content)
    assert spent["indices"] + spent["values"] >= 0.999 * bound
    # 16 values with their table take about 40 bytes a layer.
    assert len(content) < more * bound + 3 * 40 + 50
    assert 4 * sum(w.size for w in weights) / len(content) > 40


def test_a_dense_net_of_16_values_takes_their_entropy():
    shapes = [(71, 97), (33, 71), (10, 33)]
    weights = [pruned(shape, 1, 16, seed) for seed, shape in enumerate(shapes)]
    spent = format.ledger(format.dump(*mlp((71, 33), weights, 97)))
    assert spent["values"] < 1.002 * sum(map(bits_of, weights)) / 8 + 3 * 14
    assert spent["indices"] == 0 and spent["codebook"] < 100


def test_a_matrix_of_16_values_takes_their_entropy():
    weight = pruned((100, 300), 1, 16, 0)
    spent = format.ledger(format.dump({}, {"w": weight}))
    assert spent["values"] + spent["codebook"] < 1.001 * bits_of(weight) / 8 + 50


def test_places_in_few_rows_and_columns_take_less_than_their_number_says():
    rng = np.random.default_rng(0)
    busy = rng.lognormal(0, 1.5, (300, 1)) * rng.lognormal(0, 1.5, (1, 784))
    weight = np.zeros((300, 784), np.float32)
    weight.flat[rng.choice(weight.size, 3000, replace=False, p=(busy / busy.sum()).ravel())] = 1
    indices = format.ledger(format.dump({}, {"w": weight}))["indices"]
    assert indices < 0.8 * bits_of(weight) / 8
    weight = rng.permutation(weight.ravel()).reshape(weight.shape)  # the same number, anywhere
    assert format.ledger(format.dump({}, {"w": weight}))["indices"] < bits_of(weight) / 8 + 8


def test_a_full_block_takes_little_more_than_its_sides():
    block = np.zeros((60, 50), np.float32)
    block[10:40, 5:25] = 1
    assert format.ledger(format.dump({}, {"w": block}))["indices"] < (60 + 50) / 8 + 12


def test_tensors_of_one_value_take_next_to_nothing():
    spec, tensors = mlp((300, 100), [np.zeros(shape, np.float32) for shape in ((300, 784), (100, 300), (10, 100))])
    assert len(format.dump(spec, tensors)) < 50


def test_a_file_is_decoded_and_judged_from_the_command_line(project, capsys):
    from atelier.__main__ import main as command
    from atelier.data.items import items

    store = Store(paths.noisy("digits"))
    torch.manual_seed(0)
    net, settings = families.load("mlp")(store.shape, len(store.classes), hidden=(5,)), {"hidden": (5,)}
    spec = {"family": "mlp", "shape": store.shape, "classes": len(store.classes), "settings": settings}
    ledger = compress.write(project / "net", spec, net)
    assert command(["decode", "net", "--dataset", "digits"]) == 0
    about, size, accuracy, digest = capsys.readouterr().out.splitlines()
    test = items(store, "test", None, False)
    found = evaluation.answer(net, test.x)
    assert about == f"mlp of {36 * 5 + 5 + 5 * 4 + 4} parameters"
    assert size.startswith(f"{sum(ledger.values()):,} bytes: shapes {ledger['shapes']}")
    assert float(accuracy.split()[-1]) == pytest.approx((found.argmax(1) == test.y.numpy()).mean())
    assert digest.split()[-1] == hashlib.sha256(found.tobytes()).hexdigest()
    assert command(["decode", "nothing"]) == 2
    assert "nothing: not there; write it with atelier.compress.write" in capsys.readouterr().err
