"""Models, inputs and calls drawn at random, each put to the package and to an answer that is worked out by hand.

:mod:`~benchmarks.studies.fuzzing.models` has the parts that models are made of,
:mod:`~benchmarks.studies.fuzzing.parts` says by hand how an input is cut, hidden and read,
:mod:`~benchmarks.studies.fuzzing.scenes` draws a model with its inputs, and twists it,
:mod:`~benchmarks.studies.fuzzing.oracle` answers by loops over single examples,
:mod:`~benchmarks.studies.fuzzing.calls` asks the package, and
:mod:`~benchmarks.studies.fuzzing.draws` compares, and finds the smallest draw that shows the same fault.
"""
