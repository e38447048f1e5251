"""Training of several players on one forward pass."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.workflow import Workflow
from torch import nn

from ..graph import TensorGraph
from ..networks.batch_norm import synchronise_batch_norm
from ..runtime.distributed import average_gradients, average_tensor, check_connected, trains_alone
from ..runtime.interruption import interrupt_after_iteration
from ..runtime.memory import keep_freed_memory, to_channels_last
from ..runtime.precision import choose_autocast, unwrap_autocast
from ..runtime.time_limit import TimeLimit
from ..runtime.values import check_whole_numbers
from ..weights.loading import load_weights
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

    With a ``run_folder`` it adds the standard handlers of a run: ``config.json``, ``history.jsonl`` and its curves, a
    progress bar, TensorBoard's files, validation, the weights with their overlays, and a state to resume from.
    ``model.pt`` holds the best weights of the validated network, or the latest weights without validation.
    ``model_last.pt`` holds the weights of the latest state. ``train_handlers`` act before a state is saved.

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
            precision of the training. It is left out if it has no volumes. It needs ``run_folder``.
        val_interval: epochs between validations.
        keep: "best" for the weights with the best validation, "last" for the latest weights.
        train_handlers: further handlers with ``attach``.
        run_folder: where the run is written, and what else belongs to it. Without it, nothing is written.
        initial: file of the weights to start from, which must have the degradation of the ``run_folder``, or None.
        stage: number from 1, or name, of a stage; None for a method with one stage. It is part of file names such as
            ``history_2.jsonl``. A stage that begins again removes the states of later stages. If ``keep`` is "last",
            the weights of a numbered stage are also saved as ``stage_2.pt``.
        amp: whether networks run under autocast; None for the choice of
            :func:`common.runtime.precision.choose_autocast`, or the precision of a resumed run. Losses are always in
            float32.
        amp_kwargs: of ``torch.autocast``; default bfloat16. With float16 each player scales its loss.

    Raises:
        ValueError: if a player names a network, or a term a tensor, that the graph lacks; if two players train the same
            network; if there are no epochs or no iterations; if there is a validator and no ``run_folder``, or an
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
        run_folder: RunFolder | None = None,
        initial: str | os.PathLike | None = None,
        stage: int | str | None = None,
        amp: bool | None = None,
        amp_kwargs: dict | None = None,
    ) -> None:
        device = torch.device(train_data_loader.device if device is None else device)
        if network is None and validator is not None:
            network = unwrap_autocast(validator.network)
        folder = run_folder if run_folder is None or stage is None else run_folder.select_stage(stage)
        check_whole_numbers(max_epochs=max_epochs, **({} if epoch_length is None else {"epoch_length": epoch_length}))
        if validator is not None and folder is None:
            raise ValueError("there is a validator, but no folder for its results; give run_folder.")
        if initial is not None and network is None:
            raise ValueError(f"initial is {initial}, but there is no network to load it into; give network.")
        if folder is not None:
            # Later stages continue from the weights of the first.
            folder.check_overwriting(writes_model=stage == 1 if isinstance(stage, int) else network is not None)
            amp = folder.read_amp() if amp is None else amp
            if not trains_alone():
                dist.barrier()  # before any process begins to write
        if initial is not None and network is not None:
            degradation = None if folder is None else folder.degradation
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
            handlers = make_training_handlers(self, network, folder, val_interval, keep, initial, handlers)
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
            self.add_event_handler(Events.ITERATION_STARTED, self.folder.time_limit.start)
            self.add_event_handler(Events.ITERATION_COMPLETED, self._end_if_time_is_up, self.folder.time_limit)
        self.add_event_handler(Events.ITERATION_COMPLETED, self._end_if_interrupted)
        self.add_event_handler(Events.EPOCH_COMPLETED, self._end_if_interrupted)
        # Draws must not depend on the draws for the first weights, nor on an earlier stage.
        torch.manual_seed(torch.initial_seed())

    def _end_if_interrupted(self, engine: AlternatingTrainer) -> None:
        # After the last iteration of an epoch, wait for the end of the epoch and its validation.
        last = engine.state.iteration % engine.state.epoch_length == 0
        if self.interrupted and (not last or engine.last_event_name == Events.EPOCH_COMPLETED):
            raise KeyboardInterrupt

    def _end_if_time_is_up(self, engine: AlternatingTrainer, limit: TimeLimit) -> None:
        state, total = engine.state, engine.state.max_epochs * engine.state.epoch_length
        if state.iteration < total and limit.is_over(f"after iteration {state.iteration} of {total}"):
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
        values = dict(batch)
        kept: set[str] = set()
        autocast = torch.autocast(self.state.device.type, **self.amp_kwargs) if self.amp else contextlib.nullcontext()
        with autocast:
            for name in player.order:
                dependent = player.dependent.intersection(self.graph.steps[name][1])
                if name not in player.dependent:
                    if name not in shared:
                        shared[name] = self.graph.compute(name, batch | shared)
                    values[name] = shared[name].detach()
                # A tensor of an earlier turn can be used again if its whole autograd graph was kept.
                elif name in shared and shared[name].requires_grad and kept >= dependent:
                    values[name] = shared[name]
                    kept.add(name)
                else:
                    values[name] = self.graph.compute(name, values)
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
            if name in values or name in shared:
                shared[name] = (values if name in values else shared)[name].detach()
        return total.detach(), parts
