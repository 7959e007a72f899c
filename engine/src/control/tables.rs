//! The tables in which workers look up slots, and checks of the scheme in which slot numbers are
//! written.

use std::collections::BTreeMap;

use strowger_wire::{Scheme, Slot};

use super::{ConfigError, SwitchConfig};
use crate::{
    discard::Discard,
    limits::{ATTACHED_MAX, HOPS_MAX},
    slots::{NextHop, SlotTable},
};

/// Makes a table without slots in use.
pub(super) fn empty(config: &SwitchConfig) -> Result<SlotTable, ConfigError> {
    table(config, &BTreeMap::new())
}

/// Checks a configuration.
pub(super) fn check(config: &SwitchConfig) -> Result<(), ConfigError> {
    let scheme = &config.scheme;
    scheme.self_director().map_err(|_| ConfigError::SchemeWithoutSelf)?;
    scheme.prefix_index_bits().map_err(|_| ConfigError::SchemeTooAlike)?;
    if config.hops_max == 0 || config.hops_max > HOPS_MAX {
        return Err(ConfigError::HopsMax);
    }
    let writable = |slot: Slot| scheme.encode_least(slot).is_ok();
    let highest = ATTACHED_MAX as u32;
    if config.slot_max < 2 || config.slot_max > highest || !writable(Slot::new(config.slot_max)) {
        let max = (2..=highest).rev().find(|&slot| writable(Slot::new(slot)));
        return Err(ConfigError::SlotMax(max));
    }
    Ok(())
}

/// Makes the workers' table for these next hops, by slot number.
pub(super) fn table(
    config: &SwitchConfig,
    exits: &BTreeMap<Slot, NextHop>,
) -> Result<SlotTable, ConfigError> {
    let exit = |slot| exits.get(&slot).copied().unwrap_or(NextHop::Drop(Discard::EmptySlot));
    // Slots above the highest one in use need no entry.
    let highest = exits.last_key_value().map_or(1, |(slot, _)| slot.number());
    SlotTable::new(&config.scheme, highest, exit).map_err(|_| ConfigError::SchemeTooAlike)
}

/// Returns the first form of the old scheme in which the new scheme does not read this number as
/// the same number with the same width. Returns `None` if there is none.
pub(super) fn read_otherwise(slot: Slot, old: &Scheme, new: &Scheme) -> Option<u8> {
    (0..old.forms().len() as u8).find(|&form| {
        let Ok(director) = old.encode_in(slot, form) else { return false };
        let reads_so = |bits: u64| {
            new.decode(bits).is_ok_and(|read| {
                read.slot() == director.slot() && read.width() == director.width()
            })
        };
        // Test with zeros and with ones in the bits above the director.
        !reads_so(director.bits()) || !reads_so(director.bits() | u64::MAX << director.width())
    })
}
