//! The reason why a packet was dropped, as a number on the wire (W5-5).

use core::fmt;

/// The number of a discard reason that may be reported to senders. A number that this version does
/// not know is kept as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason(u8);

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $number:literal $constant:ident = $name:literal, )+) => {
        impl Reason {
            $( $(#[doc = $doc])+ pub const $constant: Reason = Reason($number); )+

            /// All reasons that this version knows, in the order of their numbers.
            pub const ALL: [Reason; 14] = [$( Reason::$constant ),+];

            /// The name in counters and JSON: lower case, underscores; `unknown` for a number that
            /// this version does not know.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $( $number => $name, )+
                    _ => "unknown",
                }
            }
        }
    };
}

reasons! {
    /// No hops were left.
    1 HOPS_SPENT = "hops_spent",
    /// The forward part of the label was empty.
    2 LABEL_SPENT = "label_spent",
    /// The label's low bits were not a director of the switch's scheme.
    3 NO_DIRECTOR = "no_director",
    /// Nothing is attached to the slot, or the sender may not send to it (W5-9).
    4 EMPTY_SLOT = "empty_slot",
    /// The slot was in use earlier, and its attachment has been removed.
    5 SLOT_GONE = "slot_gone",
    /// The egress slot was the ingress slot.
    6 U_TURN = "u_turn",
    /// The egress was an endpoint, but the label had more hops after it.
    7 BEYOND_ENDPOINT = "beyond_endpoint",
    /// The ingress slot could not be written in the bits of the director.
    8 RETURN_PATH = "return_path",
    /// The return path would have filled the label's register.
    9 LABEL_FULL = "label_full",
    /// The packet was longer than the path MTU of the egress link.
    10 TOO_BIG = "too_big",
    /// The egress queue was full.
    11 EGRESS_FULL = "egress_full",
    /// The egress link had no keys.
    12 LINK_DOWN = "link_down",
    /// The keys of the egress link had expired.
    13 KEYS_EXPIRED = "keys_expired",
    /// The egress was detached before the packet could be sent.
    14 EXIT_GONE = "exit_gone",
}

impl Reason {
    /// The reason with this number, whether this version knows it or not.
    #[must_use]
    pub const fn new(number: u8) -> Reason {
        Reason(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// wire.md: W5-5.
    #[test]
    fn w5_5_each_reason_has_its_number_and_a_name_of_its_own() {
        for (index, reason) in (1..).zip(Reason::ALL) {
            assert_eq!(reason.number(), index);
            assert_ne!(reason.name(), "unknown");
            let same = Reason::ALL.iter().filter(|other| other.name() == reason.name());
            assert_eq!(same.count(), 1, "{reason}");
        }
        assert_eq!(Reason::new(0).name(), "unknown");
        assert_eq!(Reason::new(255).name(), "unknown");
    }
}
