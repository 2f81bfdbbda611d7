"""How report and model card show the results of further releases.

base.py       what a renderer is: a section of the report, paragraphs of the card
inference.py  ratios with intervals that include the noise
subgroups.py  the shared model judged group by group
registry.py   the renderers by the release's name; a plain table for a release without one
"""
