//! The generated declarations of OpenZFS's C functions; `build.rs` says which.
#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated: the names and the shape are C's"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
