"""Evaluation of a super-resolution method against known HR volumes."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import nn

from .. import metrics, reports
from ..data.naming import case_stem
from ..degradations import Degradation
from ..metrics.lpips import Lpips
from .checkpoint import load_weights


class EvaluationReport:
    """Writes a table of cubic interpolation against the method, over cases, and a picture of each case.

    It attaches to an evaluator whose batches are ``{"lr", "hr"}``, and may hold ``"guide"``: another contrast of the
    subject, ``(1, X, Y, Z)`` on the HR grid, which ``others`` then take as second input and the picture shows. Volumes
    are compared in [0, 1]; the displacement is that of the result against the interpolated input, in HR voxels. In
    ``output_dir``: ``table.csv``, ``table.json``, ``boxplots.png``, and for each case ``<case>.png`` and
    ``<case>_profile.png``. With a regressor, the table has the BRISQUE of each volume too, and with ``lpips`` the LPIPS
    against HR.

    Args:
        output_dir: folder of the report.
        degradation: from HR to LR; says where LR voxels lie.
        method: name of the evaluator's network in the table.
        network: the evaluator's network, of whose architecture ``others`` are.
        others: files of further weights by the name of their rows in the table, which stand before the method's.
        brisque: file of a regressor (``python -m common brisque-fit``), or None for no such score.
        lpips: AlexNet's weights, as for :class:`common.metrics.lpips.Lpips`; None or false for no such score.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        degradation: Degradation,
        method: str,
        network: nn.Module,
        others: Mapping[str, str] | None = None,
        brisque: str | os.PathLike | None = None,
        lpips: str | os.PathLike | bool | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.degradation = degradation
        self.method = method
        self.others = {name: load_weights(copy.deepcopy(network), path) for name, path in (others or {}).items()}
        self.brisque = None if brisque is None else metrics.Brisque.load(brisque)
        self.lpips = None if lpips is None or str(lpips).lower() == "false" else Lpips(lpips)

    def attach(self, engine: Engine) -> None:
        """Measure each case, and write the tables at the end."""
        self.rows: list[dict] = []
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._case)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _case(self, engine: Engine) -> None:
        if not engine.state.output:
            return  # the case failed; the evaluator lists it
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            lr, hr, sr = output["image"], output["label"], output["pred"]
            factors, offset = self.degradation.factors, self.degradation.offset
            name = case_stem(str(hr.meta["filename_or_obj"]), batch.get("subject"))
            if any(row["case"] == name for row in self.rows):
                raise ValueError(f"two cases are named {name}; give their files or subjects different names.")
            guide = batch.get("guide")
            volumes = {"cubic": metrics.cubic(torch.as_tensor(lr).cpu(), factors, offset)}
            for other, network in self.others.items():
                network.to(engine.state.device)
                inputs = [torch.as_tensor(v)[None].to(engine.state.device) for v in (lr, guide) if v is not None]
                with torch.no_grad():
                    volumes[other] = engine.inferer(inputs[0], network, *inputs[1:])[0]
            volumes[self.method] = sr
            shown = {key: _unit(volume) for key, volume in volumes.items()}
            truth = _unit(hr)
            scores = {}
            for method, volume in shown.items():
                shift = metrics.displacement(volume, shown["cubic"], factors)
                scores[method] = {"psnr": metrics.psnr(volume, truth), "ssim": metrics.ssim(volume, truth)}
                if self.brisque is not None:
                    scores[method]["brisque"] = self.brisque.score(volume)
                if self.lpips is not None:
                    scores[method]["lpips"] = self.lpips.score(volume, truth, engine.state.device)
                row = {"case": name, "method": method, **scores[method]}
                self.rows.append({**row, **{f"displacement_{a}": s for a, s in zip("xyz", shift, strict=True)}})
            pictures = {
                "lr": _unit(lr),
                "cubic": shown["cubic"],
                "sr": shown[self.method],
                "hr": truth,
                "affine": np.asarray(hr.affine, dtype=np.float64),
                "factors": factors,
                "offset": offset,
            }
            named = {"cubic": scores["cubic"], "sr": scores[self.method]}
            reports.case_figure(
                self.output_dir / f"{name}.png",
                name=name,
                scores=named,
                guide=None if guide is None else _unit(guide),
                **pictures,
            )
            reports.line_profile(self.output_dir / f"{name}_profile.png", name=name, **pictures)

    def _finish(self, engine: Engine) -> None:
        if not self.rows:
            return
        print(reports.write_table(self.output_dir, self.rows))
        reports.box_plots(self.output_dir / "boxplots.png", self.rows)
        print(f"table and pictures are in {self.output_dir}")


def _unit(volume: torch.Tensor) -> np.ndarray:
    """A volume ``(1, X, Y, Z)`` as an array ``(X, Y, Z)`` cut to [0, 1]."""
    return torch.as_tensor(volume)[0].detach().float().cpu().clamp(0, 1).numpy()
