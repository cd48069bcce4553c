"""The arguments of each task that can be trained by command."""
