"""Folds batch norms into the convolutions before them: a trained network's are a scale and a shift.

They take a sixth of the time of a small network on a CPU, and change nothing but roundings.
"""

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(network: nn.Module) -> None:
    """Folds each batch norm into the convolution that is registered just before it.

    In every architecture of `network_spec.BACKBONES`, and in the U-Net, that convolution is what
    the norm is applied to; a test holds each family of them against its outputs before.

    Args:
        network: In evaluation mode; changed in place.
    """
    for module in list(network.modules()):
        for (name, layer), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(layer, norm))
                setattr(module, norm_name, nn.Identity())
