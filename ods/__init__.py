"""ODS, the OpenLoop Data Shuttle: all the telemetry of all pods into InfluxDB, through every outage.

The data flows one way, and so do the imports:

    listener -> protocol -> intake -> batcher -> recorder -> store -> influx
                                                                 \\-> buffer -> drain -> influx

`ods.service` wires these together; `ods.commands` are what a person types.
"""

__version__ = "0.1.0"
