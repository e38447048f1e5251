"""Super-resolve all contrasts of one exam by one network of coordinates that is trained on the exam."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from torch import nn

from ..data.loaders.coordinates import CoordinateLoader, MeasuredVoxels
from ..graph import TensorGraph
from ..runtime.distributed import train_alone
from ..runtime.precision import match_precision
from ..runtime.progress import begin_part, report_progress
from ..stacks.fitting import FittedStack, reconstruct
from ..stacks.operator import StackOperator
from .images import run_in_pieces
from .multi_contrast import ExamInferer

_PIECE = 65_536  # coordinates at once
_TRAINING = 20  # times as long as asking the network for the result


class CoordinateInferer(ExamInferer):
    """As :class:`ExamInferer`, but a network that is trained on the exam's voxels gives the contrasts' values.

    Its coordinates are in mm, along the axes of the result's grid, from the grid's middle. Registration, brightness,
    motion and weights of slices are those of :class:`ExamInferer` without networks. A guide is a further contrast.

    Args:
        trainer: makes the exam's :class:`~common.engines.AlternatingTrainer` from loader, graph and players.
        graph: makes the forward pass. Its batch keys are those of :class:`~common.data.CoordinateLoader`. Its network
            "network", a :class:`~common.networks.CoordinateNetwork`, is made anew for each exam.
        players: by name; each makes a player.
        iterations: of the training.
        batch_size, points: as for :class:`~common.data.CoordinateLoader`.
        agree: whether the result is made to agree with the stacks.
        seed: of first weights and batches.
        profile, spacing, region, register: as for :class:`StacksInferer`.

    Source:
        McGinnis et al. 2023.
    """

    is_self_trained = at_once = True

    def __init__(
        self,
        trainer: Callable[..., Any],
        graph: partial[TensorGraph],
        players: Mapping[str, Callable[[], Any]],
        iterations: int,
        batch_size: int,
        points: int = 1,
        agree: bool = True,
        seed: int = 0,
        profile: float | str = "auto",
        spacing: float | None = None,
        region: str | os.PathLike | None = None,
        register: bool | str = "auto",
    ) -> None:
        super().__init__(profile=profile, spacing=spacing, region=region, register=register)
        self.trainer, self.graph, self.players = trainer, graph, players
        self.iterations, self.batch_size, self.points, self.seed = iterations, batch_size, points, seed
        self.agree = agree
        self._network: nn.Module = nn.Identity()

    def __call__(self, inputs: MetaTensor | Any, network: nn.Module | Any, *args: Any, **kwargs: Any) -> MetaTensor:
        """As for :class:`ExamInferer`; of ``network`` only the precision is used."""
        self._network = network
        return super().__call__(inputs, network, *args, **kwargs)

    def solve_alone(self, start: tuple, guides: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """The volume of a single contrast; ``start`` and guides are for ``reconstruct``."""
        return self._fit([start[0]], [start], guides)[0]

    def reconstruct_jointly(
        self, volumes: Mapping[str, torch.Tensor], starts: Mapping[str, tuple], name: str
    ) -> dict[str, torch.Tensor]:
        """The volumes of all contrasts; the arguments are those of :class:`ExamInferer`."""
        return dict(zip(volumes, self._fit([*volumes.values()], [*starts.values()]), strict=True))

    def _fit(
        self, volumes: Sequence[torch.Tensor], starts: Sequence[tuple], guides: Sequence[torch.Tensor] = ()
    ) -> list[torch.Tensor]:
        """Train a network on the stacks, and ask it for the volumes."""
        voxel = float(np.linalg.norm(starts[0][1][:3, 0]))
        size = volumes[0].shape
        contrasts = [[measure_voxels(each, size, grid, voxel) for each in fitted] for _, grid, fitted, _ in starts]
        everywhere = make_coordinates(size, voxel, volumes[0].device)
        for guide in guides:
            known = torch.ones_like(guide.reshape(-1))
            contrasts.append(
                [MeasuredVoxels(everywhere, guide.reshape(-1), known, torch.zeros(3, device=known.device))]
            )
        with begin_part(0, (_TRAINING, 1)), torch.enable_grad():
            network = self._train(contrasts)
        with begin_part(1, (_TRAINING, 1)), torch.no_grad():
            values = torch.cat([*run_in_pieces(network, everywhere.split(_PIECE))])
            results = [values[:, i].reshape(size) for i in range(len(volumes))]
            if self.agree:
                results = [reconstruct(each, *start[1:]) for each, start in zip(results, starts, strict=True)]
        return results

    def _train(self, contrasts: Sequence[Sequence[MeasuredVoxels]]) -> nn.Module:
        """A network that was trained on the contrasts, in the precision of its training."""
        device = contrasts[0][0].values.device
        # Draws here must not change later draws.
        with train_alone(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            networks: dict[str, Any] = dict(self.graph.keywords["networks"])
            networks["network"] = networks["network"].renew(len(contrasts)).to(device)
            autocast = getattr(self._network, "autocast", {})
            trainer = self.trainer(
                max_epochs=1,
                epoch_length=self.iterations,
                train_data_loader=CoordinateLoader(contrasts, self.batch_size, self.points, self.seed),
                graph=self.graph(networks=networks),
                players={name: make() for name, make in self.players.items()},
                amp=bool(autocast),
                amp_kwargs={"dtype": autocast.get("dtype", torch.bfloat16)},
            )
            trainer.logger.setLevel(logging.CRITICAL)  # Ignite logs epochs
            trainer.add_event_handler(
                Events.ITERATION_COMPLETED, lambda engine: report_progress(engine.state.iteration / self.iterations)
            )
            trainer.run()
        return match_precision(self._network, networks["network"].eval())


def make_coordinates(size: Sequence[int], voxel: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """Coordinates ``(N, 3)`` in mm of the voxels of a grid of cubes, from its middle.

    Args:
        size: of the grid ``(X, Y, Z)``.
        voxel: edge of a cube in mm.
        device: of the coordinates.
    """
    axes = [voxel * (torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def measure_voxels(each: FittedStack, size: Sequence[int], affine: np.ndarray, voxel: float) -> MeasuredVoxels:
    """The voxels of a stack, with the brightness of the reference, in the coordinates of :func:`make_coordinates`.

    Args:
        each: the stack.
        size, affine: of the result, in mm.
        voxel: edge of the result's voxels in mm.
    """
    operator: StackOperator = each.make_operator(size, affine)
    voxels = each.correct(each.stack.voxels)
    middle = (torch.tensor(size, device=voxels.device) - 1) / 2
    places = operator.sampling.find_positions(voxels.device).T
    across = torch.as_tensor(operator.across * operator.sigma, dtype=torch.float32, device=voxels.device)
    weights = (each.stack.is_measured * each.weights).reshape(-1)
    return MeasuredVoxels(voxel * (places - middle), voxels.reshape(-1), weights, voxel * across)
