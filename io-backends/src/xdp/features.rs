//! The VLAN offloads of an interface (`ethtool -k`): which tags it removes from frames and passes
//! as metadata. Ports only read them; tests and benchmarks also change them.

use std::{
    fs::File,
    io, mem,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use super::interface::{Unfit, ask, ioctl_socket};

const STRING_SET_INFO: u32 = 0x37; // ETHTOOL_GSSET_INFO
const STRINGS: u32 = 0x1b; // ETHTOOL_GSTRINGS
const FEATURES_READ: u32 = 0x3a; // ETHTOOL_GFEATURES
const FEATURES_SET: u32 = 0x3b; // ETHTOOL_SFEATURES
const SET_OF_FEATURES: u32 = 4; // ETH_SS_FEATURES
/// Length of a feature's name in words (`ETH_GSTRING_LEN`).
const NAME_WORDS: usize = 32 / mem::size_of::<u32>();
/// Length of `struct ethtool_get_features_block` in words; the third word holds the active
/// features.
const BLOCK_WORDS: usize = 4;
const BLOCK_ACTIVE: usize = 2;

/// Maximum number of features. The number differs between kernels.
const NAMES_MAX: usize = 1024;

/// Features that remove the tags of received frames: 802.1Q and 802.1ad.
pub const RX_VLAN_OFFLOADS: [&str; 2] = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];
/// Features that pass the tags of sent frames as metadata. The other end of a veth receives them in
/// this form.
pub const TX_VLAN_OFFLOADS: [&str; 2] = ["tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"];

/// The active features of [`RX_VLAN_OFFLOADS`]. An XDP program does not see the tags of these
/// kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HiddenTags {
    on: [bool; 2],
}

impl HiddenTags {
    /// An XDP program sees every tag.
    pub const NONE: Self = Self { on: [false; 2] };

    /// Whether tags of any kind may be hidden.
    pub fn any(self) -> bool {
        self != Self::NONE
    }

    /// Names of the active features.
    pub fn features(self) -> impl Iterator<Item = &'static str> {
        RX_VLAN_OFFLOADS.into_iter().zip(self.on).filter_map(|(name, on)| on.then_some(name))
    }

    /// The command that makes this interface leave tags in the frames.
    pub fn remedy(self, interface: &str) -> String {
        let words = |names: &[&str]| names.iter().map(|name| format!(" {name} off")).collect();
        let off: String = words(&self.features().collect::<Vec<_>>());
        let beside: String = words(&TX_VLAN_OFFLOADS);
        format!(
            "leave tags in frames: ethtool -K {interface}{off} (of a veth also, at its other end:{beside})"
        )
    }
}

/// Reads which tags the interface of this name removes from frames.
///
/// # Errors
/// There is no such interface, or the kernel refused the request.
pub fn hidden_tags(interface: &str) -> io::Result<HiddenTags> {
    let ioctl_socket = ioctl_socket().map_err(error)?;
    hidden_tags_of(&ioctl_socket, interface).map_err(error)
}

/// As `hidden_tags`, with an open socket.
pub(super) fn hidden_tags_of(ioctl_socket: &OwnedFd, interface: &str) -> Result<HiddenTags, Unfit> {
    let names = names(ioctl_socket, interface)?;
    let mut answer = vec![0; 2 + names.len().div_ceil(32) * BLOCK_WORDS];
    (answer[0], answer[1]) = (FEATURES_READ, names.len().div_ceil(32) as u32);
    ask(
        ioctl_socket,
        interface,
        libc::SIOCETHTOOL as _,
        "ETHTOOL_GFEATURES",
        Some(&mut answer[..]),
    )?;
    let is_on = |wanted: &str| {
        names.iter().position(|name| name == wanted).is_some_and(|bit| {
            answer[2 + bit / 32 * BLOCK_WORDS + BLOCK_ACTIVE] >> (bit % 32) & 1 == 1
        })
    };
    Ok(HiddenTags { on: RX_VLAN_OFFLOADS.map(is_on) })
}

/// Changes features of an interface in this thread's network namespace, for tests and benchmarks.
///
/// # Errors
/// The kernel's error.
pub fn set_features(interface: &str, wanted: &[&str], on: bool) -> io::Result<()> {
    let ioctl_socket = ioctl_socket().map_err(error)?;
    let names = names(&ioctl_socket, interface).map_err(error)?;
    let blocks = names.len().div_ceil(32);
    // Each block consists of a mask of the bits to change, and of their values.
    let mut order = vec![0_u32; 2 + 2 * blocks];
    (order[0], order[1]) = (FEATURES_SET, blocks as u32);
    for wanted in wanted {
        let unknown = || io::Error::other(format!("{interface} has no feature {wanted}"));
        let bit = names.iter().position(|name| name == wanted).ok_or_else(unknown)?;
        order[2 + bit / 32 * 2] |= 1 << (bit % 32);
        order[2 + bit / 32 * 2 + 1] |= u32::from(on) << (bit % 32);
    }
    let data = Some(&mut order[..]);
    ask(&ioctl_socket, interface, libc::SIOCETHTOOL as _, "ETHTOOL_SFEATURES", data)
        .map(drop)
        .map_err(error)
}

/// As `set_features`, in another network namespace, given by its file (`/run/netns/NAME`).
///
/// # Errors
/// The kernel's error.
pub fn set_features_in(
    namespace: &Path,
    interface: &str,
    wanted: &[&str],
    on: bool,
) -> io::Result<()> {
    let namespace = File::open(namespace)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the call takes only numbers; it affects only this thread.
            if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } < 0 {
                return Err(io::Error::last_os_error());
            }
            set_features(interface, wanted, on)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The names of all features, in the order of their bits.
fn names(ioctl_socket: &OwnedFd, interface: &str) -> Result<Vec<String>, Unfit> {
    // `struct ethtool_sset_info`: command, padding, a mask of 64 bits, and the length of the string
    // set.
    let mut info = [STRING_SET_INFO, 0, 0, 0, 0, 0];
    let mask = (1_u64 << SET_OF_FEATURES).to_ne_bytes();
    let [a, b, c, d, e, f, g, h] = mask;
    (info[2], info[3]) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
    let data = Some(&mut info[..]);
    ask(ioctl_socket, interface, libc::SIOCETHTOOL as _, "ETHTOOL_GSSET_INFO", data)?;
    let count = (info[4] as usize).min(NAMES_MAX);
    // The kernel writes all names that it knows, whatever length is requested.
    let mut strings = vec![0_u32; 3 + NAMES_MAX * NAME_WORDS];
    (strings[0], strings[1], strings[2]) = (STRINGS, SET_OF_FEATURES, count as u32);
    let data = Some(&mut strings[..]);
    ask(ioctl_socket, interface, libc::SIOCETHTOOL as _, "ETHTOOL_GSTRINGS", data)?;
    let name = |words: &[u32]| {
        let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
        let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(strings[3..3 + count * NAME_WORDS].chunks(NAME_WORDS).map(name).collect())
}

fn error(unfit: Unfit) -> io::Error {
    match unfit {
        Unfit::Call(error) => io::Error::from_raw_os_error(error.errno.0),
        Unfit::Missing => io::ErrorKind::NotFound.into(),
        Unfit::NotEthernet => io::ErrorKind::InvalidInput.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_read_by_their_names() {
        let ioctl_socket = ioctl_socket().unwrap();
        let names = names(&ioctl_socket, "lo").unwrap();
        for feature in RX_VLAN_OFFLOADS.into_iter().chain(TX_VLAN_OFFLOADS) {
            assert!(names.iter().any(|name| name == feature), "{feature} of {names:?}");
        }
        assert_eq!(hidden_tags("lo").unwrap(), HiddenTags::NONE);
        let missing = hidden_tags("no-such-if").unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn the_remedy_names_the_active_features() {
        let both = HiddenTags { on: [true, true] };
        assert!(both.remedy("e0").contains("ethtool -K e0 rx-vlan-hw-parse off rx-vlan-stag"));
        let one = HiddenTags { on: [true, false] };
        assert!(one.remedy("e0").contains("ethtool -K e0 rx-vlan-hw-parse off (of a veth"));
        assert!(both.any() && one.any() && !HiddenTags::NONE.any());
    }
}
