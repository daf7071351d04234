"""Cases: who works on which, and what is known of each."""
