"""The coordinator: rounds, checkpoints, reports.

It never sees a patient and never trusts what a hospital sends.
"""
