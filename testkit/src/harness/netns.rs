//! Network namespaces and veth pairs that a test makes and removes. The machine's own interfaces
//! are not changed.

use std::{
    fs::File,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Instant,
};

use nix::sched::{CloneFlags, setns};
use strowger_io::xdp::features::{RX_VLAN_OFFLOADS, TX_VLAN_OFFLOADS, set_features_in};

use crate::{DEADLINE, skip};

/// MAC addresses of the interfaces that [`pair`] makes.
pub const MACS: [&str; 2] = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"];

/// Runs a command whose words are separated by spaces. Returns its standard output, or an error
/// text with the command and its standard error.
pub fn run(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("a command")).args(words).output();
    let output = output.map_err(|error| format!("{line}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A network namespace with this name, whose loopback is up. Dropping it removes the namespace's
/// name.
#[derive(Debug)]
pub struct Namespace(pub String);

impl Namespace {
    /// Makes a namespace with a unique name. It needs root (`CAP_SYS_ADMIN`) and the command `ip`.
    pub fn new() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("strowger-test-{}-{n}", std::process::id());
        run(&format!("ip netns add {name}"))?;
        let namespace = Self(name);
        run(&format!("ip -n {} link set dev lo up", namespace.0))?;
        Ok(namespace)
    }

    /// Runs `ip` with these words in the namespace. Returns its standard output.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        run(&format!("ip -n {} {words}", self.0)).unwrap()
    }

    /// Runs `f` on a thread in the namespace. Sockets that `f` opens stay in it.
    pub fn within<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let namespace = File::open(format!("/run/netns/{}", self.0)).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
                f()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(why) = run(&format!("ip netns del {}", self.0)) {
            eprintln!("a namespace is left: {why}");
        }
    }
}

/// One end of a veth pair: the namespace, the interface's name, and further arguments of `ip link
/// add`.
pub type End<'a> = (&'a Namespace, &'a str, &'a str);

/// Makes a veth pair and sets both ends up.
///
/// IPv6 is off, so that the kernel itself sends no IPv6 packets. VLAN offloads are off, so that
/// tags stay in the frames, where an XDP program sees them.
pub fn veth([a, b]: [End<'_>; 2]) -> Result<(), String> {
    let ((Namespace(in_a), a, a_words), (Namespace(in_b), b, b_words)) = (a, b);
    run(&format!(
        "ip link add {a} netns {in_a} {a_words} type veth peer name {b} netns {in_b} {b_words}"
    ))?;
    for (name, interface) in [(in_a, a), (in_b, b)] {
        let off = format!("net.ipv6.conf.{interface}.disable_ipv6=1");
        // A kernel without IPv6 has no such setting.
        let _ = run(&format!("ip netns exec {name} sysctl -qw {off}"));
        run(&format!("ip -n {name} link set dev {interface} up"))?;
        for features in [RX_VLAN_OFFLOADS, TX_VLAN_OFFLOADS] {
            offload(name, interface, &features, false)?;
        }
    }
    wait_until_up([(in_a, a), (in_b, b)])
}

/// Waits until these interfaces can send. The kernel attaches the transmit queues some time after
/// the carrier is up, and drops frames until then (`linkwatch`, operstate of RFC 2863).
fn wait_until_up(ends: [(&String, &str); 2]) -> Result<(), String> {
    let deadline = Instant::now() + DEADLINE;
    for (namespace, interface) in ends {
        let show = format!("ip -n {namespace} -o link show dev {interface}");
        while !run(&show)?.contains("state UP") {
            if Instant::now() > deadline {
                return Err(format!("{interface} in {namespace} does not come up"));
            }
            thread::yield_now();
        }
    }
    Ok(())
}

/// Turns offload features of an interface on or off, in the namespace with this name.
pub fn offload(
    namespace: &str,
    interface: &str,
    features: &[&str],
    on: bool,
) -> Result<(), String> {
    let file = format!("/run/netns/{namespace}");
    set_features_in(file.as_ref(), interface, features, on)
        .map_err(|why| format!("{features:?}: {why}"))
}

/// Connects two namespaces with a veth pair. Both interfaces are named `e0` and have the addresses
/// [`MACS`]. `words` are further arguments of `ip link add` for each end.
pub fn join([a, b]: &[Namespace; 2], words: &str) -> Result<(), String> {
    let [a_words, b_words] = MACS.map(|mac| format!("address {mac} {words}"));
    veth([(a, "e0", &a_words), (b, "e0", &b_words)])
}

/// Two namespaces that are connected by `join`. If they cannot be made, records the test as
/// skipped and returns `None`.
pub fn pair() -> Option<[Namespace; 2]> {
    pair_with("")
}

/// Like `pair`, with further arguments of `ip link add` for each end.
pub fn pair_with(words: &str) -> Option<[Namespace; 2]> {
    let make = || -> Result<[Namespace; 2], String> {
        let pair = [Namespace::new()?, Namespace::new()?];
        join(&pair, words)?;
        Ok(pair)
    };
    make().inspect_err(|why| skip(why)).ok()
}

/// Two namespaces, with the interface `a0` in one and its peer `b0` in the other.
#[derive(Debug)]
pub struct Veth {
    /// The namespace of `a0`.
    pub a: Namespace,
    /// The namespace of `b0`.
    pub b: Namespace,
}

impl Veth {
    /// A pair with one queue for each direction.
    pub fn new() -> Result<Self, String> {
        Self::with("", "")
    }

    /// A pair with further arguments of `ip link add` for each end.
    pub fn with(a_words: &str, b_words: &str) -> Result<Self, String> {
        let (a, b) = (Namespace::new()?, Namespace::new()?);
        veth([(&a, "a0", a_words), (&b, "b0", b_words)])?;
        Ok(Self { a, b })
    }

    /// The pair. If it could not be made, records the test as skipped and returns `None`.
    pub fn or_skip(made: Result<Self, String>) -> Option<Self> {
        made.inspect_err(|why| skip(why)).ok()
    }
}
