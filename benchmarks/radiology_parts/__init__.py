"""What radiology.py is made of: the apps that it compares, and what it asks of them."""
