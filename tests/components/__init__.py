"""What the tests of single components stand on: an InfluxDB that does as told, and ways to wait beside gevent's hub."""
