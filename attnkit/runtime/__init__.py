"""What all commands share: batches, records, errors, rendering, devices, clusters."""
