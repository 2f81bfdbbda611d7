"""What is learned: the task's inputs, model, loss and metrics."""
