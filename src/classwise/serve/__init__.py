"""A trained model behind HTTP: `classwise serve`. See docs/guide/serving.md and docs/decisions/0054-serving.md."""
