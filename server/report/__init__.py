"""report.html: its sections and its page.

parts.py              what a section is made of;  page.py  the whole page, with page.html and page.css
sections/             sections of a trained model, and their registry
released/             how results of further releases are shown, and the renderers' registry
counting_sections.py  sections of a study of statistics
"""
