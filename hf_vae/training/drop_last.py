"""`dataloader_drop_last` for the training alone."""

from transformers import TrainerCallback


class EvaluateEveryExampleCallback(TrainerCallback):
    """
    Keeps `dataloader_drop_last` to the training, which [`FixedScaleBatchNorm`] may need it for: the Trainer would leave the last
    examples out of its evaluations too, and means such as those of `elbo_metrics` would not be the validation set's. No callback is
    told when a training breaks off: who goes on with the same arguments then sets `dataloader_drop_last` again.
    """

    def __init__(self):
        self._drop_last = False

    def on_train_begin(self, args, state, control, **kwargs):
        # The training's loader is made by now, those of evaluations are not.
        self._drop_last, args.dataloader_drop_last = args.dataloader_drop_last, False

    def on_train_end(self, args, state, control, **kwargs):
        args.dataloader_drop_last = self._drop_last
