//! OpenZFS's C libraries, loaded at run time.
//!
//! A program that was linked against libzfs runs with one release line alone: the library is `libzfs.so.4` in
//! OpenZFS 2.2, `.so.6` in 2.3 and `.so.7` in 2.4. What this crate uses of the library is declared alike in all of
//! them, so the crate takes whichever is there. `libzfs_core.so.3` and `libnvpair.so.3` come with libzfs, which
//! needs both.

use std::ffi::{CStr, c_int};

use libloading::Error;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use once_cell::sync::OnceCell;

use super::bindings::OpenZfs;

/// What the library is called, the newest release line first.
const NAMES: [&str; 3] = ["libzfs.so.7", "libzfs.so.6", "libzfs.so.4"];

/// `RTLD_NOLOAD` of dlopen(3), but on MIPS: only what is loaded already.
const RTLD_NOLOAD: c_int = 4;

/// Why OpenZFS's libraries are not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoadError {
    /// None of them can be loaded.
    #[error("{}", .0.join("; "))]
    Missing(Vec<String>),
    /// There is one, and it lacks a function that is needed.
    #[error("{library} lacks a function: {lacks}")]
    TooOld { library: &'static str, lacks: String },
}

/// The functions of the loaded libraries, and what libzfs was found as.
struct Loaded {
    functions: OpenZfs,
    name: &'static str,
}

/// OpenZFS's functions. Nobody but a test gets here before `Zfs::open` has asked for the [`version`], which loads
/// the library or says why not.
pub(super) fn openzfs() -> &'static OpenZfs {
    match loaded() {
        Ok(loaded) => &loaded.functions,
        Err(error) => panic!("a function of OpenZFS was called without its library: {error}"),
    }
}

/// The file's name and the release of the libzfs that is used, such as `libzfs.so.6` and `2.3.9-1`. Loads the libraries,
/// once for the process; they stay.
pub(crate) fn version() -> Result<(&'static str, String), LoadError> {
    let loaded = loaded()?;
    // SAFETY: gives a C string that lives as long as the library, which is never unloaded.
    let alias = unsafe { CStr::from_ptr(loaded.functions.zfs_version_userland()) };
    let alias = alias.to_string_lossy();
    Ok((loaded.name, alias.strip_prefix("zfs-").unwrap_or(&alias).to_owned()))
}

fn loaded() -> Result<&'static Loaded, LoadError> {
    static LOADED: OnceCell<Loaded> = OnceCell::new();
    LOADED.get_or_try_init(find)
}

/// The libzfs that the process has already, or else the newest that has all that is needed.
///
/// A second libzfs beside the first would call into the first: a library's own calls find the functions of the
/// program's libraries before its own.
fn find() -> Result<Loaded, LoadError> {
    let present = NAMES.iter().find_map(|name| Some((*name, open(name, RTLD_NOLOAD).ok()?)));
    if let Some((name, library)) = present {
        return bind(name, library);
    }
    let (mut missing, mut too_old) = (Vec::new(), None);
    for name in NAMES {
        let library = match open(name, 0) {
            Ok(library) => library,
            Err(error) => {
                missing.push(error.to_string());
                continue;
            }
        };
        match bind(name, library) {
            Ok(loaded) => return Ok(loaded),
            Err(error) => too_old = too_old.or(Some(error)),
        }
    }
    Err(too_old.unwrap_or(LoadError::Missing(missing)))
}

fn bind(name: &'static str, library: Library) -> Result<Loaded, LoadError> {
    // SAFETY: the library is OpenZFS's by its name. Its functions are declared in all release lines as they are in
    // the bindings, which `tests/abi.rs` checks against the headers of each. A function of libzfs_core or libnvpair
    // is found through libzfs, which is linked against both.
    match unsafe { OpenZfs::from_library(library) } {
        Ok(functions) => Ok(Loaded { functions, name }),
        Err(error) => Err(LoadError::TooOld { library: name, lacks: error.to_string() }),
    }
}

fn open(name: &str, flags: c_int) -> Result<Library, Error> {
    // SAFETY: loading runs the initializers of OpenZFS's libraries and of those that they need, which have no
    // preconditions.
    unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL | flags) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let missing = open("libzfs.so.0", 0).map(|_| ()).map_err(|error| error.to_string());
        let said = LoadError::Missing(missing.err().into_iter().collect()).to_string();
        assert!(said.contains("libzfs.so.0"), "{said}");
    }

    #[test]
    fn a_library_without_a_function_that_is_needed_is_refused() {
        // One that every process has.
        let library = open("libc.so.6", 0).unwrap();
        // SAFETY: nothing of it is called.
        let error = unsafe { OpenZfs::from_library(library) }.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("nvlist_alloc"), "{error}");
    }

    #[test]
    fn the_library_that_is_loaded_is_the_one_that_is_taken() {
        let (name, version) = version().unwrap();
        assert!(open(name, RTLD_NOLOAD).is_ok());
        assert!(NAMES.contains(&name) && version.starts_with("2."), "{name} {version}");
    }
}
