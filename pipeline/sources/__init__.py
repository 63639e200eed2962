"""Where raw records come from, other than from topics that are there already."""

from pipeline.sources.files import CsvMapping, FileFacts, Row, inspect_file, read_rows

__all__ = ["CsvMapping", "FileFacts", "Row", "inspect_file", "read_rows"]
