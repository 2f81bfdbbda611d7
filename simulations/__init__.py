"""The whole federation on one machine: the same apps as a deployment, many hospitals in one process."""
