"""ThingsBoard in memory: the recorded behaviours of a ThingsBoard CE 4.3, for tests and the demo.

The gateway never imports this package; it talks to it over HTTP as to any ThingsBoard.

In tests ``async with Simulator(Settings(...)) as simulator`` (``tb_simulator.server``) gives ``.url``,
``.world``, ``.faults`` and ``.calls``; ``python -m tb_simulator`` serves it, with the control routes of
``tb_simulator.control`` beside ThingsBoard's own. What is recorded in ``tests/recordings`` decides how it
answers; "facts" in a docstring is what was measured on that ThingsBoard without being recorded.
"""
