"""What is learned: the outcome of a task, its loss, predictions and metrics."""
