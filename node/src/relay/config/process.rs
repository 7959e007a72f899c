//! Parses `[process]`: the user to which the relay switches after everything is open. Whether the
//! user exists is checked at start.

use super::{
    Fault,
    reader::{Document, Section},
};

pub(super) const PROCESS_KEYS: &[&str] = &["user", "group"];

/// An account, as the names of a user and a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunAs {
    pub(crate) user: String,
    /// The group; `None` for the user's primary group.
    pub(crate) group: Option<String>,
}

pub(super) fn process(document: &Document<'_>) -> Result<Option<RunAs>, Fault> {
    let section = document.section("process", PROCESS_KEYS)?;
    let group = account(&section, "group")?;
    match account(&section, "user")? {
        Some(user) => Ok(Some(RunAs { user, group })),
        None if group.is_some() => Err(section.missing("user")),
        None => Ok(None),
    }
}

fn account(section: &Section<'_>, key: &'static str) -> Result<Option<String>, Fault> {
    let Some(name) = section.text(key)? else { return Ok(None) };
    if name.value.is_empty() || name.value.contains(|c: char| c.is_control() || c == ':') {
        let text = format!("{key} in [process] must be the name of a {key}, as \"strowger\"");
        return Err(Fault { line: name.line, text });
    }
    Ok(Some(name.value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_needs_a_user() {
        let read = |text: &str| {
            let document = Document::parse(text)?;
            let read = process(&document);
            document.into_faults().pop().map_or(read, Err)
        };
        assert_eq!(read(""), Ok(None));
        let user = |group: Option<&str>| {
            Ok(Some(RunAs { user: "u".to_owned(), group: group.map(str::to_owned) }))
        };
        assert_eq!(read("[process]\nuser = \"u\""), user(None));
        assert_eq!(read("[process]\nuser = \"u\"\ngroup = \"g\""), user(Some("g")));
        for (text, word) in [
            ("[process]\ngroup = \"g\"", "needs the key `user`"),
            ("[process]\nuser = \"\"", "the name of a user"),
            ("[process]\nuser = \"a:b\"", "the name of a user"),
            ("[process]\nuser = 0", "must be a string"),
            ("[process]\nusr = \"u\"", "did you mean `user`?"),
        ] {
            let fault = read(text).expect_err(text);
            assert!(fault.text.contains(word), "{text}: {fault}");
        }
    }
}
