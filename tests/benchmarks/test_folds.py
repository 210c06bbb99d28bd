"""benchmarks/folds.py: what its tables say of the records."""

import folds


def timed(seconds: float, memory: int) -> dict[str, float]:
    return {"seconds": seconds, "cpu": seconds, "memory": memory}


def test_the_time_is_the_median_of_the_ratios_of_pairs() -> None:
    head = {"kind": "time", "set": "tiles", "plan": "probe", "jobs": 1}
    pairs = [(1.0, 5.0), (4.0, 8.0), (9.0, 10.0)]
    records = [{**head, "folds": timed(a, 3), "runs": timed(b, 2)} for a, b in pairs]
    assert folds.time_table(records)[-1] == "| tiles | probe | 1 | 3 | 0.50 | 0.50 | 1.50 |"


def test_differences_are_paired_by_part_and_the_latest_record_counts() -> None:
    head = {"kind": "quality", "set": "tiles", "plan": "probe"}
    scores = [(0, 0.9, 0.1), (0, 0.50, 0.54), (1, 0.60, 0.62)]
    records = [{**head, "part": part, "train": one, "folds": five} for part, one, five in scores]
    records[-1]["decision"] = {"targets": {"label": {"offsets": {"adopted": True}}}}
    line = folds.quality_table(records)[-1]
    assert line.startswith("| tiles | probe | 2 | 0.550 |  | 0.580 | +0.030 | ")
    assert line.endswith(" | 1 |")


def test_no_interval_of_a_single_part() -> None:
    record = {"kind": "quality", "set": "tiles", "plan": "probe", "part": 0, "train": 0.5, "folds": 0.6}
    assert folds.quality_table([record])[-1] == "| tiles | probe | 1 | 0.500 |  | 0.600 | +0.100 |  |  | 0 |"


def test_five_models_against_one() -> None:
    speeds = {"probe": (3.0, 4.0, 9.0), "finetune": (2.0,)}
    pairs = [{"plan": plan, "five": five, "one": 10.0} for plan, fives in speeds.items() for five in fives]
    assert folds.predict_table(pairs)[2:] == ["| finetune | 1 | 0.20 |", "| probe | 3 | 0.40 |"]


def test_runs_on_groups_of_copies_stand_beside_those_without() -> None:
    head = {"kind": "quality", "set": "tiles", "plan": "probe, groups of copies", "train": 0.5, "folds": 0.6}
    records = [{**head, "part": part, "train_grouped": 0.4 + part, "out_of_fold": 0.8} for part in (0, 1)]
    assert "| 0.500 | 0.900 | 0.600 |" in folds.quality_table(records)[-1]
    assert folds.quality_table(records)[-1].endswith("| 0.800 | 0 |")
