//! External crates: deny.toml gives a reason for each, and allows each licence.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::Peekable,
    process::Command,
    vec::IntoIter,
};

use crate::{Faults, Repo, arrows::is_ours, list, text};

/// The names and reasons in deny.toml: a line `# name: why` for each direct dependency.
fn reasons(deny: &str) -> Vec<(&str, &str)> {
    let table = deny.split("# Direct dependencies").nth(1).expect("deny.toml has the reasons");
    table.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(": ")).collect()
}

/// deny.toml gives one reason for each direct dependency, and for nothing else.
pub fn every_direct_dependency_has_its_reason(repo: &Repo) -> Faults {
    let mut faults = Faults::new("write or remove the line `# name: why` in deny.toml");
    let mut used: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in repo.members() {
        for dependency in list(&package["dependencies"]) {
            let name = text(&dependency["name"]);
            if !is_ours(name) {
                used.entry(name).or_default().push(text(&package["name"]));
            }
        }
    }
    let deny = repo.read("deny.toml");
    let reasons = reasons(&deny);
    for (name, by) in &used {
        let given = reasons.iter().filter(|(named, _)| named == name).count();
        let fault = format!("{name}, used by {}, has {given} reasons", by.join(", "));
        faults.add_unless(given == 1, fault);
    }
    for (name, why) in reasons {
        faults.add_unless(used.contains_key(name), format!("{name} has a reason and no user"));
        faults.add_unless(why.len() >= 20, format!("{name}: {why:?} is no reason"));
    }
    faults
}

/// Every dependency on this platform has a licence that deny.toml allows.
pub fn licences_are_those_that_deny_toml_allows(repo: &Repo) -> Faults {
    let mut faults =
        Faults::new("deny.toml allows no such licence: use another crate, or decide to allow it");
    let deny = repo.manifest("deny.toml");
    let allowed: BTreeSet<&str> = deny["licenses"]["allow"]
        .as_array()
        .expect("a list of licences")
        .iter()
        .filter_map(toml::Value::as_str)
        .collect();
    // Without a network, cargo can list only the crates of this platform.
    let rustc = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let host = String::from_utf8_lossy(&rustc.stdout).into_owned();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc has a host");
    let all = repo.metadata(&["--filter-platform", host]);
    for package in list(&all["packages"]) {
        let licence = text(&package["license"]);
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        faults.add_unless(is_met(licence, &allowed), format!("{name} {version}: {licence:?}"));
    }
    faults
}

type Words = Peekable<IntoIter<String>>;

/// Whether the allowed licences satisfy an SPDX expression. AND binds closer than OR.
fn is_met(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    // Old manifests write a slash for OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    any(&mut words.into_iter().peekable(), allowed)
}

fn any(words: &mut Words, allowed: &BTreeSet<&str>) -> bool {
    let mut met = all(words, allowed);
    while words.next_if(|word| word == "OR").is_some() {
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut Words, allowed: &BTreeSet<&str>) -> bool {
    let mut met = one(words, allowed);
    while words.next_if(|word| word == "AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words, allowed: &BTreeSet<&str>) -> bool {
    match words.next().as_deref() {
        Some("(") => {
            let met = any(words, allowed);
            words.next();
            met
        }
        Some(licence) => {
            let mut licence = licence.to_owned();
            if words.next_if(|word| word == "WITH").is_some() {
                licence = format!("{licence} WITH {}", words.next().unwrap_or_default());
            }
            allowed.contains(licence.as_str())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions_are_evaluated() {
        let two = BTreeSet::from(["MIT", "ISC"]);
        assert!(is_met("(MIT OR GPL-3.0) AND ISC", &two));
        assert!(is_met("MIT/Apache-2.0", &two));
        assert!(!is_met("MIT AND GPL-3.0", &two));
        assert!(!is_met("MIT WITH an-exception", &two));
        assert!(!is_met("", &two));
    }
}
