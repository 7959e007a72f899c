//! Protocol names that a program states: one or several, in order of preference.

use core::convert::Infallible;
use core::fmt;

use arrayvec::ArrayVec;
use strowger_wire::connection::ProtocolName;

use crate::limits::NAMES_MAX;

/// A protocol name that owns its text. It is always valid (wire.md, W6-31).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OwnedName(Box<str>);

impl OwnedName {
    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, borrowed.
    pub(crate) fn as_name(&self) -> ProtocolName<'_> {
        // `OwnedName` stores only checked text.
        ProtocolName::new(self.0.as_bytes()).expect("the text was checked when it was stored")
    }
}

impl From<ProtocolName<'_>> for OwnedName {
    fn from(name: ProtocolName<'_>) -> OwnedName {
        OwnedName(name.as_str().into())
    }
}

impl TryFrom<&str> for OwnedName {
    type Error = BadProtocolName;

    fn try_from(text: &str) -> Result<OwnedName, BadProtocolName> {
        match ProtocolName::new(text.as_bytes()) {
            Some(name) => Ok(name.into()),
            None => Err(BadProtocolName::NotAName(text.chars().take(TEXT_SHOWN_MAX).collect())),
        }
    }
}

impl fmt::Debug for OwnedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for OwnedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One to [`NAMES_MAX`] different protocol names, best first.
///
/// ```
/// use strowger_connection::ProtocolNames;
///
/// let names = ProtocolNames::try_from(["/echo/2", "/echo/1"])?;
/// assert_eq!(names.first(), "/echo/2");
/// assert!(ProtocolNames::try_from("echo").is_err(), "it does not begin with /");
/// # Ok::<(), strowger_connection::BadProtocolName>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolNames(Box<[OwnedName]>);

impl ProtocolNames {
    /// Makes a list of these names, best first.
    ///
    /// # Errors
    /// [`BadProtocolName`]: no name, more than [`NAMES_MAX`], a duplicate, or an invalid name.
    pub fn new<N: AsRef<str>>(
        names: impl IntoIterator<Item = N>,
    ) -> Result<ProtocolNames, BadProtocolName> {
        let mut checked = ArrayVec::<OwnedName, NAMES_MAX>::new();
        for text in names {
            let name = OwnedName::try_from(text.as_ref())?;
            if checked.contains(&name) {
                return Err(BadProtocolName::Twice(name.as_str().into()));
            }
            checked.try_push(name).map_err(|_| BadProtocolName::TooMany)?;
        }
        if checked.is_empty() {
            return Err(BadProtocolName::None);
        }
        Ok(ProtocolNames(checked.into_iter().collect()))
    }

    /// The best name.
    pub fn first(&self) -> &str {
        self.0[0].as_str()
    }

    /// All names, best first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + '_ {
        self.0.iter().map(OwnedName::as_str)
    }

    /// The number of names: 1 to [`NAMES_MAX`].
    #[allow(clippy::len_without_is_empty, reason = "there is always a name")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The name with this index; `None` if there are fewer names.
    pub fn get(&self, index: usize) -> Option<&str> {
        self.0.get(index).map(OwnedName::as_str)
    }

    /// All names, best first, with their type.
    pub(crate) fn owned(&self) -> &[OwnedName] {
        &self.0
    }

    /// Bytes of memory behind this value.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.0) + self.0.iter().map(|name| name.0.len()).sum::<usize>()
    }

    /// The index of a name.
    #[cfg(test)]
    pub(crate) fn position(&self, name: ProtocolName<'_>) -> Option<usize> {
        self.0.iter().position(|own| own.as_str() == name.as_str())
    }
}

impl TryFrom<&str> for ProtocolNames {
    type Error = BadProtocolName;

    fn try_from(name: &str) -> Result<ProtocolNames, BadProtocolName> {
        ProtocolNames::new([name])
    }
}

impl TryFrom<&[&str]> for ProtocolNames {
    type Error = BadProtocolName;

    fn try_from(names: &[&str]) -> Result<ProtocolNames, BadProtocolName> {
        ProtocolNames::new(names)
    }
}

impl<const N: usize> TryFrom<[&str; N]> for ProtocolNames {
    type Error = BadProtocolName;

    fn try_from(names: [&str; N]) -> Result<ProtocolNames, BadProtocolName> {
        ProtocolNames::new(names)
    }
}

impl From<OwnedName> for ProtocolNames {
    fn from(name: OwnedName) -> ProtocolNames {
        ProtocolNames(core::iter::once(name).collect())
    }
}

/// Number of characters of a refused text that the error shows.
const TEXT_SHOWN_MAX: usize = 160;

/// Why texts are not protocol names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProtocolName {
    /// There is no name.
    #[error("no protocol name is given: need 1 to {NAMES_MAX}")]
    None,
    /// There are too many names.
    #[error("too many protocol names: need 1 to {NAMES_MAX}")]
    TooMany,
    /// One name occurs twice.
    #[error("protocol {0:?} is given twice: name it once")]
    Twice(String),
    /// The text is not a name.
    #[error(
        "protocol {0:?} is not a name: need 2 to 128 printable ASCII characters without spaces, \
         the first one /"
    )]
    NotAName(String),
}

impl From<Infallible> for BadProtocolName {
    fn from(never: Infallible) -> BadProtocolName {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_order() {
        let names = ProtocolNames::try_from(["/c", "/a", "/b"]).expect("three names");
        assert_eq!(names.len(), 3);
        let texts: Vec<&str> = names.iter().collect();
        assert_eq!(texts, ["/c", "/a", "/b"]);
        assert_eq!((names.first(), names.owned()[0].as_name().as_str()), ("/c", "/c"));
        let name = ProtocolName::new(b"/b").expect("a name");
        assert_eq!((names.position(name), names.get(2)), (Some(2), Some("/b")));
        let other = ProtocolName::new(b"/d").expect("a name");
        assert_eq!((names.position(other), names.get(3)), (None, None));
        assert_eq!(ProtocolNames::try_from(&["/c", "/a", "/b"][..]), Ok(names));
    }

    /// wire.md: W6-31.
    #[test]
    fn every_text_is_a_name_or_is_refused_with_what_to_do() {
        for text in ["", "/", "a", "echo/1", "/a b", "/\u{e4}", "/a\n", &"/".repeat(129)] {
            let refused = ProtocolNames::try_from(text).expect_err("no name");
            let BadProtocolName::NotAName(shown) = &refused else { panic!("{refused}") };
            assert_eq!(shown, text);
            assert!(refused.to_string().contains("need 2 to 128"), "{refused}");
        }
        for text in ["//", "/a", "/echo/1", &"/".repeat(128)] {
            assert_eq!(ProtocolNames::try_from(text).expect("a name").first(), text);
        }
        let refused = ProtocolNames::try_from(&*"x".repeat(100_000)).expect_err("no name");
        assert!(refused.to_string().len() < 400, "the error shows the beginning");
    }

    #[test]
    fn one_to_eight_different_names_are_accepted() {
        assert_eq!(ProtocolNames::new::<&str>([]), Err(BadProtocolName::None));
        let many: Vec<String> = (0..9).map(|number| format!("/{number}")).collect();
        for count in 1..=9 {
            let names = ProtocolNames::new(&many[..count]);
            assert_eq!(names.map(|names| names.len()).ok(), (count <= 8).then_some(count));
        }
        let refused = ProtocolNames::try_from(["/a", "/b", "/a"]).expect_err("twice");
        assert_eq!(refused.to_string(), "protocol \"/a\" is given twice: name it once");
    }
}
