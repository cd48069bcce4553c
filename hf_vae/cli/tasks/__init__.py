"""What can be trained by command: the data, the model and the metrics of each task."""
