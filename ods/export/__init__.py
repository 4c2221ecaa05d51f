"""What was kept, as a table for other programs: from the recordings or InfluxDB, to CSV or Parquet."""
