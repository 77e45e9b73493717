"""The report of one job: a static HTML file without scripts that says what became of it.

``python -m inception_operator.report`` gathers what is known (`cluster`, `history`, `files`) into
`content.Report`, and `page.render` makes the text of it. `content`, `figures`, `page` and `svg` are
pure. What they show was written by tenants, so all of it is taken for hostile.
"""
