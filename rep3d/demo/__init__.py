"""The demonstration: plays a clinician against the real server, measures what the loop gains, and reports it."""
