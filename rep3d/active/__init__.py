"""Which image next?"""
