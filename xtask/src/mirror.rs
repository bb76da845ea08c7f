//! Which Debian mirror to use: the one that the host's own apt uses.

use std::fs;
use std::path::Path;

/// The URI of the host's main Debian archive, if the host is a Debian with one.
pub(crate) fn of_host() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    if field(&release, "ID")? != "debian" {
        return None;
    }
    let codename = field(&release, "VERSION_CODENAME")?;
    sources(Path::new("/etc/apt")).iter().find_map(|(name, text)| {
        if name.ends_with(".sources") {
            from_deb822(text, codename)
        } else {
            from_list(text, codename)
        }
    })
}

/// Name and text of every apt source file, in apt's order.
fn sources(apt: &Path) -> Vec<(String, String)> {
    let mut paths = vec![apt.join("sources.list")];
    let mut parts: Vec<_> = fs::read_dir(apt.join("sources.list.d"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    parts.sort();
    paths.extend(parts);
    let is_source = |path: &Path| {
        path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    };
    paths
        .into_iter()
        .filter(|path| is_source(path))
        .filter_map(|path| {
            Some((path.to_string_lossy().into_owned(), fs::read_to_string(&path).ok()?))
        })
        .collect()
}

fn field<'a>(release: &'a str, name: &str) -> Option<&'a str> {
    let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(line.trim_matches('"'))
}

/// Whether mmdebstrap can fetch from `uri` without knowing anything else.
fn is_usable(uri: &str) -> bool {
    uri.starts_with("http://") || uri.starts_with("https://")
}

fn from_deb822(text: &str, codename: &str) -> Option<String> {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).find_map(|stanza| {
        let value = |name: &str| {
            let mut found = None;
            for line in stanza {
                if line.starts_with([' ', '\t']) {
                    if let Some(words) = &mut found {
                        *words = format!("{words} {line}");
                    }
                } else if found.is_some() {
                    break;
                } else if let Some((key, rest)) = line.split_once(':') {
                    found = key.eq_ignore_ascii_case(name).then(|| rest.to_owned());
                }
            }
            found.unwrap_or_default()
        };
        let has = |name: &str, word: &str| value(name).split_whitespace().any(|one| one == word);
        let on = !value("Enabled").trim().eq_ignore_ascii_case("no");
        let ours =
            on && has("Types", "deb") && has("Suites", codename) && has("Components", "main");
        value("URIs").split_whitespace().find(|uri| ours && is_usable(uri)).map(str::to_owned)
    })
}

fn from_list(text: &str, codename: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
        if !rest.starts_with([' ', '\t']) {
            return None;
        }
        let rest = rest.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?;
        let ours = words.next()? == codename && words.any(|word| word == "main");
        (ours && is_usable(uri)).then(|| uri.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deb822_source_of_the_release_is_taken() {
        let text = "\
Types: deb
URIs: http://other.example/repo
Suites: nodistro
Components: main

# a comment
Types: deb deb-src
# another
URIs: http://mirror.example/debian
Suites: bookworm
 bookworm-updates
Components: contrib main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
";
        assert_eq!(from_deb822(text, "bookworm").as_deref(), Some("http://mirror.example/debian"));
    }

    #[test]
    fn a_continued_suite_line_counts() {
        let text =
            "Types: deb\nURIs: http://m.example/debian\nSuites:\n bookworm\nComponents: main\n";
        assert_eq!(from_deb822(text, "bookworm").as_deref(), Some("http://m.example/debian"));
    }

    #[test]
    fn security_and_disabled_sources_are_not_taken() {
        let security =
            "Types: deb\nURIs: http://m.example/s\nSuites: bookworm-security\nComponents: main\n";
        assert_eq!(from_deb822(security, "bookworm"), None);
        let disabled = "Enabled: no\nTypes: deb\nURIs: http://m.example/d\nSuites: bookworm\nComponents: main\n";
        assert_eq!(from_deb822(disabled, "bookworm"), None);
        assert_eq!(from_list("deb http://m.example/s bookworm-security main", "bookworm"), None);
    }

    #[test]
    fn one_line_sources_are_read_with_and_without_options() {
        let text = "\
# deb http://commented.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian bookworm main contrib
";
        assert_eq!(from_list(text, "bookworm").as_deref(), Some("https://mirror.example/debian"));
        assert_eq!(from_list("deb http://p.example/d bookworm contrib", "bookworm"), None);
    }

    #[test]
    fn quoted_release_fields_are_read() {
        let text = "ID=debian\nVERSION_CODENAME=\"bookworm\"\n";
        assert_eq!(field(text, "VERSION_CODENAME"), Some("bookworm"));
        assert_eq!(field(text, "VERSION"), None);
    }
}
