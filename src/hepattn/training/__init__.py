"""One way to train, resume and evaluate: command line, base module, schedules, callbacks."""
