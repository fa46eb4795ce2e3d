"""The stairs between host and guest: bytes, frames, and what they mean."""
