//! Processes that are killed right after an effect of a transaction, and what recovery makes of it.

mod on_zfs;
