"""A finished run for people: its numbers and their words.

Charts, report and card are drawn from it.

read.py       metrics.json -> frozen dataclasses; the only file that trusts nothing
wording.py    numbers, names and sizes as people write them
sentences.py  one plain sentence for each chart, computed from the run
"""
