"""Many kernels are estimated at once as each would be alone, and what is estimated is the kernel that was there."""

import copy

import pytest
import torch
from monai.utils import set_determinism

from common.data import VolumeCache
from common.degradations import InPlaneKernel
from common.engines import AlternatingTrainer, Player
from common.graph import TensorGraph
from common.kernels import bicubic_kernel, describe_kernel, gaussian_kernel, kernel_error
from common.losses import (
    AdaptationLoss,
    BoundaryLoss,
    CentreLoss,
    DownscaleLoss,
    KernelSchedule,
    SparsityLoss,
    SumToOneLoss,
)
from common.networks import FixedKernel, GradientReversal, KernelDiscriminator, KernelGenerator, KernelSampling
from tests.benchmarks.common_parts import parser
from tests.bundles.runs import phantom


def test_recovery():
    truths = [gaussian_kernel((2.0, 1.0), angle) for angle in (30, 110)]
    hr = phantom(0, (128, 144, 12))[..., 4:8] / 1000
    hr = torch.from_numpy(hr).float()[None]
    volumes = {"hr": [hr], "lr": [InPlaneKernel(kernel, 2)(hr) for kernel in truths]}
    import os, json, time
    caches = {
        key: VolumeCache([{key: str(i), "subject": "one"} for i in range(len(found))], lambda e, f=found, k=key: {k: f[int(e[k])]}, [key])
        for key, found in volumes.items()
    }
    o = json.loads(os.environ["O"])
    iters = o.pop("iters")
    set_determinism(0)
    config = parser(bundle="downsampling_gan", **{"estimation#source": caches["hr"], "estimation#target": caches["lr"], "estimation#handlers": []},
        kernel_epochs=1, kernel_epoch_length=iters, kernel_per="volume", batch_volumes=2, device=torch.device("cpu"), **o)
    t = time.time()
    config.get_parsed_content("estimation#trainer").run()
    print(o, iters, time.time() - t)
    average = config.get_parsed_content("generator").average
    for kernel, truth in zip(average, truths):
        print(describe_kernel(kernel), kernel_error(kernel, truth), kernel_error(gaussian_kernel(1.5), truth))
