//! The release of the running kernel, for the few things that only the release tells.

use rustix::system::uname;

/// Whether Linux is older than `major.minor`. A release that can't be read counts as older.
pub(crate) fn is_before(major: u32, minor: u32) -> bool {
    let name = uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) < (Some(major), Some(minor))
}
