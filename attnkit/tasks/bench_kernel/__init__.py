"""Attention operators measured: right first, then how fast, beside what a user would pick instead."""
