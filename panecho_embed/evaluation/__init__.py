"""From a label to a report: targets, splits, predictions, metrics, intervals, comparisons."""
