"""ThingsBoard in memory: the recorded behaviours of a ThingsBoard CE 4.3, for tests and the demo.

The gateway never imports this package; it talks to it over HTTP as to any ThingsBoard.
"""
