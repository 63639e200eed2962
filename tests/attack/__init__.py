"""The engine under fire: faults on a real Kafka, judged from outside. docs/operations/faults.md tells how to run it."""
