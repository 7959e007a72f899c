//! Frame memory.
