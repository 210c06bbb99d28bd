"""What several test files share: drawn data, small models, fabricated runs, child processes, comparisons."""
