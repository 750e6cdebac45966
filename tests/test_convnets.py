"""The block plans of AlexNet, VGG and ResNet against torchvision's own nets."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from atelier import cost, families, vision

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
