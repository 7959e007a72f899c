//! Parses `[switch]`: the workers, the scheme, the limits of the switch, and the state file.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use strowger_engine::{
    control::SwitchConfig,
    limits::{ATTACHED_MAX, HOPS_MAX},
};
use strowger_runtime::limits::WORKERS_MAX;
use strowger_wire::{Scheme, Slot, scheme::V3X5X8};

use super::{Fault, reader::Section};
use crate::{
    labels::scheme_of,
    limits::{ALIAS_S_MAX, QUARANTINE_S_MAX, SLOT_MAX_DEFAULT},
};

pub(super) const SWITCH_KEYS: &[&str] = &[
    "workers",
    "cores",
    "idle",
    "scheme",
    "slot_max",
    "hops_max",
    "u_turns",
    "quarantine_s",
    "alias_s",
    "state",
    "address_book",
    "wait_s",
];

pub(super) fn state_path(section: &Section<'_>) -> Result<Option<PathBuf>, Fault> {
    let Some(path) = section.text("state")? else { return Ok(None) };
    if Path::new(path.value).file_name().is_none() || path.value.contains('\0') {
        let text =
            "state in [switch] must be the path of a file; the relay makes it if it is missing";
        return Err(Fault { line: path.line, text: text.to_owned() });
    }
    Ok(Some(PathBuf::from(path.value)))
}

pub(super) fn address_book(section: &Section<'_>) -> Result<Option<PathBuf>, Fault> {
    let Some(path) = section.text("address_book")? else { return Ok(None) };
    if Path::new(path.value).file_name().is_none() || path.value.contains('\0') {
        let text =
            "address_book in [switch] must be the path of a file; `strowger peer add` writes one";
        return Err(Fault { line: path.line, text: text.to_owned() });
    }
    Ok(Some(PathBuf::from(path.value)))
}

pub(super) fn switch(section: &Section<'_>) -> Result<SwitchConfig, Fault> {
    let scheme = match section.text("scheme")? {
        None => V3X5X8,
        Some(name) => scheme_of(name.value).map_err(|kind| {
            let text = format!(
                "scheme \"{}\" in [switch] is not a scheme ({kind}); need f4, f8, v3x5x8, v4x8, or the \
                 serialization of a scheme in hex",
                name.value
            );
            Fault { line: name.line, text }
        })?,
    };
    let no_switch = |text: &str| {
        let line = section.line_of("scheme");
        Fault { line, text: format!("{text}; use f4, f8, v3x5x8 or v4x8") }
    };
    scheme
        .self_director()
        .map_err(|_| no_switch("the scheme cannot write slot 1, the switch itself"))?;
    scheme
        .prefix_index_bits()
        .map_err(|_| no_switch("the scheme's prefixes are too long for a lookup table"))?;
    let highest = highest_slot(&scheme, ATTACHED_MAX as u32)
        .ok_or_else(|| no_switch("the scheme can write only slot 1"))?;
    let slot_max = section.number("slot_max", 2, u64::from(highest))?.map(|max| max as u32);
    let slot_max = match slot_max {
        None => default_slot_max(&scheme).unwrap_or(highest),
        Some(max) if highest_slot(&scheme, max) == Some(max) => max,
        Some(max) => {
            let line = section.line_of("slot_max");
            return Err(Fault { line, text: format!("the scheme cannot write slot {max}") });
        }
    };
    let defaults = SwitchConfig::default();
    let quarantine_s = section.number("quarantine_s", 0, QUARANTINE_S_MAX)?;
    let alias_s = section.number("alias_s", 0, ALIAS_S_MAX)?;
    let hops_max = section.number("hops_max", 1, u64::from(HOPS_MAX))?;
    Ok(SwitchConfig::default()
        .with_scheme(scheme)
        .with_slot_max(slot_max)
        .with_hops_max(hops_max.map_or(defaults.hops_max(), |hops| hops as u8))
        .with_u_turns(section.flag("u_turns")?.unwrap_or(defaults.u_turns()))
        .with_quarantine(quarantine_s.map_or(defaults.quarantine(), Duration::from_secs))
        .with_alias(alias_s.map_or(defaults.alias(), Duration::from_secs)))
}

/// The default of `slot_max` for a scheme.
pub(crate) fn default_slot_max(scheme: &Scheme) -> Option<u32> {
    highest_slot(scheme, SLOT_MAX_DEFAULT)
}

/// The highest slot number, up to `at_most`, that the scheme can write.
fn highest_slot(scheme: &Scheme, at_most: u32) -> Option<u32> {
    (2..=at_most).rev().find(|&slot| scheme.encode_least(Slot::new(slot)).is_ok())
}

pub(super) fn workers(section: &Section<'_>) -> Result<Option<usize>, Fault> {
    if section.is_text("workers", "auto") {
        return Ok(None);
    }
    let given = section.number_or("workers", 1, WORKERS_MAX as u64, " or \"auto\"")?;
    Ok(Some(given.unwrap_or(1) as usize))
}

pub(super) fn cores(
    section: &Section<'_>,
    workers: Option<usize>,
) -> Result<Option<Vec<usize>>, Fault> {
    let Some(cores) = section.numbers("cores", 0, 4095)? else { return Ok(None) };
    let cores: Vec<usize> = cores.into_iter().map(|core| core as usize).collect();
    let fault = |text| Err(Fault { line: section.line_of("cores"), text });
    if let Some(core) = twice(&cores) {
        return fault(format!(
            "cores in [switch] names core {core} twice; each core takes one worker"
        ));
    }
    match workers {
        Some(workers) if workers == cores.len() => Ok(Some(cores)),
        Some(workers) => fault(format!(
            "cores in [switch] names {} and workers = {workers}; name one core for each worker",
            cores.len()
        )),
        None => {
            fault("cores in [switch] needs a number of workers, and workers is \"auto\"".to_owned())
        }
    }
}

fn twice(numbers: &[usize]) -> Option<usize> {
    numbers.iter().enumerate().find(|(at, n)| numbers[..*at].contains(n)).map(|(_, n)| *n)
}
