//! What is on disk. Decides, never does I/O: everything goes through [`crate::base::disk`].
