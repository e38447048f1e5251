"""The running mean of a network's weights."""

from __future__ import annotations

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler


class RunningMean(EMAHandler):
    """ignite's ``EMAHandler``, whose mean begins with the weights that the training begins with.

    Args:
        model, momentum: of ``ignite.handlers.EMAHandler``. ``ema_model`` may be a network of the graph that no player
            trains; it is then saved and resumed with the others.
    """

    def attach(self, engine: Engine) -> None:  # type: ignore[override]
        """Update after each iteration."""
        super().attach(engine)
        engine.add_event_handler(Events.STARTED, self._begin)

    def _begin(self, engine: Engine) -> None:
        """Copy the weights: they may have been loaded since the mean was made."""
        if engine.state.iteration == 0:
            self.ema_model.load_state_dict(self.model.state_dict())
