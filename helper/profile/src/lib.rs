//! The profile model, its schema and the importers.
