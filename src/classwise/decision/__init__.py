"""From probabilities to answers: temperatures, offsets, cut points, thresholds, abstention, and what they gain on rows
that they were not fitted to. Plain functions of arrays, which know neither config nor files."""
