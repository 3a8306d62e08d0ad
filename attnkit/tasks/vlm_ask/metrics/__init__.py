"""Scores of answers about images: what was said, counted unit by unit, and measures of sums of such counts.

Every metric has COLUMNS, the counts of one unit (a question, a caption), and `measures`, from sums of those counts
[..., columns] to its measures [...]. Sums are what is drawn again for intervals, so `measures` takes any number of
leading axes. Measures are NaN where nothing was counted.
"""
