//! Rewards: every kind, and every way in which one can fail.
