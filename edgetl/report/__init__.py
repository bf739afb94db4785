"""From measurements to an answer: the verdict (pure), the table on a terminal and the HTML report."""
