"""What every room stands on: records, provenance, clips, reporting tasks, errors, and a few helpers."""
