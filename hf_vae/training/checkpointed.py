"""State of a callback that training adapts, kept in the Trainer's own checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

from transformers import TrainerState
from transformers.trainer_callback import ExportableState


class CheckpointedState(ExportableState, ABC):
    """
    Mixin of a callback whose state goes into `trainer_state.json` and comes back when training resumes, whether or not
    `restore_callback_states_from_checkpoint` is set: the stored states are in the `TrainerState` that every event is given, so the
    callback takes its own from there and stays the object that the user made.

    A subclass names its constructor's `ARGUMENTS`, says in `start` what it holds when a training starts, calls `begin` in its
    constructor and `continue_from` in `on_train_begin`. All of it must be what JSON can hold.
    """

    ARGUMENTS: tuple[str, ...] = ()

    @abstractmethod
    def start(self) -> dict[str, Any]:
        """Names and values of the state at the start of a training."""

    def begin(self) -> None:
        vars(self).update(self.start())

    def state(self) -> dict[str, dict[str, Any]]:
        names = {"args": self.ARGUMENTS, "attributes": tuple(self.start())}
        return {kind: {name: getattr(self, name) for name in these} for kind, these in names.items()}

    def continue_from(self, state: TrainerState) -> None:
        """
        Takes up what the checkpoint that `state` was read from holds, or starts anew if there is none.

        Raises:
            ValueError: the Trainer has two callbacks of this class, whose states it does not tell apart.
        """
        name = type(self).__name__
        states: dict[str, Any] = cast(dict, state.stateful_callbacks)
        stored = states.get(name)
        if isinstance(stored, list):
            raise ValueError(f"{len(stored)} callbacks are a {name}: pass the Trainer one of them.")
        self.begin()
        if state.global_step and stored is not None:
            vars(self).update(stored["attributes"])
        # A checkpoint made without this callback has no place for its state, and saving the next one would stumble over that.
        states[name] = self.state()
