//! algo
