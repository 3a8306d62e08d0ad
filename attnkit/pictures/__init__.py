"""Pictures as files: readers, writers, colour spaces and metadata."""
