//! Properties by which programs that take or send periodic snapshots leave a dataset alone.
//!
//! As their sources read them: zfs-auto-snapshot looks for `false` in what applies to a dataset, and with
//! `--default-exclude` takes it all the same where the property of its label says `true`; syncoid passes
//! over `false`, zfs_autobackup over `false` in the property of the backup's name, simplesnap over `on`;
//! znapzend over a dataset that has `off` itself. sanoid, zrepl and pyznap ask no property, only their
//! own files, and `zfs snapshot -r` asks nothing.

use crate::engine::PropertyValue;

/// Each with the value that has a dataset left alone.
pub(crate) const ALWAYS: [(&str, &str); 4] = [
    ("com.sun:auto-snapshot", "false"),
    ("org.complete.simplesnap:exclude", "on"),
    ("org.znapzend:enabled", "off"),
    ("syncoid:sync", "false"),
];

/// What the properties of one label or backup begin with.
pub(crate) const NAMED: [&str; 2] = ["autobackup:", "com.sun:auto-snapshot:"];
pub(crate) const NAMED_OFF: &str = "false";

/// The value by which this property has a dataset left alone.
pub(crate) fn off(property: &str) -> Option<&'static str> {
    let always = ALWAYS.into_iter().find(|(name, _)| *name == property).map(|(_, off)| off);
    always.or_else(|| is_named(property).then_some(NAMED_OFF))
}

pub(crate) fn is_named(property: &str) -> bool {
    NAMED.iter().any(|prefix| property.starts_with(prefix))
}

/// What has a workspace left alone to which the properties `named` apply, inherited or not.
pub(crate) fn left_alone(named: &[String]) -> impl Iterator<Item = (String, PropertyValue)> {
    let named = named.iter().map(|name| (name.as_str(), NAMED_OFF));
    let all = ALWAYS.into_iter().chain(named);
    all.map(|(name, off)| (name.to_owned(), PropertyValue::Text(off.into())))
}
