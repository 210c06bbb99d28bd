"""Heat maps: where in an image a trained model finds what speaks for its answer."""
