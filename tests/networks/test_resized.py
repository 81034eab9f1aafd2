"""To what size transforms resize."""

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from embedkit.networks.bundled.digits import DigitsTransform
from embedkit.networks.load import load_network
from embedkit.networks.resized import resized_to


class Resize(nn.Module):
    """Somebody's own class of a familiar name."""

    size = 10


@pytest.mark.parametrize(
    ("transform", "side"),
    [
        (DigitsTransform(), 16),
        (v1.Compose([v1.Resize(256), v1.CenterCrop(224), v1.ToTensor()]), 256),
        (v1.Compose([v1.Resize((200, 300)), v1.ToTensor()]), 300),
        (v1.Compose([v1.ToTensor(), v1.Compose([v1.Resize(40)])]), 40),
        (v1.Resize(40, max_size=50), 40),
        (v2.Compose([v2.ToImage(), v2.Resize(64), v2.ToDtype(torch.float32)]), 64),
        (v2.Resize(size=None, max_size=90), 90),
        (nn.Sequential(v2.PILToTensor(), v1.Resize([7])), 7),
        (v1.Compose([v1.CenterCrop(500), v1.Resize(256)]), None),
        (v1.Compose([v1.Pad(9), v1.Resize(256)]), None),
        (v1.Compose([v1.ToTensor()]), None),
        (v1.Compose([]), None),
        (v1.Compose([v1.Lambda(lambda x: x), v1.Resize(5)]), None),
        (v1.RandomResizedCrop(224), None),
        (Resize(), None),
        (lambda image: image, None),
    ],
)
def test_the_first_step_tells(transform, side):
    """Only where nothing before the resize looks at more than a pixel."""
    assert resized_to(transform) == side


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "vit_l_16"])
def test_every_weights_transform_of_torchvision_is_known(name):
    """The transforms of published weights: what they resize to is what is found."""
    for entry in torchvision.models.get_model_weights(name):
        transform = entry.transforms()
        assert resized_to(transform) == max(transform.resize_size)


def test_transforms_of_timm_are_known():
    """Its three ways to crop all begin with a resize."""
    from timm.data.transforms_factory import create_transform

    for mode, side in (("center", 256), ("squash", 256), ("border", 256)):
        transform = create_transform(
            (3, 224, 224), crop_pct=0.875, crop_mode=mode, is_training=False
        )
        assert resized_to(transform) == side
    oblong = create_transform((3, 112, 224), crop_pct=0.5, is_training=False)
    assert resized_to(oblong) == 448


@pytest.mark.parametrize("size", [(3000, 500), (500, 3000), (700, 700)])
def test_an_image_of_that_side_is_not_enlarged(size):
    """What the sizes stand for: the first step never gives more pixels than it gets."""
    for step in (v1.Resize(320), v1.Resize((320, 200)), v1.Resize(320, max_size=400)):
        side = resized_to(step)
        scale = side / min(size)
        small = Image.new("RGB", tuple(round(each * scale) for each in size))
        after = step(small)
        assert after.width <= small.width
        assert after.height <= small.height


def test_the_bundled_network_is_known():
    """Its transform resizes to what it takes."""
    network = load_network("embedkit/digits")
    assert resized_to(network.transform) == network.input_shape[1]
