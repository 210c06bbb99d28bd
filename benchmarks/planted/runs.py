"""Faults in a run from its config on: the modules at the top of the package, config, compose and run."""

from planted.fault import Fault

FAULTS = (
    # The modules at the top of the package.
    Fault(
        "statistics-merge",
        "distributed.py",
        "if momentum is None else rest**after)",
        "if momentum is None else rest**everyone)",
        "Batch norm's running statistics, merged over processes, weigh each process as if all micro-batches came after"
        " its own.",
        ("faults/test_distributed.py",),
    ),
    Fault(
        "float32-sums",
        "distributed.py",
        "torch.tensor(numbers, dtype=torch.float64)",
        "torch.tensor(numbers, dtype=torch.float32)",
        "What several processes divide their loss by is added up in float32, so it is rounded and the gradient is"
        " no longer that of one process.",
        ("faults/test_distributed.py",),
    ),
    Fault(
        "no-fsync",
        "files.py",
        "os.fsync(file.fileno())",
        "pass",
        "A file takes its name before its bytes are on the disk: a power cut leaves an empty one in the place of"
        " the old one.",
        ("test_files.py",),
    ),
    Fault(
        "predict-overwrites",
        "cli_models.py",
        "refuse_existing(out, force)\n    predictions",
        "pass\n    predictions",
        "`predict` overwrites an existing file without --force.",
        ("end_to_end/test_command_line.py", "end_to_end/test_bad_input.py"),
    ),
    Fault(
        "overlapping-streams",
        "randomness.py",
        "counter=[0, stream, a, b]",
        "counter=[stream, a, b, 0]",
        "The use of random numbers stands in the word that Philox advances, so that augmentation, split and"
        " initial weights draw from one stream, a few numbers apart.",
        ("test_randomness.py",),
    ),
    # config
    Fault(
        "override-order",
        "config/load.py",
        'key=lambda pair: (pair[0].count("."), not pair[0].endswith(".name"))',
        'key=lambda pair: pair[0].count(".")',
        "`--loss.gamma 1 --loss.name focal` loses the gamma: options are applied in the order given, rather than names"
        " first.",
        ("config/test_schema.py",),
    ),
    Fault(
        "weights-last-epoch",
        "config/conflicts.py",
        "if loss.weights_from_epoch > epochs:",
        "if loss.weights_from_epoch >= epochs:",
        "Class weights that begin in the last epoch are refused, as if they never applied.",
        ("end_to_end/test_every_key.py", "config/test_conflicts.py", "losses/test_deferred_weights.py"),
    ),
    Fault(
        "comment-breaks-line",
        "config/toml.py",
        '"".join(c if c.isprintable() else " " for c in comments.get(f"{where}{key}", ""))',
        'comments.get(f"{where}{key}", "")',
        "A column whose name holds a line break ends a comment of the config that `init` writes, and the rest of"
        " it is no TOML, or a key.",
        ("config/test_toml.py", "suggest/test_config.py"),
    ),
    Fault(
        "number-as-path",
        "config/load.py",
        'return kinds == {"string_type"}',
        'return "string_type" in kinds',
        "`--data.valid 1.5` is taken for the name of a table, in place of the message that a share is between 0"
        " and 1.",
        ("config/test_schema.py",),
    ),
    Fault(
        "onecycle-start",
        "config/schedules.py",
        "div_factor: Positive = Field(25.0,",
        "div_factor: Positive = Field(10.0,",
        "A one-cycle schedule starts from another learning rate than torch's does by default.",
        ("optim/test_schedules.py", "config/test_schema.py"),
    ),
    # compose
    Fault(
        "absent-class-warning",
        "compose/split_checks.py",
        "*_absent_classes(splits),",
        "",
        "There is no warning of classes without a training or validation row.",
        ("compose/test_dataset.py",),
    ),
    Fault(
        "plateau-direction",
        "compose/state.py",
        "higher_is_better=higher_is_better(selection_metric(config)),",
        "higher_is_better=True,",
        "The plateau schedule takes a falling error or loss for a worse result and lowers the learning rate.",
        ("compose/test_state.py", "end_to_end/test_every_key.py"),
    ),
    Fault(
        "mean-of-both-splits",
        "compose/losses.py",
        "values = splits.train.labels[name]",
        "values = np.concatenate([splits.train.labels[name], splits.valid.labels[name]])",
        "A regression is standardized by the mean and deviation of training and validation rows together.",
        ("compose/test_losses.py", "compose/test_dataset.py"),
    ),
    Fault(
        "augmented-features",
        "compose/loaders.py",
        "plain_images = split_images(splits.train, config, model.metadata)",
        "plain_images = train_images",
        "The features of a frozen backbone are those of one random augmentation of each training image.",
        ("compose/test_loaders.py", "training/test_mixing_averaging_freezing.py"),
    ),
    Fault(
        "images-of-a-machine",
        "compose/image_check.py",
        ":: processes.local_world_size]",
        ":: processes.world_size]",
        "Where processes run on several machines, each machine checks only a part of the images.",
        ("compose/test_image_check.py", "compose/test_dataset.py", "faults/test_distributed.py"),
    ),
    Fault(
        "cores-of-all",
        "compose/settings.py",
        'cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))',
        "cores",
        "Each of several processes on one machine starts as many loader workers as if it were alone there.",
        ("compose/test_settings.py",),
    ),
    Fault(
        "equal-beats",
        "compose/baselines.py",
        "not sign * value > sign * score",
        "sign * value < sign * score",
        "A run that is only as good as a baseline, or whose score is NaN, passes for one that beats it.",
        (
            "compose/test_linear_probe.py",
            "compose/test_baselines.py",
        ),
    ),
    Fault(
        "frozen-in-epochs",
        "compose/state.py",
        "config.training.freeze_epochs * updates_per_epoch",
        "config.training.freeze_epochs",
        "The learning-rate schedule takes the number of frozen epochs for a number of updates, and begins while"
        " the backbone is frozen.",
        ("compose/test_state.py", "training/test_mixing_averaging_freezing.py"),
    ),
    # run
    Fault(
        "moments-layout",
        "run/checkpoint.py",
        "_lay_out_as_parameters(state.optimizer)",
        "pass",
        "A resumed optimizer's moments stay in plain memory order beside channels_last weights, so a fused step pairs"
        " each weight with another one's moment.",
        ("run/test_checkpoint.py",),
    ),
    Fault(
        "shared-lock",
        "run/lock.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        "The lock of a run directory is a shared one, so two processes write into the same run.",
        ("faults/test_locks.py",),
    ),
    Fault(
        "clears-begun-run",
        "run/folder.py",
        "if not has_begun(folder):",
        "if True:",
        "A new run that ends by an error or a signal is deleted even if it has written a checkpoint.",
        ("faults/test_locks.py",),
    ),
    Fault(
        "best-after-kill",
        "run/api.py",
        "best=is_between_epochs and progress.best_epoch == progress.epoch",
        "best=False",
        "A run that was killed while it saved its best epoch keeps the older checkpoint as `best` when it is resumed.",
        ("run/test_checkpoint.py", "end_to_end/test_interrupt.py"),
    ),
    Fault(
        "added-key",
        "run/resume_config.py",
        "for key in (*original, *(current.keys() - original.keys()))",
        "for key in original",
        "A key that is added to the config of a begun run (clip_norm, ema) is followed by `resume` in part, in"
        " place of a refusal.",
        ("end_to_end/test_bad_input.py", "run/test_checkpoint.py"),
    ),
    Fault(
        "threads-stay",
        "run/predictor.py",
        "fork_rng(devices=devices), torch_threads(torch.get_num_threads()):",
        "fork_rng(devices=devices):",
        "After `train` or `predict`, the calling program's torch has the run's number of threads.",
        ("end_to_end/test_train_to_submission.py",),
    ),
    Fault(
        "late-checkpoint",
        "run/checkpoint.py",
        "progress.update - update >= self.every_updates",
        "progress.update - update > self.every_updates",
        "Checkpoints within an epoch come one update later than training.checkpoint_updates says.",
        ("run/test_checkpoint.py",),
    ),
    Fault(
        "seconds-of-a-part",
        "run/session.py",
        "round(seconds_before + time.monotonic() - started, 1)",
        "round(time.monotonic() - started, 1)",
        "A resumed run forgets the seconds that it took before it was interrupted.",
        ("end_to_end/test_interrupt.py", "run/test_checkpoint.py"),
    ),
    Fault(
        "changed-groups",
        "run/resume_checks.py",
        'columns = ["id", "group", "split"]',
        'columns = ["id", "split"]',
        "A run goes on, and is evaluated, with other groups than it was split by.",
        ("run/test_resume_checks.py", "end_to_end/test_interrupt.py", "run/test_checkpoint.py"),
    ),
)
