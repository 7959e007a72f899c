//! Checks that a configuration uses each name, slot and capture file only once.

use std::{collections::HashMap, path::PathBuf};

use strowger_engine::control::SwitchConfig;
use strowger_runtime::{address::Interfaces, limits::NAME_BYTES_MAX, untrusted::is_harmless};
use strowger_wire::Slot;

use super::{Fault, reader::Section};

/// The names that were read so far, with their sections and lines. Listeners, peers, neighbours and
/// endpoints share one namespace, so that a name alone is unambiguous.
#[derive(Default)]
pub(super) struct Names {
    taken: HashMap<String, (&'static str, usize)>,
    /// The names of interfaces that addresses use.
    pub(super) interfaces: Interfaces,
}

impl Names {
    pub(super) fn claim(
        &mut self,
        kind: &'static str,
        name: &str,
        section: &Section<'_>,
    ) -> Result<(), Fault> {
        let line = section.line_of("name");
        match self.taken.insert(name.to_owned(), (kind, line)) {
            None => Ok(()),
            Some((kind, first)) => {
                let text = format!(
                    "the name \"{name}\" is taken by the [[{kind}]] in line {first}; choose another"
                );
                Err(Fault { line, text })
            }
        }
    }
}

/// The capture files that were read so far, with their lines.
#[derive(Default)]
pub(super) struct Captures(HashMap<PathBuf, usize>);

impl Captures {
    pub(super) fn claim(&mut self, section: &Section<'_>) -> Result<Option<PathBuf>, Fault> {
        let Some(path) = section.text("capture")? else { return Ok(None) };
        let fault = |text| Err(Fault { line: path.line, text });
        if path.value.is_empty() {
            return fault("capture must be the path of a file".to_owned());
        }
        match self.0.insert(path.value.into(), path.line) {
            None => Ok(Some(path.value.into())),
            Some(first) => {
                fault(format!("line {first} writes {} already; choose another", path.value))
            }
        }
    }
}

/// The configured slots that were read so far, with their lines.
pub(super) struct Slots<'c> {
    pub(super) taken: HashMap<u32, usize>,
    pub(super) config: &'c SwitchConfig,
}

impl Slots<'_> {
    pub(super) fn claim(&mut self, section: &Section<'_>) -> Result<Option<u32>, Fault> {
        let max = self.config.slot_max();
        let Some(slot) = section.number("slot", 0, u64::from(max))? else { return Ok(None) };
        let slot = slot as u32;
        let line = section.line_of("slot");
        if slot == Slot::SWITCH.number() {
            let text = "slot 1 is the switch itself; choose another, or leave the key out";
            return Err(Fault { line, text: text.to_owned() });
        }
        match self.taken.insert(slot, line) {
            None => Ok(Some(slot)),
            Some(first) => {
                let text = format!("slot {slot} is taken in line {first}; choose another");
                Err(Fault { line, text })
            }
        }
    }
}

pub(super) fn name(section: &Section<'_>) -> Result<String, Fault> {
    let name = section.text("name")?.ok_or_else(|| section.missing("name"))?;
    check_name(name.value).map_err(|text| Fault { line: name.line, text })?;
    Ok(name.value.to_owned())
}

/// Checks whether a text may be a name: 1 to 64 bytes, without characters that cannot be printed
/// safely.
///
/// # Errors
/// One sentence with the syntax of a name.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let is_shown = name.chars().all(is_harmless);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_shown {
        return Err(format!(
            "a name has 1 to {NAME_BYTES_MAX} bytes and no control characters, unlike {name:?}"
        ));
    }
    Ok(())
}
