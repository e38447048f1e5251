"""Super-resolution of a volume by a network for its slices in two orthogonal directions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SliceInferer

from ..command_line import is_true
from ..progress import counted, part


class OrthogonalInferer(Inferer):
    """Runs a 2-D network over all images of a volume that contain its last axis, in two directions, and averages.

    Args:
        planes: axes of the volume (X, Y, Z) across which images are taken: 0 gives images (Y, Z), 1 images (X, Z).
        batch: images at once.
        amp: whether the network runs under autocast.
        amp_kwargs: of ``torch.autocast``, for example ``{"dtype": torch.bfloat16}``.

    Raises:
        ValueError: when ``planes`` are not 0, 1 or both.
    """

    def __init__(
        self,
        planes: Sequence[int] = (0, 1),
        batch: int = 1,
        amp: bool | str = False,
        amp_kwargs: dict | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(planes, (list, tuple)) or sorted(planes) not in ([0], [1], [0, 1]):
            raise ValueError(f"planes is {planes}, expected [0, 1], [0] or [1]: axes across which images are taken.")
        self.directions = [SliceInferer(roi_size=(-1, -1), spatial_dim=axis, sw_batch_size=batch) for axis in planes]
        self.amp, self.amp_kwargs = is_true(amp, "amp"), amp_kwargs or {}

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Super-resolve a batch of volumes.

        Args:
            inputs: ``(B, 1, X, Y, Z)``.
            network: maps images ``(b, 1, H, Z)`` to ``(b, 1, H, factor Z)``.
            args: further arguments of the network.
            kwargs: further keyword arguments of the network.

        Returns:
            ``(B, 1, X, Y, factor Z)``, float32.
        """

        # SliceInferer does not hand arguments on.
        def on_images(images: torch.Tensor) -> torch.Tensor:
            return network(images, *args, **kwargs)

        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        autocast = torch.autocast(volume.device.type, **self.amp_kwargs) if self.amp else contextlib.nullcontext()
        with autocast:
            total: torch.Tensor | None = None
            for i, direction in enumerate(self.directions):
                with part(i, len(self.directions)):
                    result = direction(volume, counted(on_images, volume.numel())).float()
                total = result if total is None else total.add_(result)
        return total.div_(len(self.directions))
