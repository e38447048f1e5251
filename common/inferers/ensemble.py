"""The mean of what a network makes of mirrored and turned images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

from ..values import is_true


class EnsembleInferer(Inferer):
    """Runs an inferer with the middle of what a network for images makes of each image's mirrored and turned forms.

    The four mirror images, and, where what the images lack is the same along both axes, those of the image turned by 90
    degrees, each brought back. In each pixel it is the median, of an even number the mean of the two in the middle.

    Args:
        inferer: runs the network over a volume, image by image.
        turned: whether images are turned too: eight forms, not four.
        enabled: whether there is more than the image itself.

    Source:
        Shocher et al., "Zero-Shot" super-resolution using deep internal learning, IEEE CVPR 2018, section 3.1.
    """

    def __init__(self, inferer: Inferer, turned: bool | str, enabled: bool | str = True) -> None:
        super().__init__()
        self.inferer, self.enabled = inferer, is_true(enabled, "ensemble")
        ways = (False, True) if is_true(turned, "turned") else (False,)
        self.forms = [(way, axes) for way in ways for axes in ([], [2], [3], [2, 3])]

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """As the inferer; the network maps images ``(b, 1, H, W)`` to images of that size."""

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
