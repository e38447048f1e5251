"""Training of several players on one forward pass."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.workflow import Workflow
from torch import nn

from ..data.loaders.volumes import VolumeCache
from ..degradations.base import Degradation
from ..graph import TensorGraph
from ..networks.batch_norm import synchronise_batch_norm
from ..runtime.distributed import average_gradients, average_tensor, check_connected, trains_alone
from ..runtime.interruption import interrupt_after_iteration
from ..runtime.memory import keep_freed_memory, to_channels_last
from ..runtime.precision import choose_autocast, unwrap_autocast
from ..runtime.time_limit import TimeLimit, start_time_limit
from ..runtime.values import check_whole_numbers, parse_bool
from ..transforms.scan.scan_statistics import widen_range
from ..weights.loading import load_weights
from ..weights.saving import SavedWeights
from .player import Player
from .run_folder import RunFolder
from .training_handlers import adapt_validator, make_training_handlers


class AlternatingTrainer(SupervisedTrainer):
    """Train players in turn on one forward pass of a graph per iteration.

    In a player's turn, the steps that depend on its networks keep their autograd graph, and all other tensors are
    detached. So a discriminator sees detached images, and a generator's gradient passes through the discriminators. No
    player's turn leaves a gradient on another player's parameters. A step is computed once per iteration and shared.
    It is computed again only if the player's own update has changed it and the player has further steps. Verdicts on
    generated images are an exception: they are computed with and without the generator's graph.

    Under ``torch.distributed`` every process takes its share of the batch, and gradients are averaged. Two processes
    with half the batch each give the same run as one process with the whole batch.

    Ctrl-C or SIGTERM sets ``engine.interrupted``, and ends the run with KeyboardInterrupt after the iteration.

    ``engine.state.output`` is a list with one dictionary, ``[{"<player>/<term>": float, "<player>/total": float,
    "<player>/learning_rate": float, "loss": float}]``, as MONAI's handlers expect of a trainer; ``loss`` is the sum of
    the totals.

    With an ``output_dir`` it adds the standard handlers of a run: ``config.json``, ``history.jsonl`` and its curves, a
    progress bar, TensorBoard's files, validation, the weights with their overlays, and a state to resume from. In
    ``ckpt_dir``, ``model.pt`` holds the best weights of the validated network, or the latest weights without
    validation. ``model_last.pt`` holds the weights of the latest state. ``train_handlers`` act before a state is saved.

    Args:
        max_epochs: epochs to train.
        train_data_loader: gives batches ``{name: tensor}``; or makes the loader, in JSON with ``"_mode_": "callable"``,
            so that volumes are read after all other checks. If it has a method ``set_iteration``, that is called at
            each epoch with the number of earlier batches. So a resumed run draws the same batches as an uninterrupted
            run.
        graph: the forward pass.
        players: by name, in the order of their turns; a player that an overlay sets to None is left out.
        epoch_length: iterations per epoch; default the length of the batches.
        device: to train on; default the device of the batches.
        network: its weights are saved, and ``initial`` is loaded into it; default the validator's network.
        validator: validates the network after every ``val_interval`` epochs, and after the last epoch, in the
            precision of the training. It is left out if it has no volumes. It needs ``output_dir``.
        val_interval: epochs between validations.
        keep: "best" for the weights with the best validation, "last" for the latest weights.
        train_handlers: further handlers with ``attach``.
        output_dir, ckpt_dir, resume, overwrite, settings: as for :class:`common.engines.RunFolder`. Without
            ``output_dir``, nothing is written.
        bundle_root: folder of the bundle, which the overlays name.
        degradation: from HR to LR; weights keep its factors and offset, and ``initial`` must have them.
        sizes: further values that weights need, by the keys of the configs, besides the network's own ``sizes``; see
            :class:`common.weights.saving.SavedWeights`.
        lr_volumes: whose LR is like the scans that the weights are for. The weights' overlay gets the range of their
            statistics, so that inference warns of other scans.
        initial: file of the weights to start from, or None.
        save_minutes: between states within an epoch, see :class:`common.handlers.ResumableState`.
        minutes: after which the training ends: its epoch ends early, is validated and saved. A resumed run goes on from
            there. Stages share a :class:`~common.runtime.time_limit.TimeLimit`. None for no limit.
        stage: number from 1, or name, of a stage; None for a method with one stage. It is part of file names such as
            ``history_2.jsonl``. A stage that begins again removes the states of later stages, and ``invalidates``. If
            ``keep`` is "last", the weights of a numbered stage are also saved as ``stage_2.pt``.
        amp: whether networks run under autocast; None for the choice of
            :func:`common.runtime.precision.choose_autocast`, or the precision of a resumed run. Losses are always in
            float32.
        amp_kwargs: of ``torch.autocast``; default bfloat16. With float16 each player scales its loss.

    Raises:
        ValueError: if a player names a network, or a term a tensor, that the graph lacks; if two players train the same
            network; if there are no epochs or no iterations; if there is a validator and no ``output_dir``, or an
            ``initial`` and no network.
        FileExistsError: if a folder holds another run, or weights without a run.
        FloatingPointError: in training, if a loss is not finite; the message names the terms.
    """

    state: Any
    data_loader: Any

    def __init__(
        self,
        max_epochs: int,
        train_data_loader: Any,
        graph: TensorGraph,
        players: Mapping[str, Player],
        epoch_length: int | None = None,
        device: torch.device | None = None,
        network: nn.Module | None = None,
        validator: SupervisedEvaluator | None = None,
        val_interval: int = 1,
        keep: str = "best",
        train_handlers: Sequence | None = None,
        output_dir: str | os.PathLike | None = None,
        ckpt_dir: str | os.PathLike | None = None,
        resume: bool | str = False,
        overwrite: bool | str = False,
        settings: Mapping[str, Any] | None = None,
        bundle_root: str | os.PathLike = ".",
        degradation: Degradation | None = None,
        sizes: Mapping[str, Any] | None = None,
        lr_volumes: VolumeCache | None = None,
        initial: str | os.PathLike | None = None,
        save_minutes: float | None = 5,
        minutes: float | TimeLimit | None = None,
        stage: int | str | None = None,
        invalidates: Sequence[str | os.PathLike] = (),
        amp: bool | str | None = None,
        amp_kwargs: dict | None = None,
    ) -> None:
        device = torch.device(train_data_loader.device if device is None else device)
        if network is None and validator is not None:
            network = unwrap_autocast(validator.network)
        amp = None if amp is None else parse_bool(amp, "amp")
        self.time_limit, folder = start_time_limit(minutes), None
        check_whole_numbers(max_epochs=max_epochs, **({} if epoch_length is None else {"epoch_length": epoch_length}))
        if validator is not None and output_dir is None:
            raise ValueError("there is a validator, but no folder for its results; give output_dir.")
        if initial is not None and network is None:
            raise ValueError(f"initial is {initial}, but there is no network to load it into; give network.")
        if output_dir is not None:
            folder = RunFolder(output_dir, ckpt_dir, resume, overwrite, stage, settings)
            # Later stages continue from the weights of the first.
            folder.check_overwriting(writes_model=stage == 1 if isinstance(stage, int) else network is not None)
            amp = folder.read_amp() if amp is None else amp
            if not trains_alone():
                dist.barrier()  # before any process begins to write
        if initial is not None and network is not None:
            load_weights(network, initial, device, degradation=degradation, option="initial")
        amp = choose_autocast(amp, graph if network is None else network, device, amp_kwargs, training=True)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader() if callable(train_data_loader) else train_data_loader,
            network=graph if network is None else network,
            optimizer=None,  # type: ignore[arg-type]  # each player has its own
            loss_function=None,  # type: ignore[arg-type]
            epoch_length=epoch_length,
            amp=amp,
            amp_kwargs={"dtype": torch.bfloat16} if amp_kwargs is None else amp_kwargs,
            decollate=False,
        )
        self.graph = to_channels_last(graph, device)
        self.players = {name: player for name, player in players.items() if player is not None}
        self.interrupted = False
        self._join_players()
        self.folder = folder
        self.validator = validator if validator is not None and validator.state.epoch_length else None
        handlers = [*(train_handlers or ())]
        if folder is not None:
            known = (degradation, sizes, bundle_root, self._measure_training_range(lr_volumes))
            saved = self._prepare_weights(folder, network, *known) if network is not None else None
            handlers = make_training_handlers(
                folder, saved, self.validator, val_interval, keep, initial, save_minutes, handlers, invalidates
            )
        for handler in handlers:
            handler.attach(self)
        attached = [] if self.validator is None else adapt_validator(self.validator, self.amp, self.amp_kwargs)
        for handler in [*handlers, *attached]:
            if hasattr(handler, "set_trainer"):  # MONAI's early stopping, which ends this training
                handler.set_trainer(self)

    def _join_players(self) -> None:
        """Give each player its networks of the graph."""
        fp16 = self.amp and self.amp_kwargs.get("dtype") == torch.float16
        owner: dict[str, str] = {}
        for name, player in self.players.items():
            player.join_graph(name, self.graph, self.state.device, fp16)
            for network in player.networks:
                if network in owner:
                    raise ValueError(f"players '{owner[network]}' and '{name}' both train the network '{network}'.")
                owner[network] = name

    def _prepare_weights(
        self,
        folder: RunFolder,
        network: nn.Module,
        degradation: Degradation | None,
        sizes: Mapping[str, Any] | None,
        bundle_root: Any,
        training_range: Mapping[str, list[float]],
    ) -> Callable[..., SavedWeights]:
        """A function that makes the writer of weights for some file names."""
        known = ({} if degradation is None else {"scale": list(degradation.factors)}) | dict(sizes or {})
        precision = str(self.amp_kwargs["dtype"] if self.amp else torch.float32).removeprefix("torch.")
        offset = None if degradation is None else list(degradation.offset)

        def make_writer(*names: str, of: nn.Module = network) -> SavedWeights:
            paths = [folder.ckpt_dir / name for name in names]
            return SavedWeights(of, paths, known, offset, bundle_root, precision, training_range)

        return make_writer

    def _measure_training_range(self, lr_volumes: VolumeCache | None) -> dict[str, list[float]]:
        """The range of the LR volumes' statistics, with the finer pixels of a loader that zooms."""
        training_range = widen_range([] if lr_volumes is None else lr_volumes.statistics)
        if "in_plane_spacing" in training_range:
            finest, coarsest = training_range["in_plane_spacing"]
            finest /= getattr(self.data_loader, "zoom", 1.0)
            training_range["in_plane_spacing"] = [float(f"{finest:.3g}"), coarsest]
        return training_range

    def run(self) -> None:  # type: ignore[override]
        """Train from the first iteration, the restored one, or that of the last call, to the last."""
        check_connected()
        if self.state.device.type == "cpu":
            keep_freed_memory()
        if not trains_alone():
            synchronise_batch_norm(self.graph)
            for tensor in [*self.graph.parameters(), *self.graph.buffers()]:
                dist.broadcast(tensor.data, src=0)
        if self.validator is not None:
            # Before anything is written, because data may be refused.
            _ = self.validator.data_loader.dataset[0]  # type: ignore[union-attr]
        if self.state.iteration == 0:
            self._begin()
        with interrupt_after_iteration(self):
            # Not Trainer.run, which makes one CUDA scaler for the engine: here each player has its own.
            Workflow.run(self)
        if not trains_alone():
            # The other processes may next read a file that the first process saves at the end.
            dist.barrier()

    def _begin(self) -> None:
        """Prepare the first run of this process; later ones continue it."""
        if hasattr(self.data_loader, "set_iteration"):
            self.add_event_handler(
                Events.EPOCH_STARTED, lambda engine: self.data_loader.set_iteration(engine.state.iteration)
            )
        # Last of the handlers: the last epoch is then saved, and a restored state is checked.
        self.add_event_handler(Events.EPOCH_COMPLETED, self._end_if_finished)
        self.add_event_handler(Events.STARTED, self._end_if_finished)
        if self.folder is not None:
            self.add_event_handler(Events.EPOCH_STARTED, self.folder.save_config)
        self.add_event_handler(Events.ITERATION_COMPLETED, self._end_if_time_is_up)
        self.add_event_handler(Events.ITERATION_COMPLETED, self._end_if_interrupted)
        self.add_event_handler(Events.EPOCH_COMPLETED, self._end_if_interrupted)
        # Draws must not depend on the draws for the first weights, nor on an earlier stage.
        torch.manual_seed(torch.initial_seed())

    def _end_if_interrupted(self, engine: AlternatingTrainer) -> None:
        # After the last iteration of an epoch, wait for the end of the epoch and its validation.
        last = engine.state.iteration % engine.state.epoch_length == 0
        if self.interrupted and (not last or engine.last_event_name == Events.EPOCH_COMPLETED):
            raise KeyboardInterrupt

    def _end_if_time_is_up(self, engine: AlternatingTrainer) -> None:
        state, total = engine.state, engine.state.max_epochs * engine.state.epoch_length
        if state.iteration < total and self.time_limit.is_over(f"after iteration {state.iteration} of {total}"):
            state.max_epochs = state.epoch  # the last epoch is validated and saved
            engine.terminate_epoch()

    def _end_if_finished(self, engine: AlternatingTrainer) -> None:
        if self.players and all(player.is_finished for player in self.players.values()):
            engine.terminate()

    def _iteration(self, engine: AlternatingTrainer, batchdata: Mapping[str, torch.Tensor]) -> list[dict]:  # type: ignore[override]
        missing = [key for key in self.graph.batch_keys if key not in batchdata]
        if missing:
            raise ValueError(f"the graph needs {missing} of each batch, but the loader gives {list(batchdata)}.")
        batch = {key: batchdata[key].to(engine.state.device, non_blocking=True) for key in self.graph.batch_keys}
        terms, values = self._run_players(batch)
        names = [f"{name}/{term}" for name, parts in terms.items() for term in parts]
        losses = dict(zip(names, values.tolist(), strict=True))
        if wrong := [name for name, value in losses.items() if not math.isfinite(value)]:
            raise FloatingPointError(
                f"iteration {engine.state.iteration}: not finite: {', '.join(wrong)}. Lower the learning rate, "
                "clip the gradient (clip_norm), or turn amp off."
            )
        output = losses | {f"{name}/learning_rate": player.get_learning_rate() for name, player in self.players.items()}
        output["loss"] = sum(losses[f"{name}/total"] for name in self.players)
        epoch_ends = engine.state.iteration % engine.state.epoch_length == 0
        for name, player in self.players.items():
            player.add_total(losses[f"{name}/total"])
            if player.schedule is not None:
                player.schedule.step({term: average_tensor(value) for term, value in terms[name].items()})
            player.step_scheduler(epoch_ends)
        return [output]

    def _run_players(self, batch: dict[str, torch.Tensor]) -> tuple[dict[str, dict[str, torch.Tensor]], torch.Tensor]:
        """All turns of an iteration: each player's terms, whose "total" is the last, and the means of all terms."""
        self.graph.train()
        shared: dict[str, torch.Tensor] = {}
        terms = {}
        for name, player in self.players.items():
            for _ in range(player.steps):
                total, parts = self._step_player(player, batch, shared)
            terms[name] = {**parts, "total": total}
        values = torch.stack([value.mean().float() for parts in terms.values() for value in parts.values()])
        shared.clear()
        return terms, average_tensor(values)

    def _step_player(
        self, player: Player, batch: dict[str, torch.Tensor], shared: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """One optimizer step of one player; ``shared`` holds what the iteration has computed so far."""
        computed: dict[str, torch.Tensor] = {}

        def get_tensor(name: str) -> torch.Tensor:
            if name in batch:
                return batch[name]
            if name not in player.dependent:
                return compute(name, shared).detach()
            return shared[name] if is_shared(name) else compute(name, computed)

        def is_shared(name: str) -> bool:
            # A tensor of an earlier turn can be used again if its whole autograd graph was kept.
            if name in batch or name not in player.dependent:
                return True
            return (
                name in shared and shared[name].requires_grad and all(is_shared(n) for n in self.graph.steps[name][1])
            )

        def compute(name: str, values: dict[str, torch.Tensor]) -> torch.Tensor:
            if name not in values:
                inputs = self.graph.steps[name][1]
                lookup = (
                    get_tensor if values is computed else (lambda n: batch[n] if n in batch else compute(n, shared))
                )
                values[name] = self.graph.compute(name, {n: lookup(n) for n in inputs})
            return values[name]

        autocast = torch.autocast(self.state.device.type, **self.amp_kwargs) if self.amp else contextlib.nullcontext()
        needed = {name for inputs in player.losses.list_inputs().values() for name in inputs}
        with autocast:
            # Sorted, because the order of summing gradients must not depend on a process's hashes.
            values = {name: get_tensor(name) for name in sorted(needed)}
        total, parts = player.losses(values)
        player.optimizer.zero_grad(set_to_none=True)
        player.scaler.scale(total).backward(inputs=player.parameters)
        # Before unscaling, so an overflow in one process makes all processes skip the step.
        average_gradients(player.parameters)
        player.scaler.unscale_(player.optimizer)
        if player.clip_norm is not None:
            nn.utils.clip_grad_norm_(player.parameters, player.clip_norm)
        player.scaler.step(player.optimizer)
        player.scaler.update()
        player.optimizer.zero_grad(set_to_none=True)
        # The backward pass has freed these graphs; other players still use the values.
        for name in player.dependent:
            if name in computed or name in shared:
                shared[name] = (computed if name in computed else shared)[name].detach()
        computed.clear()  # the functions above know each other, and keep it
        return total.detach(), parts
