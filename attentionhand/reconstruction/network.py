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

    Args:
        backbone: one of BACKBONES.
        norm: "group", or "frozen_batch" for weights that began as ImageNet's.
    """

    def __init__(self, backbone: str = "resnet18", norm: str = "group") -> None:
        super().__init__()
        norm_layer = FrozenBatchNorm2d if norm == "frozen_batch" else group_norm
        if backbone == "resnet10":
            self.backbone = ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=norm_layer)
        else:
            self.backbone = getattr(torchvision.models, backbone)(weights=None, norm_layer=norm_layer)
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


def new_network(backbone: str, *, imagenet: bool) -> HandNetwork:
    """A network to train, with random weights or with a backbone that begins with torchvision's ImageNet weights.

    Raises:
        UserError: ImageNet's weights are neither here nor can they be downloaded, or there are none.
    """
    if not imagenet:
        return HandNetwork(backbone)
    if backbone == "resnet10":
        raise UserError("--imagenet: there are no such weights of resnet10; choose resnet18 or resnet50")
    try:
        weights = torchvision.models.get_model_weights(backbone).DEFAULT.get_state_dict(progress=True)
    except OSError as error:
        raise UserError(
            f"--imagenet: the weights of {backbone} can't be downloaded ({reason_of(error)}); leave the flag out, or "
            f"put the file into {torch.hub.get_dir()}/checkpoints"
        ) from None
    network = HandNetwork(backbone, "frozen_batch")
    network.backbone.load_state_dict({name: one for name, one in weights.items() if not name.startswith("fc.")})
    return network


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels)
