//! A transaction's record: what another process needs to finish or undo it. Pure.
//!
//! It is the value of one user property, one line of printable ASCII, because ZFS changes one
//! property in one txg: a record is the old one or the new one, never a mixture.
//!
//! ```text
//! 1;id=0123456789abcdef;kind=update;...;begun=1700000000;sum=89abcdef01234567
//! ```
//!
//! The first field is the version of the format and the last one a checksum of all before it.
//! **Every later version keeps these two as they are**, so that a program that is too old can tell
//! a record that it doesn't know from a damaged one. In between, version 1 has the fields that
//! [`Record::encode`] writes, in that order; what is absent is left out. Nothing else is read: who
//! acts on a record destroys datasets, so one that is not exactly as this file would write it is
//! not acted on.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::iter::Peekable;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::{FromStr, Split};

use crate::name::{DatasetName, TransactionId};
use crate::owner::Owner;
use crate::ownership::Ids;
use crate::receipt::{Guid, Strategy};
use crate::txn::plan::{GATE_OF_PLAIN_CALLS, Gate, Kind};

/// The version that this file writes.
const VERSION: u64 = 1;

/// The longest value of a user property, in bytes: `ZAP_MAXVALUELEN` less the final NUL.
pub(crate) const MAX_LEN: usize = 8191;

/// The longest path of an [`Entrance`], in bytes: with what comes below, the kernel takes it as a path.
const MAX_PLACE: usize = 4000;

const PREFIX: &str = "zfs-txn:";

/// Property that holds a transaction's record.
pub(crate) fn property(id: TransactionId) -> String {
    format!("{PREFIX}{id}")
}

/// The transaction whose record a property holds; `None` for every other property.
pub(crate) fn id_of(property: &str) -> Option<TransactionId> {
    property.strip_prefix(PREFIX)?.parse().ok()
}

/// What is to be known of a transaction when the process that began it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: TransactionId,
    pub(crate) kind: Kind,
    pub(crate) strategy: Strategy,
    pub(crate) state: State,
    /// The target's name at begin.
    pub(crate) target: DatasetName,
    /// The target's guid at begin (update only).
    pub(crate) target_guid: Option<Guid>,
    /// The snapshot that the target itself is a clone of (update only).
    pub(crate) target_origin: Option<Guid>,
    /// Known from the commit on.
    pub(crate) workspace: Option<Guid>,
    /// How many ancestors of the target it creates (init only).
    pub(crate) missing_parents: usize,
    /// The mount point that is pinned on the target while names are swapped.
    pub(crate) pin: Option<OsString>,
    /// Properties of the workspace that are to be cleared when it is the target.
    pub(crate) gate: Vec<String>,
    /// [`fingerprint`] of the target's settings at begin.
    pub(crate) settings: Option<u64>,
    pub(crate) ownership: Option<Ids>,
    /// The last part of the final snapshot's name.
    pub(crate) final_leaf: Option<String>,
    /// Whether changes to the target since begin are overwritten.
    pub(crate) overwrite: bool,
    /// Whether writes to the target are refused during the commit, and what is to be put back
    /// (update only).
    pub(crate) fence: Option<Fence>,
    /// Where the workspace is mounted, and who may get there; `None`: the default.
    pub(crate) entrance: Option<Entrance>,
    /// `None` when detached.
    pub(crate) owner: Option<Owner>,
    /// When it began, in seconds since 1970.
    pub(crate) begun: u64,
}

/// A place for the workspace that one user besides this process's may get to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entrance {
    pub(crate) user: u32,
    /// The directory below which the workspace's own is made: an absolute path, of any bytes.
    pub(crate) place: PathBuf,
}

/// What `readonly` was before writes were refused: it was off in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    /// It was set on the target itself.
    Own,
    Inherited,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Inherited => "inherited",
        })
    }
}

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Its content is being written.
    Open,
    /// Open, and no process is expected to hold it.
    Detached,
    /// Between the start of the commit and the commit point, or just past it.
    Committing,
    /// Past the commit point.
    Committed,
    /// Committed, and the predecessor is kept because it has what the commit has overridden.
    Kept,
    /// To be removed.
    RolledBack,
}

impl State {
    const ALL: [Self; 6] = [
        Self::Open,
        Self::Detached,
        Self::Committing,
        Self::Committed,
        Self::Kept,
        Self::RolledBack,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Detached => "detached",
            Self::Committing => "committing",
            Self::Committed => "committed",
            Self::Kept => "kept",
            Self::RolledBack => "rolled-back",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a record is not acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// Undamaged, and written by a program that knows more than this one.
    #[error("its format is version {version}, and this program knows version {VERSION}")]
    Newer { version: u64 },
    /// Not what any program of this version has written.
    #[error("it is damaged")]
    Damaged,
    /// Of another transaction than its place says.
    #[error("it is of another transaction than its property's name says")]
    Misplaced,
}

impl Record {
    /// The property's value.
    ///
    /// It is longer than [`MAX_LEN`], and then can't be stored or read back, only if the pin or the
    /// entrance is very long: 2,000 bytes of pin fit whatever they are, and 4,095 (the longest path) if
    /// they are letters, digits and `_.:/@-`, for all others take three bytes each. Begin refuses what
    /// could become too long ([`Record::longest`]).
    pub(crate) fn encode(&self) -> String {
        let mut fields = vec![
            VERSION.to_string(),
            format!("id={}", self.id),
            format!("kind={}", self.kind),
            format!("strategy={}", strategy_word(self.strategy)),
            format!("state={}", self.state),
            format!("target={}", escape(self.target.as_str())),
        ];
        let guid = |key: &str, guid: Option<Guid>| guid.map(|guid| format!("{key}={guid}"));
        fields.extend(guid("guid", self.target_guid));
        fields.extend(guid("origin", self.target_origin));
        fields.extend(guid("workspace", self.workspace));
        fields.push(format!("parents={}", self.missing_parents));
        fields
            .extend(self.pin.as_deref().map(|pin| format!("pin={}", escape_bytes(pin.as_bytes()))));
        if !self.gate.is_empty() {
            let gate: Vec<_> = self.gate.iter().map(|property| escape(property)).collect();
            fields.push(format!("gate={}", gate.join(",")));
        }
        fields.extend(self.settings.map(|settings| format!("settings={settings:016x}")));
        fields.extend(self.ownership.map(|ids| format!("ownership={}", ids_text(ids))));
        fields.extend(self.final_leaf.as_deref().map(|leaf| format!("final={}", escape(leaf))));
        fields.extend(self.overwrite.then(|| "overwrite=yes".to_owned()));
        fields.extend(self.fence.map(|fence| format!("fence={fence}")));
        fields.extend(self.entrance.as_ref().map(|Entrance { user, place }| {
            format!("entrance={user},{}", escape_bytes(place.as_os_str().as_bytes()))
        }));
        fields.extend(self.owner.as_ref().map(|owner| format!("owner={owner}")));
        fields.push(format!("begun={}", self.begun));
        seal(&fields.join(";"))
    }

    /// The length of its value at its longest, whatever becomes of the transaction.
    pub(crate) fn longest(&self) -> usize {
        let states = State::ALL.map(|state| {
            let owner = Some(Owner::longest());
            let workspace = Some(Guid(u64::MAX));
            Self { state, workspace, owner, ..self.clone() }.encode().len()
        });
        states.into_iter().max().unwrap_or_default()
    }

    /// The record that `property` has as its `value`.
    pub(crate) fn decode(
        property: &str,
        value: &(impl AsRef<OsStr> + ?Sized),
    ) -> Result<Self, Unreadable> {
        let value = value.as_ref().to_str().ok_or(Unreadable::Damaged)?;
        let (version, body) = unseal(value).ok_or(Unreadable::Damaged)?;
        if version > VERSION {
            return Err(Unreadable::Newer { version });
        }
        let record = Self::read(body)?;
        // A record has one spelling: this refuses leading zeros, needless escapes and so on.
        if !record.is_consistent() || record.encode() != value {
            return Err(Unreadable::Damaged);
        }
        if id_of(property) == Some(record.id) { Ok(record) } else { Err(Unreadable::Misplaced) }
    }

    /// Takes the fields in the order in which [`Record::encode`] writes them.
    fn read(body: &str) -> Result<Self, Unreadable> {
        let mut fields = Fields(body.split(';').peekable());
        fields.0.next();
        let record = Self {
            id: fields.required("id", parsed)?,
            kind: fields.required("kind", |text| word(text, [Kind::Init, Kind::Update]))?,
            strategy: fields.required("strategy", |text| {
                [Strategy::Promote, Strategy::InPlace]
                    .into_iter()
                    .find(|&known| strategy_word(known) == text)
            })?,
            state: fields.required("state", |text| word(text, State::ALL))?,
            target: fields.required("target", |text| unescape(text)?.parse().ok())?,
            target_guid: fields.optional("guid", guid)?,
            target_origin: fields.optional("origin", guid)?,
            workspace: fields.optional("workspace", guid)?,
            missing_parents: fields.required("parents", parsed)?,
            pin: fields.optional("pin", |text| unescape_bytes(text).map(OsString::from_vec))?,
            gate: fields
                .optional("gate", |text| text.split(',').map(unescape).collect())?
                .unwrap_or_default(),
            settings: fields.optional("settings", |text| u64::from_str_radix(text, 16).ok())?,
            ownership: fields.optional("ownership", ids)?,
            final_leaf: fields.optional("final", unescape)?,
            overwrite: fields
                .optional("overwrite", |text| (text == "yes").then_some(()))?
                .is_some(),
            fence: fields.optional("fence", |text| word(text, [Fence::Own, Fence::Inherited]))?,
            entrance: fields.optional("entrance", entrance)?,
            owner: fields.optional("owner", parsed)?,
            begun: fields.required("begun", parsed)?,
        };
        match fields.0.next() {
            None => Ok(record),
            Some(_) => Err(Unreadable::Damaged),
        }
    }

    /// Whether it was begun where no channel program can be run.
    pub(crate) fn is_by_plain_calls(&self) -> bool {
        self.gate.iter().any(|property| property == GATE_OF_PLAIN_CALLS)
    }

    /// Whether the values go together.
    fn is_consistent(&self) -> bool {
        let of_kind = match self.kind {
            // The pool itself can't be missing.
            Kind::Init => {
                self.target_guid.is_none()
                    && self.fence.is_none()
                    && self.target_origin.is_none()
                    && self.missing_parents < self.target.as_str().matches('/').count()
            }
            Kind::Update => self.target_guid.is_some() && self.missing_parents == 0,
        };
        // No name or mount point changes in place.
        let of_strategy = match self.strategy {
            Strategy::Promote => true,
            Strategy::InPlace => {
                self.kind == Kind::Update && self.pin.is_none() && self.gate.is_empty()
            }
        };
        of_kind
            && of_strategy
            && Gate::is_made_of(&self.gate)
            && self.pin.as_deref().is_none_or(|pin| Path::new(pin).is_absolute())
            && self.final_leaf.as_deref().is_none_or(|leaf| self.target.snapshot(leaf).is_ok())
    }
}

/// The fields that are still to be read. One that is unknown, repeated or out of its place is never
/// taken, and so is still there in the end.
struct Fields<'a>(Peekable<Split<'a, char>>);

impl Fields<'_> {
    fn optional<T>(
        &mut self,
        key: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Unreadable> {
        let field = self.0.peek().and_then(|field| field.strip_prefix(key)?.strip_prefix('='));
        let Some(text) = field else {
            return Ok(None);
        };
        let value = read(text).ok_or(Unreadable::Damaged)?;
        self.0.next();
        Ok(Some(value))
    }

    fn required<T>(
        &mut self,
        key: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Unreadable> {
        self.optional(key, read)?.ok_or(Unreadable::Damaged)
    }
}

/// Adds the checksum.
fn seal(body: &str) -> String {
    format!("{body};sum={:016x}", fingerprint(body.as_bytes()))
}

/// The version, and what is before the checksum; `None` where that is wrong.
fn unseal(value: &str) -> Option<(u64, &str)> {
    let (body, _) = value.rsplit_once(";sum=")?;
    let (version, _) = body.split_once(';')?;
    let number: u64 = parsed(version)?;
    let whole = value.len() <= MAX_LEN && seal(body) == value && number.to_string() == version;
    whole.then_some((number, body))
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn guid(text: &str) -> Option<Guid> {
    parsed(text).map(Guid)
}

/// The one of `known` that is shown as `text`.
fn word<T: fmt::Display, const N: usize>(text: &str, known: [T; N]) -> Option<T> {
    known.into_iter().find(|value| value.to_string() == text)
}

fn strategy_word(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Promote => "promote",
        Strategy::InPlace => "in-place",
    }
}

/// User, group, mode in octal, and how far it reaches; `-` for what stays as it is.
fn ids_text(ids: Ids) -> String {
    let number = |id: Option<u32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let mode = ids.mode.map_or_else(|| "-".to_owned(), |mode| format!("{mode:o}"));
    let reach = if ids.whole_tree { "tree" } else { "root" };
    format!("{},{},{mode},{reach}", number(ids.user), number(ids.group))
}

fn ids(text: &str) -> Option<Ids> {
    let mut parts = text.split(',');
    let mut number = |radix: u32, largest: u32| match parts.next()? {
        "-" => Some(None),
        digits => u32::from_str_radix(digits, radix).ok().filter(|&n| n <= largest).map(Some),
    };
    Some(Ids {
        // All ones means "leave it" to chown(2), so it is nobody's number.
        user: number(10, u32::MAX - 1)?,
        group: number(10, u32::MAX - 1)?,
        mode: number(8, 0o7777)?,
        whole_tree: match parts.next()? {
            "tree" => true,
            "root" => false,
            _ => return None,
        },
    })
}

fn entrance(text: &str) -> Option<Entrance> {
    let (user, place) = text.split_once(',')?;
    let place = PathBuf::from(OsString::from_vec(unescape_bytes(place)?));
    Some(Entrance { user: parsed(user)?, place }).filter(|entrance| entrance.is_possible())
}

impl Entrance {
    /// Whether it is one that a begin accepts: no part of the path is `.` or `..`, or needless.
    pub(crate) fn is_possible(&self) -> bool {
        let bytes = self.place.as_os_str().as_bytes();
        let parts = bytes.strip_prefix(b"/").map(|rest| rest.split(|&byte| byte == b'/'));
        let is_name = |part: &[u8]| ![&b""[..], b".", b".."].contains(&part) && part.len() <= 255;
        // All ones means "leave it" to chown(2).
        self.user != u32::MAX
            && bytes.len() <= MAX_PLACE
            && !bytes.contains(&0)
            && parts.is_some_and(|mut parts| parts.all(is_name))
    }
}

/// Leaves alone what paths and names are mostly made of, and none of the separators `;=,%`.
fn escape(text: &str) -> String {
    escape_bytes(text.as_bytes())
}

fn escape_bytes(bytes: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"_.:/@-".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02x}"));
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    String::from_utf8(unescape_bytes(text)?).ok()
}

fn unescape_bytes(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    Some(bytes)
}

/// FNV-1a, 64 bits: the same for every build of this crate, as std's hashers are not.
///
/// It tells of accidents, and of any change to a single byte; it is no proof against forgery.
/// Who may set properties of a dataset may destroy it as well.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::dice::Dice;
    use proptest::prelude::{Just, ProptestConfig, any, prop_assert_eq, prop_oneof, proptest};
    use proptest::strategy::{Strategy as Generator, ValueTree};
    use proptest::test_runner::TestRunner;
    use proptest::{collection, option};

    const ID: TransactionId = TransactionId::from_bits(0x0123_4567_89ab_cdef);

    fn component() -> impl Generator<Value = String> {
        "[a-zA-Z0-9_.: -]{1,8}".prop_filter("dots", |c| c != "." && c != "..")
    }

    fn ownerships() -> impl Generator<Value = Ids> {
        let id = || option::of(0..u32::MAX);
        (id(), id(), option::of(0..=0o7777u32), any::<bool>())
            .prop_map(|(user, group, mode, whole_tree)| Ids { user, group, mode, whole_tree })
    }

    fn owners() -> impl Generator<Value = Owner> {
        let numbers = (any::<u64>(), any::<u64>(), 1..=i32::MAX as u32, any::<u64>());
        ("[0-9a-f]{1,8}(-[0-9a-f]{1,8}){0,4}", numbers).prop_map(
            |(boot, (pid_ns, time_ns, pid, start))| {
                format!("{boot}/{pid_ns}/{time_ns}/{pid}/{start}").parse().unwrap()
            },
        )
    }

    fn entrances() -> impl Generator<Value = Entrance> {
        let part = collection::vec(any::<u8>(), 1..20);
        let part = part.prop_filter("no name", |part| {
            !part.contains(&0) && !part.contains(&b'/') && ![&b"."[..], b".."].contains(&&part[..])
        });
        (0..u32::MAX, collection::vec(part, 1..4)).prop_map(|(user, parts)| {
            let parts = parts.into_iter().map(|part| PathBuf::from(OsString::from_vec(part)));
            Entrance { user, place: std::iter::once(PathBuf::from("/")).chain(parts).collect() }
        })
    }

    fn gates() -> impl Generator<Value = Vec<String>> {
        let gate = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        prop_oneof![
            Just(gate(&[])),
            Just(gate(&["zoned"])),
            Just(gate(&["zoned", "org.openzfs.systemd:ignore"])),
            Just(gate(&["canmount"])),
        ]
    }

    fn records() -> impl Generator<Value = Record> {
        let guid = || any::<u64>().prop_map(Guid);
        let states = prop_oneof![
            Just(State::Open),
            Just(State::Detached),
            Just(State::Committing),
            Just(State::Committed),
            Just(State::Kept),
            Just(State::RolledBack),
        ];
        let what = (any::<u64>(), any::<bool>(), states, collection::vec(component(), 1..7));
        let guids = (guid(), option::of(guid()), option::of(guid()), any::<usize>());
        let texts = (
            option::of(
                collection::vec(any::<u8>(), 0..20).prop_map(|rest| [&b"/"[..], &rest].concat()),
            ),
            gates(),
            option::of(component()),
        );
        let rest = (
            option::of(any::<u64>()),
            option::of(ownerships()),
            any::<bool>(),
            option::of(owners()),
            any::<u64>(),
            option::of(prop_oneof![Just(Fence::Own), Just(Fence::Inherited)]),
            option::of(entrances()),
        );
        (what, guids, texts, rest).prop_map(|(what, guids, texts, rest)| {
            let depth = what.3.len() - 1;
            let init = what.1 && depth > 0;
            let in_place = !init && texts.0.is_none() && texts.1.is_empty();
            Record {
                id: TransactionId::from_bits(what.0),
                kind: if init { Kind::Init } else { Kind::Update },
                strategy: if in_place { Strategy::InPlace } else { Strategy::Promote },
                state: what.2,
                target: what.3.join("/").parse().unwrap(),
                target_guid: (!init).then_some(guids.0),
                target_origin: guids.1.filter(|_| !init),
                workspace: guids.2,
                missing_parents: if init { guids.3 % depth } else { 0 },
                pin: texts.0.map(OsString::from_vec),
                gate: texts.1,
                final_leaf: texts.2,
                settings: rest.0,
                ownership: rest.1,
                overwrite: rest.2,
                fence: rest.5.filter(|_| !init),
                entrance: rest.6,
                owner: rest.3,
                begun: rest.4,
            }
        })
    }

    fn decode(value: &str) -> Result<Record, Unreadable> {
        Record::decode(&property(ID), value)
    }

    fn sample(count: usize) -> Vec<Record> {
        let mut runner = TestRunner::deterministic();
        (0..count).map(|_| records().new_tree(&mut runner).unwrap().current()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn what_is_written_is_read_back(record in records()) {
            let value = record.encode();
            assert!(value.bytes().all(|byte| byte.is_ascii_graphic()), "{value}");
            assert!(value.len() <= MAX_LEN);
            prop_assert_eq!(Record::decode(&property(record.id), &value), Ok(record));
        }

        #[test]
        fn no_text_makes_reading_panic(text in any::<String>(), number: u64) {
            for value in [text.clone(), seal(&text), seal(&format!("{number};{text}"))] {
                let _ = decode(&value);
            }
            let _ = id_of(&text);
        }
    }

    #[test]
    fn properties_of_records_are_told_from_others() {
        assert_eq!(property(ID), "zfs-txn:0123456789abcdef");
        assert_eq!(id_of(&property(ID)), Some(ID));
        for other in ["zfs-txn:look", "zfs-txn:", "zfs-txn:0123456789ABCDEF", "0123456789abcdef"] {
            assert_eq!(id_of(other), None, "{other}");
        }
    }

    /// The format is on disks: it must not change under version 1.
    #[test]
    fn the_format_is_the_one_that_is_on_disk() {
        let record = Record {
            id: ID,
            kind: Kind::Update,
            strategy: Strategy::Promote,
            state: State::RolledBack,
            target: "tank/a b".parse().unwrap(),
            target_guid: Some(Guid(7)),
            target_origin: Some(Guid(8)),
            workspace: Some(Guid(9)),
            missing_parents: 0,
            pin: Some("/srv/ä,b".into()),
            gate: vec!["zoned".to_owned(), "org.openzfs.systemd:ignore".to_owned()],
            settings: Some(10),
            ownership: Some(Ids {
                user: Some(11),
                group: None,
                mode: Some(0o2775),
                whole_tree: true,
            }),
            final_leaf: Some("x y".to_owned()),
            overwrite: true,
            fence: Some(Fence::Inherited),
            entrance: None,
            owner: Some("ab-12/13/14/15/16".parse().unwrap()),
            begun: 17,
        };
        let body = "1;id=0123456789abcdef;kind=update;strategy=promote;state=rolled-back;\
            target=tank/a%20b;guid=7;origin=8;workspace=9;parents=0;pin=/srv/%c3%a4%2cb;\
            gate=zoned,org.openzfs.systemd:ignore;settings=000000000000000a;ownership=11,-,2775,tree;final=x%20y;\
            overwrite=yes;fence=inherited;owner=ab-12/13/14/15/16;begun=17";
        assert_eq!(record.encode(), format!("{body};sum=decdd520206e5426"));
        assert_eq!(decode(&record.encode()), Ok(record.clone()));
        let place = PathBuf::from(OsString::from_vec(b"/run/\xff ;=,%/x".to_vec()));
        let record = Record { entrance: Some(Entrance { user: 33, place }), ..record };
        let body = body.replace(";owner=", ";entrance=33,/run/%ff%20%3b%3d%2c%25/x;owner=");
        assert_eq!(record.encode(), seal(&body));
        assert_eq!(decode(&seal(&body)), Ok(record));
        // Two of the published test vectors.
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(b"foobar"), 0x8594_4171_f739_67e8);
    }

    const INIT: &str = "1;id=0123456789abcdef;kind=init;strategy=promote;state=open;\
        target=tank/a/b;parents=1;begun=5";
    const UPDATE: &str = "1;id=0123456789abcdef;kind=update;strategy=promote;state=open;\
        target=tank/a/b;guid=7;parents=0;begun=5";

    #[test]
    fn what_only_looks_like_a_record_is_damaged_though_its_sum_is_right() {
        let in_place = UPDATE.replace("promote", "in-place");
        for whole in [INIT, UPDATE, &INIT.replace("parents=1", "parents=0"), &in_place] {
            assert!(decode(&seal(whole)).is_ok(), "{whole}");
        }
        let init = [
            (";begun", ";guid=7;begun"),
            ("parents=1", "guid=7;parents=1"),
            ("parents=1", "origin=7;parents=1"),
            ("parents=1", "parents=2"),
            ("target=tank/a/b", "target=tank"),
            ("target=tank/a/b", "target=tank//b"),
            ("target=tank/a/b", "target=tank/a@b"),
            ("target=tank/a/b", "target=tank/%61/b"),
            ("target=tank/a/b", "target=tank/a b"),
            ("parents=1", "parents=+1"),
            ("parents=1", "parents=01"),
            ("parents=1", "parents=-1"),
            ("parents=1;", ""),
            ("parents=1", "parents=1;parents=1"),
            ("parents=1;begun=5", "begun=5;parents=1"),
            ("begun=5", "begun=5;"),
            ("begun=5", "begun=5;other=1"),
            ("begun=5", "begun=5;sum=0123456789abcdef"),
            ("begun=5", "begun="),
            ("begun=5", "begun=18446744073709551616"),
            ("begun=5", "begun= 5"),
            ("state=open", "state=Open"),
            ("kind=init", "kind=neither"),
            ("strategy=promote", "strategy=hope"),
            ("strategy=promote", "strategy=in-place"),
            ("id=0123456789abcdef", "id=0123456789ABCDEF"),
            ("1;id", "0;id"),
            ("1;id", "01;id"),
            ("1;id", "+1;id"),
            ("1;id", "+2;id"),
            ("1;id", ";id"),
            ("1;id", "99999999999999999999;id"),
            (";begun", ";pin=%;begun"),
            (";begun", ";pin=%4;begun"),
            (";begun", ";pin=%C3%A4;begun"),
            (";begun", ";pin=%+1;begun"),
            (";begun", ";pin=a=b;begun"),
            (";begun", ";pin=%ä;begun"),
            (";begun", ";gate=;begun"),
            (";begun", ";gate=zoned,,canmount;begun"),
            (";begun", ";gate=readonly;begun"),
            (";begun", ";gate=zoned,readonly;begun"),
            (";begun", ";gate=org.openzfs.systemd:ignore,zoned;begun"),
            (";begun", ";gate=canmount,zoned;begun"),
            (";begun", ";pin=legacy;begun"),
            (";begun", ";settings=a;begun"),
            (";begun", ";settings=000000000000000A;begun"),
            (";begun", ";final=;begun"),
            (";begun", ";final=a/b;begun"),
            (";begun", ";final=..;begun"),
            (";begun", ";fence=own;begun"),
            (";begun", ";fence=;begun"),
            (";begun", ";entrance=;begun"),
            (";begun", ";entrance=33;begun"),
            (";begun", ";entrance=33,;begun"),
            (";begun", ";entrance=33,/;begun"),
            (";begun", ";entrance=33,a;begun"),
            (";begun", ";entrance=33,/a/;begun"),
            (";begun", ";entrance=33,/a//b;begun"),
            (";begun", ";entrance=33,/a/../b;begun"),
            (";begun", ";entrance=33,/a%00b;begun"),
            (";begun", ";entrance=033,/a;begun"),
            (";begun", ";entrance=4294967295,/a;begun"),
            (";begun", ";overwrite=no;begun"),
            (";begun", ";overwrite=;begun"),
            (";begun", ";ownership=-,-,-;begun"),
            (";begun", ";ownership=-,-,-,root,;begun"),
            (";begun", ";ownership=4294967295,-,-,root;begun"),
            (";begun", ";ownership=-,-,10000,root;begun"),
            (";begun", ";ownership=-,-,0644,root;begun"),
            (";begun", ";owner=ab/1/2/3;begun"),
            (";begun", ";owner=ab/1/2/03/4;begun"),
        ]
        .map(|change| (INIT, change));
        let update = [("guid=7;", ""), ("parents=0", "parents=1"), ("guid=7", "guid=07")]
            .map(|change| (UPDATE, change));
        for (whole, (from, to)) in init.into_iter().chain(update) {
            assert!(whole.contains(from), "{from}");
            let body = whole.replacen(from, to, 1);
            assert_eq!(decode(&seal(&body)), Err(Unreadable::Damaged), "{body}");
        }
        let long = format!("tank/{}", "a".repeat(250));
        let body = INIT.replace("tank/a/b", &long).replace("parents=1", "parents=0;final=a");
        assert_eq!(decode(&seal(&body)), Err(Unreadable::Damaged));
    }

    #[test]
    fn a_record_in_another_ones_place_is_misplaced() {
        let other = property(TransactionId::from_bits(1));
        for place in [other.as_str(), "zfs-txn:mountpoint", ""] {
            assert_eq!(Record::decode(place, &seal(INIT)), Err(Unreadable::Misplaced), "{place}");
        }
    }

    #[test]
    fn newer_versions_are_recognised_unless_damaged() {
        let newer = |version: u64, rest: &str| (seal(&format!("{version};{rest}")), version);
        for (value, version) in [
            newer(2, ""),
            newer(2, "what;ever=%;sum=1;ä"),
            newer(3, &INIT[2..]),
            newer(10, "x"),
            newer(u64::MAX, "x"),
        ] {
            assert_eq!(decode(&value), Err(Unreadable::Newer { version }), "{value}");
            let wrong = format!("{}0", &value[..value.len() - 1]);
            if wrong != value {
                assert_eq!(decode(&wrong), Err(Unreadable::Damaged), "{wrong}");
            }
        }
        // A version is not made newer by damage.
        let value = seal(INIT).replacen('1', "2", 1);
        assert_eq!(decode(&value), Err(Unreadable::Damaged));
        assert_eq!(decode(&seal("2")), Err(Unreadable::Damaged));
    }

    fn longest(pin: String) -> String {
        let owner = format!("{0}/{1}/{1}/{2}/{1}", "a".repeat(64), u64::MAX, i32::MAX);
        let record = Record {
            id: ID,
            kind: Kind::Update,
            strategy: Strategy::Promote,
            state: State::RolledBack,
            target: " ".repeat(255).parse().unwrap(),
            target_guid: Some(Guid(u64::MAX)),
            target_origin: Some(Guid(u64::MAX)),
            workspace: Some(Guid(u64::MAX)),
            missing_parents: 50,
            pin: Some(pin.into()),
            gate: vec!["zoned".to_owned(), "org.openzfs.systemd:ignore".to_owned()],
            settings: Some(u64::MAX),
            ownership: Some(Ids {
                user: Some(u32::MAX),
                group: Some(u32::MAX),
                mode: Some(0o7777),
                whole_tree: true,
            }),
            // Longer than it can be beside such a target.
            final_leaf: Some(" ".repeat(255)),
            overwrite: true,
            fence: Some(Fence::Inherited),
            entrance: None,
            owner: Some(owner.parse().unwrap()),
            begun: u64::MAX,
        };
        record.encode()
    }

    #[test]
    fn the_longest_names_fit_and_only_a_pin_can_be_too_long() {
        assert!(longest(" ".repeat(1024)).len() <= MAX_LEN);
        assert!(longest(" ".repeat(2000)).len() <= MAX_LEN);
        assert!(longest("/".repeat(4095)).len() <= MAX_LEN);
        assert!(longest(" ".repeat(4095)).len() > MAX_LEN);
        let mut record = decode(&seal(UPDATE)).unwrap();
        let longest = MAX_LEN - seal(UPDATE).len() - ";pin=".len();
        record.pin = Some("/".repeat(longest).into());
        assert_eq!(record.encode().len(), MAX_LEN);
        assert_eq!(decode(&record.encode()), Ok(record.clone()));
        record.pin.as_mut().unwrap().push("/");
        assert_eq!(decode(&record.encode()), Err(Unreadable::Damaged));
    }

    /// I9: no step of a commit finds that its record has outgrown the property.
    #[test]
    fn a_record_that_fits_at_begin_fits_to_its_end() {
        let begun = decode(&seal(UPDATE)).unwrap();
        let owner = |pid| Some(format!("{}/1/2/{pid}/4", "a".repeat(36)).parse().unwrap());
        for pin in [0, 2_000, 4_095] {
            let pin = Some(" ".repeat(pin).into());
            let begun = Record { pin, workspace: None, owner: owner(1), ..begun.clone() };
            for (state, pid) in State::ALL.into_iter().zip([1, 99, i32::MAX].into_iter().cycle()) {
                let workspace = Some(Guid(u64::MAX));
                let later = Record { state, workspace, owner: owner(pid), ..begun.clone() };
                assert!(later.encode().len() <= begun.longest(), "{later:?}");
            }
            assert!(begun.longest() < begun.encode().len() + 150);
        }
    }

    impl Dice {
        fn span(&mut self, len: usize) -> std::ops::Range<usize> {
            let from = self.roll(len);
            from..from + 1 + self.roll((len - from).min(40))
        }

        /// One kind of damage; may be none at all, or no UTF-8.
        fn damage(&mut self, text: &[u8], other: &[u8]) -> Vec<u8> {
            let mut bytes = text.to_vec();
            let at = self.roll(bytes.len());
            match self.roll(10) {
                0 => bytes[at] ^= 1 << self.roll(7),
                1 => bytes[at] = self.roll(128) as u8,
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(..at)),
                4 => drop(bytes.drain(self.span(text.len()))),
                5 => bytes.insert(at, self.roll(256) as u8),
                6 => {
                    let copy = text[self.span(text.len())].to_vec();
                    bytes.splice(at..at, copy);
                }
                7 => {
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[self.roll(other.len() + 1)..]);
                }
                8 => {
                    // Field by field, as a torn write of whole fields would leave it.
                    let cut = |bytes: &[u8], n: usize| {
                        let ends = bytes.iter().enumerate().filter(|(_, b)| **b == b';');
                        ends.map(|(at, _)| at).nth(n).unwrap_or(bytes.len())
                    };
                    let n = self.roll(18);
                    bytes.truncate(cut(text, n));
                    bytes.extend_from_slice(&other[cut(other, n)..]);
                }
                _ => {
                    let digits: Vec<_> =
                        (0..bytes.len()).filter(|&at| bytes[at].is_ascii_digit()).collect();
                    for _ in 0..=self.roll(3) {
                        bytes[digits[self.roll(digits.len())]] = b'0' + self.roll(10) as u8;
                    }
                }
            }
            bytes
        }
    }

    #[test]
    fn damaged_records_are_never_taken_for_whole_ones() {
        const WANTED: usize = 100_000;
        let records = sample(1000);
        let texts: Vec<_> = records.iter().map(Record::encode).collect();
        // Half of the time the other one is a later record of the same transaction.
        let later = |(record, next): (&Record, &Record)| Record { id: record.id, ..next.clone() };
        let next = records.iter().cycle().skip(1);
        let later: Vec<_> = records.iter().zip(next).map(later).map(|r| r.encode()).collect();
        let mut dice = Dice(1);
        let mut damaged = 0;
        for _ in 0..3 * WANTED {
            let at = dice.roll(records.len());
            let (record, whole) = (&records[at], &texts[at]);
            let other = if dice.roll(2) == 0 { &later[at] } else { &texts[dice.roll(texts.len())] };
            let bytes = dice.damage(whole.as_bytes(), other.as_bytes());
            let Ok(text) = String::from_utf8(bytes) else {
                continue;
            };
            if text == *whole || text == *other {
                continue;
            }
            damaged += 1;
            let read = Record::decode(&property(record.id), &text);
            assert_eq!(read, Err(Unreadable::Damaged), "{whole}\n{text}");
            // With the sum made right, it may be another record, but only as it is spelled.
            if let Some((body, _)) = text.rsplit_once(";sum=") {
                if let Ok(read) = Record::decode(&property(record.id), &seal(body)) {
                    assert_eq!(read.encode(), seal(body));
                }
            }
            if damaged == WANTED {
                return;
            }
        }
        panic!("only {damaged}");
    }
}
