"""What evaluations of all tasks share: intervals, similarity of planes, the loop over items, the files of tables."""
