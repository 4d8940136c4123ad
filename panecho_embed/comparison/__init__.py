"""Starting points of fine-tuning beside each other: which is better, and how sure that is."""
