//! `cargo xtask bindings`: the declarations of OpenZFS's C functions, generated from the default line's headers.
//!
//! They are committed, so that compiling the library needs neither OpenZFS nor libclang. `cargo xtask lint`
//! generates them again and compares; `tests/abi.rs` asks a C compiler whether they are true of the line that is
//! tested.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::progress::Step;
use crate::sysroot;
use crate::tree::Root;

/// The functions that are bound; everything else in the headers stays out.
const FUNCTIONS: &[&str] = &[
    // libnvpair
    "nvlist_alloc",
    "nvlist_free",
    "nvlist_dup",
    "nvlist_size",
    "nvlist_pack",
    "nvlist_unpack",
    "nvlist_add_boolean",
    "nvlist_add_boolean_value",
    "nvlist_add_int32",
    "nvlist_add_uint32",
    "nvlist_add_int64",
    "nvlist_add_uint64",
    "nvlist_add_string",
    "nvlist_add_string_array",
    "nvlist_add_nvlist",
    "nvlist_add_byte_array",
    "nvlist_add_uint64_array",
    "nvlist_next_nvpair",
    "nvpair_name",
    "nvpair_type",
    "nvpair_value_boolean_value",
    "nvpair_value_int32",
    "nvpair_value_uint32",
    "nvpair_value_int64",
    "nvpair_value_uint64",
    "nvpair_value_string",
    "nvpair_value_string_array",
    "nvpair_value_nvlist",
    "nvpair_value_byte_array",
    "nvpair_value_uint8_array",
    "nvpair_value_uint64_array",
    "nvpair_value_nvlist_array",
    // libzfs_core
    "libzfs_core_init",
    "libzfs_core_fini",
    "lzc_bookmark",
    "lzc_channel_program",
    "lzc_channel_program_nosync",
    "lzc_clone",
    "lzc_create",
    "lzc_destroy",
    "lzc_destroy_bookmarks",
    "lzc_destroy_snaps",
    "lzc_exists",
    "lzc_get_bookmarks",
    "lzc_get_holds",
    "lzc_hold",
    "lzc_promote",
    "lzc_receive",
    "lzc_release",
    "lzc_rename",
    "lzc_rollback_to",
    "lzc_send",
    "lzc_send_space",
    "lzc_snapshot",
    "lzc_sync",
    // libzfs
    "libzfs_init",
    "libzfs_fini",
    "libzfs_errno",
    "libzfs_error_description",
    "libzfs_print_on_error",
    "zfs_version_userland",
    "zfs_open",
    "zfs_close",
    "zfs_get_name",
    "zfs_get_type",
    "zfs_get_all_props",
    "zfs_get_fsacl",
    "zfs_set_fsacl",
    "zfs_iter_filesystems_v2",
    "zfs_iter_snapshots",
    "zfs_name_to_prop",
    "zfs_prop_get",
    "zfs_prop_get_written_int",
    "zfs_prop_inherit",
    "zfs_prop_set_list_flags",
    "zpool_open",
    "zpool_close",
    "zpool_get_features",
];

/// Enums whose constants are used, or checked against `errno.rs` by `tests/abi.rs`.
const ENUMS: &[&str] = &["data_type_t", "zfs_error", "zfs_errno_t", "zfs_type_t", "lzc_send_flags"];

/// C structs that are only ever handled by address: Rust is told nothing about their layout.
const OPAQUE: &[&str] = &["nvlist", "nvpair", "zfs_handle", "zpool_handle", "libzfs_handle"];

/// An enum of which no constant is used, as each release adds some: numbers are asked for by name.
const PROPERTIES: &str = "zfs_prop_t";

const HEADER: &str = "#include <libnvpair.h>\n#include <libzfs_core.h>\n#include <libzfs.h>\n";

/// Where they are.
fn committed() -> PathBuf {
    sysroot::checkout().join("src/ffi/bindings.rs")
}

/// Generates them anew.
pub(crate) fn write(root: &Root) -> Result<()> {
    let path = committed();
    fs::write(&path, generate(root)?).with_context(|| format!("writing {}", path.display()))?;
    println!("{} written", path.display());
    Ok(())
}

/// Fails where the committed ones are not those that would be generated.
pub(crate) fn check(root: &Root) -> Result<()> {
    let path = committed();
    let found = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    if found != generate(root)? {
        bail!("{} is out of date: `cargo xtask bindings` writes it anew", path.display());
    }
    Ok(())
}

fn generate(root: &Root) -> Result<String> {
    let step = Step::begin_quiet("generating the bindings");
    let mut builder = bindgen::Builder::default()
        .header_contents("openzfs.h", HEADER)
        .clang_args(sysroot::header_arguments(root))
        .rust_target(bindgen::RustTarget::stable(85, 0).map_err(|e| anyhow::anyhow!("{e}"))?)
        .rust_edition(bindgen::RustEdition::Edition2024)
        // A value that C returns and Rust doesn't know must not be undefined behaviour.
        .default_enum_style(bindgen::EnumVariation::NewType {
            is_bitfield: false,
            is_global: false,
        })
        // The headers' comments are not ours to publish.
        .generate_comments(false)
        .dynamic_library_name("OpenZfs")
        // What one function is missing for is found when the library is opened, not when it is called.
        .dynamic_link_require_all(true)
        .wrap_unsafe_ops(true)
        .use_core()
        .disable_header_comment()
        // No release of rustfmt formats as another one does.
        .formatter(bindgen::Formatter::Prettyplease)
        .allowlist_var(
            "NV_UNIQUE_NAME|NV_ENCODE_XDR|NV_ENCODE_NATIVE|ZFS_SET_NOMOUNT|ZFS_ITER_SIMPLE",
        );
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in ENUMS {
        builder = builder.allowlist_type(name);
    }
    for name in OPAQUE {
        builder = builder.blocklist_type(name).raw_line(format!(
            "#[repr(C)] pub struct {name} {{ _unused: [u8; 0], \
             _pinned: ::core::marker::PhantomData<(*mut u8, ::core::marker::PhantomPinned)> }}"
        ));
    }
    builder = builder.blocklist_type(PROPERTIES).raw_line(format!(
        "#[repr(transparent)] #[derive(Clone, Copy)] pub struct {PROPERTIES}(pub ::core::ffi::c_int);"
    ));
    let text = builder.generate().context("bindgen")?.to_string();
    step.done();
    Ok(text)
}
