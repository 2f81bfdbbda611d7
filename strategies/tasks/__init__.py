"""The task types: a task's outcome, loss, predictions and metrics."""
