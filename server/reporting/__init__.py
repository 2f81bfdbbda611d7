"""What `server/report.py` is made of: read a run, find the words, draw, lay out. No script, no network, no library.

read.py     metrics.json -> frozen dataclasses; the only file that trusts nothing
words.py    numbers, names and sizes as people write them
readings.py one plain sentence for each chart, computed from the run
markup.py   HTML and SVG elements; everything that is not markup is escaped here, once
svg.py      scales, axes, marks;  quality.py conduct.py sea.py  the charts
page.py     report.html;  card.py  model_card.md
"""
