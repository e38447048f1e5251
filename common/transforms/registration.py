"""Rigid registration of HR to LR, for the supervised baseline on misaligned pairs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..degradations import Degradation


class RegisterHRd(MapTransform):
    """Move a misaligned HR volume rigidly onto its LR volume: Mattes mutual information, SimpleITK.

    It stands for the registration of Liu et al. 2023, table I, which used extended mutual information in Amira 3D. HR
    is resampled on its own grid with a cubic B-spline.

    Args:
        keys: key of the HR volume ``(1, X, Y, Z)``.
        lr_key: of the LR volume.
        degradation: from HR to LR; says where LR voxels lie on HR's.

    Raises:
        ImportError: when SimpleITK is not installed.
    """

    def __init__(self, keys: KeysCollection, lr_key: str, degradation: Degradation) -> None:
        super().__init__(keys)
        self.lr_key = lr_key
        self.degradation = degradation

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        try:
            import SimpleITK as sitk
        except ImportError as error:
            raise ImportError("registration needs SimpleITK: pip install 'mri-sr-bundles[registration]'") from error
        d = dict(data)
        for key in self.key_iterator(d):
            hr = d[key]
            spacing = np.linalg.norm(np.asarray(hr.affine)[:3, :3], axis=0)
            moving = self._image(sitk, hr, spacing, (0, 0, 0))
            factors, offset = np.asarray(self.degradation.factors), np.asarray(self.degradation.offset)
            fixed = self._image(sitk, d[self.lr_key], spacing * factors, spacing * offset)
            start = sitk.CenteredTransformInitializer(
                fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
            )
            method = sitk.ImageRegistrationMethod()
            method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=50)
            method.SetMetricSamplingStrategy(method.REGULAR)
            method.SetMetricSamplingPercentage(0.2)
            method.SetOptimizerAsRegularStepGradientDescent(
                learningRate=1.0, minStep=1e-4, numberOfIterations=200, relaxationFactor=0.6
            )
            method.SetOptimizerScalesFromPhysicalShift()
            method.SetShrinkFactorsPerLevel([2, 1])
            method.SetSmoothingSigmasPerLevel([1, 0])
            method.SetInterpolator(sitk.sitkLinear)
            method.SetInitialTransform(start, inPlace=False)
            found = method.Execute(fixed, moving)
            moved = sitk.GetArrayFromImage(sitk.Resample(moving, moving, found, sitk.sitkBSpline, 0.0))
            volume = torch.from_numpy(moved.transpose(2, 1, 0).copy())[None]
            d[key] = MetaTensor(volume).copy_meta_from(hr)
        return d

    @staticmethod
    def _image(sitk: Any, volume: torch.Tensor, spacing: np.ndarray, origin: Any) -> Any:
        """A volume in a frame whose axes are its own, in mm, with HR voxel 0 at the origin."""
        image = sitk.GetImageFromArray(torch.as_tensor(volume)[0].float().numpy().transpose(2, 1, 0))
        image.SetSpacing([float(s) for s in spacing])
        image.SetOrigin([float(o) for o in origin])
        return image
