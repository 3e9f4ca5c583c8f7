"""The reconstruction network: a ResNet of torchvision and one linear layer."""

from typing import NamedTuple

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d

from core.runs.errors import UserError, reason_of

HANDS, JOINTS = 2, 21
RIGHT, LEFT = 0, 1  # places of the hands in every array, as in InterWild
GROUPS = 16  # of GroupNorm
BACKBONES = ("resnet10", "resnet18", "resnet50")  # resnet10, one block a stage, is for the miniature
PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which its weights expect


class Hands(NamedTuple):
    """Both hands of a batch of pictures; lengths are in the network's own unit, about a palm length."""

    joints: torch.Tensor  # (B, 2, 21, 3): right and left hand, each from its own wrist; x right, y down, z away
    left_wrist: torch.Tensor  # (B, 3): left wrist minus right wrist
    presence: torch.Tensor  # (B, 2): logits of there being a right and a left hand


class HandNetwork(nn.Module):
    """Right and left hand from a crop around them.

    Without ImageNet's weights the norms are GroupNorm, with them they are frozen BatchNorm: neither looks at the other
    pictures of a batch, so the result depends on no batch size and on no number of processes.

    Raises:
        UserError: ImageNet's weights are neither here nor can they be downloaded.
    """

    def __init__(self, backbone: str = "resnet18", *, imagenet: bool = False) -> None:
        super().__init__()
        self.backbone = imagenet_resnet(backbone) if imagenet else new_resnet(backbone)
        width = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()
        self.head = nn.Linear(width, HANDS * JOINTS * 3 + 3 + HANDS)
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    def forward(self, pictures: torch.Tensor) -> Hands:
        """Hands of pictures (B, 3, S, S) in [0, 1]."""
        numbers = self.head(self.backbone((pictures - self.mean) / self.std)).float()
        joints, left_wrist, presence = numbers.split((HANDS * JOINTS * 3, 3, HANDS), dim=1)
        return Hands(joints.view(-1, HANDS, JOINTS, 3), left_wrist, presence)


def new_resnet(name: str) -> ResNet:
    """A ResNet with random weights and GroupNorm."""
    if name == "resnet10":
        return ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=group_norm)
    return getattr(torchvision.models, name)(weights=None, norm_layer=group_norm)


def imagenet_resnet(name: str) -> ResNet:
    """A ResNet with torchvision's ImageNet weights, its BatchNorm frozen. Raises UserError where they can't be had."""
    if name == "resnet10":
        raise UserError("--imagenet: there are no such weights of resnet10; choose resnet18 or resnet50")
    try:
        return getattr(torchvision.models, name)(weights="DEFAULT", norm_layer=FrozenBatchNorm2d)
    except OSError as error:
        raise UserError(
            f"--imagenet: the weights of {name} can't be downloaded ({reason_of(error)}); leave the flag out, or put "
            f"the file into {torch.hub.get_dir()}/checkpoints"
        ) from None


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels)
