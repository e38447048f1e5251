"""How well known kernels are recovered on a scan: ``python -m tests.benchmarks.kernel_recovery --hr A.nii.gz``.

One scan is degraded with a Gaussian, or as a scan of half the k-space, without noise; from it and another scan (or the
same, which is the easiest case) the kernel is estimated, and its width, angle and centre are compared with the true
ones and with the paper's Gaussian.
"""

from __future__ import annotations

import tempfile

import fire
import torch

from common.blur_kernels import describe_kernel, gaussian_kernel, read_kernels, zero_filling_kernel
from common.reports import kernel_errors

from .common_parts import parser


def main(
    hr: str,
    lr: str | None = None,
    sigma: tuple = (2.0, 1.0),
    angle: float = 30.0,
    zero_filling: bool = False,
    **override,
) -> None:
    """Print the errors.

    Args:
        hr: a scan, which serves as HR.
        lr: a scan, which is degraded; default the same.
        sigma: standard deviations of the Gaussian in HR pixels.
        angle: of its first axis in degrees.
        zero_filling: whether the true kernel is zero_filling_kernel, as far as 13x13 pixels hold it.
        override: of train.json, for example --kernel_per volume --crops 8 --kernel_epochs 3.
    """
    truth = zero_filling_kernel(2, 13) if zero_filling else gaussian_kernel(sigma, angle)
    with tempfile.TemporaryDirectory() as folder:
        same = {"subject": "one"} if lr is None else {}
        config = parser(
            bundle="downsampling_gan",
            source_data=[{"hr": hr, **same}],
            target_data=[{"hr": lr or hr, **same}],
            simulated_kernel=truth,
            dataset_dir=folder,
            output_dir=folder,
            ckpt_dir=folder,
            **override,
        )
        config.get_parsed_content("estimate")
        kernels = torch.stack([entry["kernel"] for entry in read_kernels(f"{folder}/kernels")])
    gaussian = gaussian_kernel(1.5)
    print(kernel_errors(kernels, truth, {"Gaussian, sigma 1.5": gaussian, "mean of the estimated": kernels.mean(0)}))
    found, true = [describe_kernel(kernel) for kernel in kernels], describe_kernel(truth)
    for name, difference in (
        ("long axis, px", [abs(f["fwhm"][0] - true["fwhm"][0]) for f in found]),
        ("short axis, px", [abs(f["fwhm"][1] - true["fwhm"][1]) for f in found]),
        ("angle, degrees", [abs((f["angle"] - true["angle"] + 90) % 180 - 90) for f in found]),
        ("centre, px", [max(abs(c) for c in f["centre"]) for f in found]),
    ):
        values = torch.tensor(difference)
        print(f"off in {name:<16} median {values.median():.3f}, largest {values.max():.3f}")


if __name__ == "__main__":
    fire.Fire(main)
