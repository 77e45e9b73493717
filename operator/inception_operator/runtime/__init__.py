"""The running process: watches, work queue, requests, leader election, metrics."""
