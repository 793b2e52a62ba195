"""What watches requests and writes about them: access log, log files, times, counts."""
