//! The network in which forwarders over Ethernet are measured: a namespace without a name, with two
//! veth pairs. The namespace ends when the thread that made it and the threads and processes that
//! this thread started have ended, so nothing remains. Interfaces of the machine are not changed.
//!
//! ```text
//! source --> s ===== i [ forwarder ] o ===== k --> sink
//! ```

use std::{collections::BTreeMap, fs, io, process::Command, time::Duration};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};
use strowger_io::{
    testgen::take_by_polling,
    xdp::features::{RX_VLAN_OFFLOADS, TX_VLAN_OFFLOADS, set_features},
};

use crate::Failure;

/// Bytes of a MAC address.
pub(crate) type Mac = [u8; 6];

/// Names of the four interfaces. They are unique to the process, because a kernel thread is found
/// by the name of its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wires {
    pub(crate) source: String,
    pub(crate) inward: String,
    pub(crate) outward: String,
    pub(crate) sink: String,
}

/// The number of a thread of the kernel or of a process.
pub(crate) type Tid = i32;

impl Wires {
    /// Makes the network, and moves the calling thread into it permanently. Threads and processes
    /// that it starts afterwards are in the network as well.
    ///
    /// # Errors
    /// The right or tool that is missing.
    pub(crate) fn enter() -> Result<Self, Failure> {
        enter()?;
        Self::make()
    }

    fn make() -> Result<Self, Failure> {
        let name = |role| format!("{role}{:x}", std::process::id());
        let (source, inward, outward, sink) = (name('s'), name('i'), name('o'), name('k'));
        for (near, far) in [(&source, &inward), (&sink, &outward)] {
            ip(&format!("link add {near} type veth peer name {far}"))?;
        }
        let wires = Self { source, inward, outward, sink };
        for name in wires.all() {
            // IPv6 is disabled, so that the wire carries only the benchmark's frames.
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
            ip(&format!("link set dev {name} up"))?;
            // AF_XDP needs interfaces that leave VLAN tags in frames, so VLAN offloads are
            // disabled.
            for features in [RX_VLAN_OFFLOADS, TX_VLAN_OFFLOADS] {
                set_features(name, &features, false).map_err(|why| {
                    Failure::Refused(format!("{name}: switching {features:?} off: {why}"))
                })?;
            }
        }
        for name in [&wires.inward, &wires.sink] {
            take_by_polling(name).map_err(|why| Failure::Refused(why.to_string()))?;
            set(name, "threaded", "1")?;
        }
        Ok(wires)
    }

    fn all(&self) -> [&str; 4] {
        [&self.source, &self.inward, &self.outward, &self.sink]
    }

    /// Pins the kernel's receive threads: those that receive for the forwarder, and those that
    /// receive for the sink.
    pub(crate) fn tie_kernel_threads(
        &self,
        forwarders: usize,
        sinks: usize,
    ) -> Result<(), Failure> {
        for (name, core) in [(&self.inward, forwarders), (&self.sink, sinks)] {
            for tid in kernel_threads(name)? {
                let mut set = CpuSet::new();
                set.set(core).map_err(Failure::kernel("a set of cores"))?;
                sched_setaffinity(Pid::from_raw(tid), &set)
                    .map_err(Failure::kernel("tying a kernel thread to a core"))?;
            }
        }
        Ok(())
    }
}

/// Moves this thread into its own network and mount namespaces, and mounts a `/sys` that shows that
/// network.
pub(crate) fn enter() -> Result<(), Failure> {
    let lacking = |step: &'static str| {
        move |errno| {
            Failure::Refused(format!(
                "{step}: {}; a network namespace is made for this bench, which needs root, or \
                 CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_SYS_NICE",
                io::Error::from(errno)
            ))
        }
    };
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(lacking("unshare"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(lacking("mount"))?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)
        .map_err(lacking("mount of sysfs"))?;
    // Files that a process leaves in `/run` are removed with the namespace.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)
        .map_err(lacking("mount of tmpfs"))?;
    Ok(())
}

/// Runs `ip` with these arguments.
pub(crate) fn ip(words: &str) -> Result<(), Failure> {
    command("ip", words)
}

/// Runs a command of iproute2 with these arguments.
pub(crate) fn command(name: &str, words: &str) -> Result<(), Failure> {
    let output = Command::new(name).args(words.split_whitespace()).output().map_err(|error| {
        Failure::Refused(format!("{name}: {error}; it is of the package iproute2"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Refused(format!("{name} {words}: {}", stderr.trim())))
}

/// Writes a setting of an interface.
pub(crate) fn set(interface: &str, setting: &str, value: &str) -> Result<(), Failure> {
    let path = format!("/sys/class/net/{interface}/{setting}");
    fs::write(&path, value).map_err(|error| Failure::Refused(format!("{path}: {error}")))
}

/// Reads a counter of an interface.
pub(crate) fn figure(interface: &str, what: &str) -> Result<u64, Failure> {
    let path = format!("/sys/class/net/{interface}/statistics/{what}");
    let text = fs::read_to_string(&path).map_err(Failure::kernel("an interface's statistics"))?;
    text.trim().parse().map_err(|_| Failure::Bug("an interface's statistics are numbers"))
}

/// The MAC address of an interface.
pub(crate) fn mac(interface: &str) -> Result<Mac, Failure> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/address"))
        .map_err(Failure::kernel("an interface's address"))?;
    let bytes = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes = bytes.collect::<Result<Vec<_>, _>>().ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(Failure::Bug("a MAC address has six bytes"))
}

/// The kernel threads that receive on an interface.
pub(crate) fn kernel_threads(interface: &str) -> Result<Vec<Tid>, Failure> {
    let beginning = format!("napi/{interface}-");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").map_err(Failure::kernel("/proc"))?.flatten() {
        let name = entry.file_name();
        let Some(tid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.starts_with(&beginning) {
            found.push(tid);
        }
    }
    if found.is_empty() {
        return Err(Failure::Refused(format!(
            "{interface} has no kernel thread to receive by (threaded NAPI, Linux 5.12)"
        )));
    }
    Ok(found)
}

/// Whether none of these threads is running or runnable.
pub(crate) fn are_asleep(threads: &[Tid]) -> bool {
    threads.iter().all(|tid| {
        // The fields are number, name in brackets, and state. A thread that has ended is regarded
        // as asleep.
        let stat = fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| !rest.trim_start().starts_with('R'))
    })
}

/// The CPU time of threads since their start.
pub(crate) fn time_of(threads: &[Tid]) -> BTreeMap<Tid, Duration> {
    let time = |tid: &Tid| {
        let text = fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?;
        let ns = text.split(' ').next()?.parse().ok()?;
        Some((*tid, Duration::from_nanos(ns)))
    };
    threads.iter().filter_map(time).collect()
}
