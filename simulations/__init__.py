"""The federation on one machine: the apps of a deployment, many hospitals in one process."""
