//! Finds OpenZFS's libraries, generates the bindings to them and compiles the shim.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
    "zfs_open",
    "zfs_close",
    "zfs_get_all_props",
    "zfs_get_fsacl",
    "zfs_set_fsacl",
    "zfs_prop_get_written_int",
    "zfs_prop_inherit",
    "zpool_open",
    "zpool_close",
    "zpool_get_features",
    // shim.c
    "zfs_txn_.*",
];

/// Enums whose constants are used, or checked against `errno.rs` by `tests/abi.rs`.
const ENUMS: &[&str] = &["data_type_t", "zfs_error", "zfs_errno_t", "zfs_type_t", "lzc_send_flags"];

/// C structs that are only ever handled by address: Rust is told nothing about their layout.
const OPAQUE: &[&str] = &["nvlist", "nvpair", "zfs_handle", "zpool_handle", "libzfs_handle"];

const HELP: &str = "\
zfs-txn needs the development files of OpenZFS 2.2 or newer, found through pkg-config:
  Debian, Ubuntu  apt install libzfslinux-dev pkg-config
  Fedora, RHEL    dnf install libzfs6-devel pkgconf   (from the OpenZFS repository; the number \
follows the release: libzfs5-devel for 2.2, libzfs7-devel for 2.4)
  Arch            zfs-utils (archzfs repository, or the AUR)
  FreeBSD         pkg install openzfs pkgconf   (not tested; the base system's own libraries come \
without pkg-config files)
For files in an unusual place set PKG_CONFIG_PATH; for another root, PKG_CONFIG_SYSROOT_DIR.
In a checkout of zfs-txn, `cargo xtask` builds and tests without installing any of this.";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}\n\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    for path in ["build.rs", "wrapper.h", "src/ffi/shim.h", "src/ffi/shim.c"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["DOCS_RS", "BINDGEN_EXTRA_CLANG_ARGS", "LIBCLANG_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    let headers = match find_openzfs() {
        Ok(headers) => headers,
        // Documentation links nothing, so a machine without OpenZFS can build it.
        Err(_) if env::var_os("DOCS_RS").is_some() => {
            println!("cargo::rerun-if-changed=src/ffi/bindings_for_docs.rs");
            fs::copy("src/ffi/bindings_for_docs.rs", out.join("bindings.rs"))?;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    generate_bindings(&headers, &out)?;
    compile_shim(&headers, &out)?;
    fs::write(out.join("openzfs-version"), &headers.version)?;
    Ok(())
}

/// Where the headers are, and which release they belong to.
struct Headers {
    include_paths: Vec<PathBuf>,
    version: String,
}

/// Asks pkg-config, which also prints the link directives.
fn find_openzfs() -> Result<Headers, Box<dyn Error>> {
    let mut include_paths = Vec::new();
    let mut version = String::new();
    for name in ["libzfs_core", "libzfs"] {
        let library = pkg_config::Config::new().atleast_version("2.2").probe(name)?;
        for path in library.include_paths {
            if !include_paths.contains(&path) {
                include_paths.push(path);
            }
        }
        version = library.version;
    }
    Ok(Headers { include_paths, version })
}

/// libzfs.h needs GNU extensions on Linux: 2.1's uses `struct stat64`.
fn defines() -> &'static [&'static str] {
    match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => &["_GNU_SOURCE"],
        _ => &[],
    }
}

fn generate_bindings(headers: &Headers, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(headers.include_paths.iter().map(|path| format!("-I{}", path.display())))
        .clang_args(defines().iter().map(|name| format!("-D{name}")))
        .rust_target(bindgen::RustTarget::stable(85, 0).map_err(|e| e.to_string())?)
        .rust_edition(bindgen::RustEdition::Edition2024)
        // A value that C returns and Rust doesn't know must not be undefined behaviour.
        .default_enum_style(bindgen::EnumVariation::NewType {
            is_bitfield: false,
            is_global: false,
        })
        // The headers' comments are not ours to publish.
        .generate_comments(false)
        .merge_extern_blocks(true)
        .use_core()
        .disable_header_comment()
        .layout_tests(true)
        .allowlist_var("NV_UNIQUE_NAME|NV_ENCODE_XDR|NV_ENCODE_NATIVE")
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()));
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
    builder.generate()?.write_to_file(out.join("bindings.rs"))?;
    Ok(())
}

fn compile_shim(headers: &Headers, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut build = cc::Build::new();
    build.file("src/ffi/shim.c").includes(&headers.include_paths).warnings(true);
    // OpenZFS's own headers use names that newer C standards warn about.
    build.flag_if_supported("-Wno-unknown-pragmas");
    for name in defines() {
        build.define(name, None);
    }
    build.try_compile("zfs_txn_shim")?;

    // tests/abi.rs asks the same compiler, with the same flags, about the bindings.
    let compiler = build.try_get_compiler()?;
    let mut command = vec![compiler.path().display().to_string()];
    command.extend(compiler.args().iter().map(|arg| arg.to_string_lossy().into_owned()));
    fs::write(out.join("cc-command"), command.join("\n"))?;
    Ok(())
}
