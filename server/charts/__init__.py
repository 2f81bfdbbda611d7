"""Charts as SVG without script, network or library.

markup.py        HTML and SVG elements; everything that is not markup is escaped here, once
svg.py           scales, axes, marks
quality.py       how good the model is;  rounds_chart.py  privacy, bytes and attendance by round;  sea.py  who took part
"""
