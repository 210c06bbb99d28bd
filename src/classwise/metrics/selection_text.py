"""What stands beside a score in words: how the model was selected, and how its predictions were made."""

from collections.abc import Callable, Mapping
from typing import Any

from classwise.metrics.formatting import score_text
from classwise.metrics.scores import HIGHER_IS_BETTER


def selection_text(
    name: str, selection: Mapping[str, Any], number_text: Callable[[str, float], str] = score_text
) -> str:
    """What the choice of the epoch does to its score, in words; empty where no epoch was chosen.

    `name`: of the score, without its target. `selection`: that of metrics.json; files of earlier versions have none.
    `number_text`: from the name and a value to its text.
    """
    epochs = selection.get("epochs", 1)
    if epochs <= 1:
        return ""
    side = "high" if HIGHER_IS_BETTER.get(name, True) else "low"
    best = f"the best of {epochs} epochs on these rows, so"
    if selection["optimism"] is None:
        return (
            f"{best} rather too {side} for other rows; by how much is not estimated ({selection['reason']})"
        )
    return (
        f"{best} about {number_text(name, selection['optimism'])} too {side}:"
        f" expect {number_text(name, selection['corrected'])} on other rows"
    )


def plan_text(
    name: str, plan: Mapping[str, Any], number_text: Callable[[str, float], str] = score_text
) -> str:
    """Which of the first answer and the fine-tuned model was kept, and by how much one is better.

    `name`: of the score, without its target. `plan`: that of metrics.json. `number_text`: from the name and a value to
    its text.
    """
    kept = "the fine-tuned model" if plan["kept"] == "finetuned" else "the first answer"
    tuned, first = (number_text(name, plan[key]["value"]) for key in ("finetuned", "first_answer"))
    low, high = plan["interval"]
    optimism = plan["optimism"]
    less = f", after {optimism:.4f} were taken off for the choice of the epoch" if optimism else ""
    if optimism is None:
        less = "; what the choice of the epoch gains is not known, so nothing is taken off"
    return (
        f"kept: {kept}. Fine-tuned {tuned}, first answer {first} on the same rows; fine-tuning gains"
        f" {plan['difference']:+.4f} (95% interval {low:+.4f} to {high:+.4f}{less}), and is better on"
        f" {plan['share']:.0%} of the resamples of these rows, where {plan['needed']:.0%} are needed"
    )


def inference_text(inference: Mapping[str, Any]) -> str:
    """How the predictions were made that are scored, where it is not plainly: the entry `inference` of metrics.json."""
    tta, steps = inference.get("tta", "none"), inference.get("steps", ())
    compared = [
        f"{step['tta']} against {step['against']} {step['difference']:+.4f}"
        f" [{step['interval'][0]:+.4f}, {step['interval'][1]:+.4f}]"
        for step in steps
        if step["against"] is not None
    ]
    found = f"test-time augmentation: {tta}" if tta != "none" or steps else ""
    if steps:
        found += f", chosen on these rows ({'; '.join(compared) or 'training does not augment so'})"
    if inference.get("ensemble") == "logits":
        found += f"{'; ' if found else ''}mean of the logits of several models"
    return found
