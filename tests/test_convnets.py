"""The block plans of AlexNet, VGG and ResNet against torchvision's own nets."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from atelier import checkpoint, cost, families, vision
from atelier.data.items import Items
from atelier.errors import AtelierError
from atelier.fit import fit
from atelier.params import Recipe

SHAPE, CLASSES = (3, 224, 224), 1000
ALEXNET = (
    *("conv 64 11 pad 2 stride 4", "pool 3 stride 2", "conv 192 5", "pool 3 stride 2", "conv 384 3", "conv 256 3"),
    *("conv 256 3", "pool 3 stride 2", "dropout 0.5", "dense 4096", "dropout 0.5", "dense 4096"),
)
VGG_16 = (
    *(["conv 64 3"] * 2 + ["pool 2"] + ["conv 128 3"] * 2 + ["pool 2"] + ["conv 256 3"] * 3 + ["pool 2"]),
    *((["conv 512 3"] * 3 + ["pool 2"]) * 2 + ["dense 4096", "dropout 0.5"] * 2),
)
RESNET = {"maps": (64, 128, 256, 512), "projection": True, "batch_norm": True, "shrink": 4}
PLANS = {  # torchvision's name -> ours
    "alexnet": ("cnn", {"plan": ALEXNET}),
    "vgg16": ("cnn", {"plan": VGG_16}),
    "vgg16_bn": ("cnn", {"plan": VGG_16, "batch_norm": True}),
    "resnet18": ("resnet", RESNET | {"blocks": 2}),
    "resnet34": ("resnet", RESNET | {"blocks": (3, 4, 6, 3)}),
    "resnet50": ("resnet", RESNET | {"blocks": (3, 4, 6, 3), "bottleneck": True}),
}


@pytest.fixture(scope="module")
def theirs():
    return vision.models()


@pytest.mark.parametrize("name", PLANS)
def test_full_size_plans_have_the_parameters_and_multiply_adds_of_torchvisions_nets(theirs, name):
    family, settings = PLANS[name]
    with torch.device("meta"):  # sizes without numbers
        ours, reference = families.load(family)(SHAPE, CLASSES, **settings), getattr(theirs, name)().eval()
        with FlopCounterMode(display=False) as counter:
            reference(torch.empty(1, *SHAPE))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in reference.parameters())
    assert sum(b.numel() for b in ours.buffers()) == sum(b.numel() for b in reference.buffers())
    assert cost.multiply_adds(ours, SHAPE) == counter.get_total_flops() // 2


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_residual_net_computes_what_torchvisions_does_with_the_same_weights(theirs, bottleneck):
    """In training too, where batch norm takes the batch's own mean, and running means follow it."""
    counts = (1, 2, 1, 2)
    torch.manual_seed(0)
    block = theirs.resnet.Bottleneck if bottleneck else theirs.resnet.BasicBlock
    reference = theirs.ResNet(block, counts, num_classes=7)
    settings = RESNET | {"blocks": counts, "bottleneck": bottleneck}
    ours = families.load("resnet")((3, 64, 64), 7, **settings)
    ours.load_state_dict(_as_ours(reference))
    x = torch.rand(4, 3, 64, 64)
    for training in (True, False):
        with torch.no_grad():
            expected = reference.train(training)(x)
            torch.testing.assert_close(ours.train(training).classify(x), expected, rtol=0, atol=1e-4)
    assert ours.state_dict()["stem.1.running_mean"].abs().max() > 1e-3, "running means did not follow"
    for name, tensor in _as_ours(reference).items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def _as_ours(net: nn.Module) -> dict[str, torch.Tensor]:
    """The state of torchvision's net under our names: stages laid end to end, a convolution beside its batch norm."""
    parts = {"conv1": "first.{}.0", "bn1": "first.{}.1", "conv2": "second.{}.0", "bn2": "second.{}.1"}
    parts |= {"conv3": "third.{}.0", "bn3": "third.{}.1"}
    parts |= {"downsample.0": "shortcuts.{}.0", "downsample.1": "shortcuts.{}.1"}
    names = {"conv1": "stem.0", "bn1": "stem.1", "fc": "head"}
    blocks = [name for name, module in net.named_modules() if name.startswith("layer") and name.count(".") == 1]
    for i, block in enumerate(blocks):
        names |= {f"{block}.{part}": ours.format(i) for part, ours in parts.items()}
    split = {key: key.rpartition(".") for key in net.state_dict()}
    return {f"{names[split[key][0]]}.{split[key][2]}": tensor for key, tensor in net.state_dict().items()}


def test_alexnet_computes_what_torchvisions_does_with_the_same_weights(theirs):
    reference = theirs.AlexNet(num_classes=5).eval()
    with torch.device("meta"):
        ours = families.load("cnn")(SHAPE, 5, plan=ALEXNET).eval()
    weights = dict(zip(ours.state_dict(), reference.state_dict().values(), strict=True))
    ours.load_state_dict(weights, assign=True)
    x = torch.rand(2, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(ours.classify(x), reference(x), rtol=0, atol=1e-5)


NORMED = [
    ("cnn", {"plan": ("conv 4 3", "pool 2", "dense 6"), "batch_norm": True}),
    ("resnet", {"maps": (4, 6), "blocks": (1, 2), "bottleneck": True, "projection": True, "batch_norm": True}),
]


@pytest.mark.parametrize(("family", "settings"), NORMED, ids=["cnn", "resnet"])
def test_what_batch_norm_has_seen_is_saved_with_the_net(family, settings, tmp_path):
    torch.manual_seed(0)
    spec = {"family": family, "shape": (1, 8, 8), "classes": 3, "settings": settings}
    net, x = checkpoint.build(spec), torch.rand(9, 1, 8, 8)
    fresh = net.eval().classify(x)
    net.train().classify(x)
    checkpoint.save(tmp_path, spec, net)
    loaded, _ = checkpoint.load(tmp_path)
    assert torch.equal(loaded.classify(x), net.eval().classify(x))
    assert not torch.equal(loaded.classify(x), fresh), "nothing was seen"


@pytest.mark.parametrize(("family", "settings"), NORMED, ids=["cnn", "resnet"])
def test_batch_norm_and_strides_go_with_bfloat16_and_channels_last(family, settings):
    torch.manual_seed(0)
    net = families.load(family)((1, 8, 8), 3, **settings)
    x, y = torch.rand(32, 1, 8, 8), torch.arange(32) % 3
    kernels = [p for p in net.parameters() if p.dim() == 4]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    exact = next(net.losses(x, y))["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        logits = net.classify(x)
        rounded = next(net.losses(x, y))["loss"]
    rounded.backward()
    assert logits.dtype == torch.bfloat16
    assert rounded.dtype == torch.float32 and 0 < abs(rounded - exact).item() < 0.03 * exact.item()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())


def test_chunks_are_refused_because_batch_norm_would_see_pieces_and_not_the_batch():
    family, settings = NORMED[0]
    net, x = families.load(family)((1, 8, 8), 3, **settings), torch.rand(9, 1, 8, 8)
    items = Items(x, x, torch.arange(9) % 3)
    with pytest.raises(AtelierError, match="chunk .* batch norm"):
        fit(net, Recipe(epochs=1, batch="full", chunk=4), 0, items, ("test", items))
