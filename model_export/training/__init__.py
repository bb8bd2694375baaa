"""The parts of a training run, which `model_export.train` puts together.

task            the network, what it learns from, and the run so far, in the form that Lightning wants
trainer         Lightning's Trainer: where, on how many processes, in which precision
processes       what several processes have to agree on
keeping         the run's folder: claimed before the first step, two checkpoints after each epoch
logs            CSV or TensorBoard
interruption    Ctrl-C and SIGTERM
accuracy        the share of a split that is put into the right class
"""
