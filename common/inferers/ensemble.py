"""Test-time augmentation: combine a network's results for mirrored and turned images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

from ..values import is_true


class EnsembleInferer(Inferer):
    """Runs an inferer with the median of a 2-D network's results for mirrored and turned forms of each image.

    There are four mirrored forms. If images lack the same detail along both axes, forms turned by 90 degrees can be
    added. Each result is mirrored and turned back. The median of an even number is the mean of the middle two.

    Args:
        inferer: runs the network over a volume, image by image.
        turned: whether images are turned too: eight forms, not four.
        enabled: whether forms are used at all; else only the image itself.

    Source:
        Shocher et al., "Zero-Shot" super-resolution using deep internal learning, IEEE CVPR 2018, section 3.1.
    """

    def __init__(self, inferer: Inferer, turned: bool | str, enabled: bool | str = True) -> None:
        super().__init__()
        self.inferer, self.enabled = inferer, is_true(enabled, "ensemble")
        ways = (False, True) if is_true(turned, "turned") else (False,)
        self.forms = [(way, axes) for way in ways for axes in ([], [2], [3], [2, 3])]

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the inferer; the network maps images ``(b, 1, H, W)`` to images of the same size."""

        def middle(images: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            results = []
            for turned, axes in self.forms:
                form = (images.transpose(2, 3) if turned else images).flip(axes)
                result = network(form, *args, **kwargs).flip(axes)
                results.append(result.transpose(2, 3) if turned else result)
            ordered = torch.stack(results).sort(dim=0).values
            half = len(results) // 2
            return ordered[half - 1 : half + 1].mean(dim=0)

        return self.inferer(inputs, middle if self.enabled else network, *args, **kwargs)
