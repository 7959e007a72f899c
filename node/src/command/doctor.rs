//! `strowger doctor`: tests this machine's capabilities, and prints how to enable those that are
//! missing. The tests change no setting of the machine and close what they open.

use std::{
    fs,
    io::{self, Write},
    process::ExitCode,
};

use serde_json::{Value, json};
use strowger_io::{
    sys::{
        account,
        cores::{cpu_quota, usable_cores},
        probe::{self, Limit},
    },
    udp,
    unix::UnixPort,
    xdp::{self, HiddenTags},
};

use crate::{
    exit::{Exit, Failure, output_ended},
    limits::SOCKET_BUFFER_BYTES,
};

/// The limit of locked memory that a relay with registered memory needs, in bytes.
const LOCKED_BYTES_WANTED: u64 = 256 << 20;
/// The number of bytes that `doctor` pins to test whether the kernel allows it. A relay with one
/// Ethernet port and one worker pins about as many.
const UMEM_BYTES_TRIED: usize = 64 << 20;
/// The limit of open descriptors that is enough for a relay with a few ports and several clients of
/// its control socket.
const OPEN_FILES_WANTED: u64 = 1_024;
/// The number of huge pages, of 2 MiB each, for the memory of a relay with one worker.
const HUGE_PAGES_WANTED: u64 = 64;

/// The result of one test.
struct Finding {
    /// The name of the test in JSON.
    name: &'static str,
    allowed: bool,
    /// The observed state.
    observed: String,
    /// The text that says how to enable the capability. It is empty if the capability is allowed,
    /// or if no remedy is known.
    remedy: String,
}

impl Finding {
    fn fine(name: &'static str, observed: impl Into<String>) -> Self {
        Self { name, allowed: true, observed: observed.into(), remedy: String::new() }
    }

    fn refused(name: &'static str, observed: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, allowed: false, observed: observed.into(), remedy: remedy.into() }
    }
}

/// `strowger doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Runs all tests and prints the results. The exit code is 0 if UDP works, because a relay needs no
/// other capability to run. The others make it faster or safer, or are needed only for certain
/// ports.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn run(options: &Options, output: &mut dyn Write) -> Result<ExitCode, Failure> {
    let findings = findings();
    let can_run = findings.iter().any(|finding| finding.name == "udp" && finding.allowed);
    let text = if options.json {
        format!("{}\n", as_object(&findings, can_run))
    } else {
        as_text(&findings)
    };
    output.write_all(text.as_bytes()).or_else(|error| output_ended(&error))?;
    Ok(if can_run { ExitCode::SUCCESS } else { ExitCode::from(Exit::CheckFailed as u8) })
}

fn findings() -> Vec<Finding> {
    let mut findings = Vec::new();
    let udp = udp::probe(SOCKET_BUFFER_BYTES);
    for (name, found) in udp.each() {
        findings.push(match found {
            Ok(observed) => Finding::fine(name, observed),
            Err(refusal) => Finding::refused(name, refusal.reason(), refusal.remedy()),
        });
    }
    findings.push(match UnixPort::probe() {
        Ok(observed) => Finding::fine("unix", observed),
        Err(refusal) => Finding::refused("unix", refusal.reason(), refusal.remedy()),
    });
    findings.extend(ethernet());
    findings.push(ordinary_user());
    let pinned = findings.iter().any(|finding| finding.name == "umem" && finding.allowed);
    findings.push(locked_memory(probe::locked_bytes_max(), pinned));
    findings.push(open_files());
    findings.push(huge_pages());
    findings.push(transparent_huge_pages());
    findings.push(cores());
    findings.extend(quota());
    findings
}

/// The tests for Ethernet ports.
fn ethernet() -> Vec<Finding> {
    let found = xdp::probe(UMEM_BYTES_TRIED);
    let capabilities = match found.missing.as_slice() {
        [] => Finding::fine("capabilities", "none is missing for [[ethernet]]"),
        missing => {
            let observed = format!("missing for [[ethernet]]: {}", missing.join(", "));
            Finding::refused("capabilities", observed, xdp::GRANT)
        }
    };
    let each = found.each().map(|(name, found)| match found {
        Ok(observed) => Finding::fine(name, observed),
        Err(refusal) => Finding::refused(name, refusal.reason(), refusal.remedy()),
    });
    [capabilities]
        .into_iter()
        .chain(each)
        .chain([vlan_tags(&xdp::interfaces_that_hide_tags())])
        .collect()
}

/// Reports the interfaces that strip VLAN tags. Relays do not use AF_XDP on them.
fn vlan_tags(hiding: &[(String, HiddenTags)]) -> Finding {
    const NAME: &str = "vlan_tags";
    let Some((first, hidden)) = hiding.first() else {
        return Finding::fine(NAME, "no interface strips VLAN tags");
    };
    let names: Vec<&str> = hiding.iter().map(|(name, _)| name.as_str()).collect();
    Finding::refused(
        NAME,
        format!(
            "stripped by {}: [[ethernet]] uses AF_PACKET there, which receives them, and not AF_XDP",
            names.join(", ")
        ),
        hidden.remedy(first),
    )
}

/// Tests whether a relay that this user starts can switch to an unprivileged user after it has
/// opened everything.
fn ordinary_user() -> Finding {
    const NAME: &str = "give_up_rights";
    match account::self_test() {
        Ok(()) => {
            Finding::fine(NAME, "a relay may become another user: [process] user = \"nobody\"")
        }
        Err(why) => Finding::refused(
            NAME,
            format!("a relay keeps the user that starts it: {why}"),
            "start it as root, with [process] user in its configuration",
        ),
    }
}

/// Reports the limit of locked memory. `pinned` is whether [`UMEM_BYTES_TRIED`] could be pinned.
fn locked_memory(limit: io::Result<Limit>, pinned: bool) -> Finding {
    const NAME: &str = "locked_memory";
    let observed = |bytes: u64| format!("{} KiB may be locked", bytes >> 10);
    match limit {
        Ok(Limit { now: None, .. }) => Finding::fine(NAME, "no limit"),
        Ok(Limit { now: Some(bytes), .. }) if bytes >= LOCKED_BYTES_WANTED => {
            Finding::fine(NAME, observed(bytes))
        }
        // The process could pin more than the limit, so the limit does not apply.
        Ok(Limit { now: Some(bytes), .. }) if pinned && bytes < UMEM_BYTES_TRIED as u64 => {
            Finding::fine(
                NAME,
                format!("{}, and more with CAP_IPC_LOCK, which this process has", observed(bytes)),
            )
        }
        Ok(Limit { now: Some(bytes), .. }) => Finding::refused(
            NAME,
            format!(
                "{}, for registered memory {} are wanted",
                observed(bytes),
                LOCKED_BYTES_WANTED >> 10
            ),
            format!("ulimit -l {} (in systemd: LimitMEMLOCK=256M)", LOCKED_BYTES_WANTED >> 10),
        ),
        Err(error) => Finding::refused(NAME, error.to_string(), ""),
    }
}

fn open_files() -> Finding {
    const NAME: &str = "open_files";
    match probe::open_files_max() {
        Ok(Limit { now: None, .. }) => Finding::fine(NAME, "no limit"),
        Ok(Limit { now: Some(files), .. }) if files >= OPEN_FILES_WANTED => {
            Finding::fine(NAME, format!("{files} may be open"))
        }
        Ok(Limit { now: Some(files), .. }) => Finding::refused(
            NAME,
            format!("{files} may be open, enough for few ports"),
            format!("ulimit -n {OPEN_FILES_WANTED}"),
        ),
        Err(error) => Finding::refused(NAME, error.to_string(), ""),
    }
}

fn huge_pages() -> Finding {
    const NAME: &str = "huge_pages";
    let reserve = format!("sysctl -w vm.nr_hugepages={HUGE_PAGES_WANTED}");
    let Ok(text) = fs::read_to_string("/proc/meminfo") else {
        return Finding::refused(NAME, "/proc/meminfo cannot be read", "mount -t proc proc /proc");
    };
    let number = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    match (number("HugePages_Free"), number("HugePages_Total")) {
        (Some(free), Some(all)) if free > 0 => {
            Finding::fine(NAME, format!("{free} of {all} reserved pages are free"))
        }
        (Some(_), Some(0)) => Finding::refused(NAME, "none are reserved", reserve),
        (Some(_), Some(all)) => {
            Finding::refused(NAME, format!("all {all} reserved pages are in use"), reserve)
        }
        _ => Finding::refused(NAME, "the kernel has none", "a kernel with CONFIG_HUGETLBFS"),
    }
}

fn transparent_huge_pages() -> Finding {
    const NAME: &str = "transparent_huge_pages";
    const PATH: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let Ok(text) = fs::read_to_string(PATH) else {
        let kernel = "a kernel with CONFIG_TRANSPARENT_HUGEPAGE";
        return Finding::refused(NAME, "the kernel has none", kernel);
    };
    // The active setting is the word in brackets, as in `always [madvise] never`.
    let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    match chosen {
        Some(chosen @ ("always" | "madvise")) => Finding::fine(NAME, chosen),
        other => {
            Finding::refused(NAME, other.unwrap_or("unknown"), format!("echo madvise > {PATH}"))
        }
    }
}

fn cores() -> Finding {
    const NAME: &str = "cores";
    match usable_cores().as_slice() {
        [] => Finding::refused(NAME, "the kernel does not list the usable cores", ""),
        [only] => Finding::refused(
            NAME,
            format!("only core {only} may be used: workers and slow path share it"),
            "taskset -pc 0-1 $$ (or a wider cpuset for the container)",
        ),
        cores => Finding::fine(NAME, format!("{} may be used: {cores:?}", cores.len())),
    }
}

/// Reports the CPU quota of the control groups, if there is one.
fn quota() -> Option<Finding> {
    const NAME: &str = "cpu_quota";
    let quota = cpu_quota()?;
    let observed = format!("{quota:.2} cores' time, by control groups");
    Some(if quota < 2.0 {
        let remedy = "a quota of at least 2 (docker run --cpus, CPUQuota= of systemd)";
        Finding::refused(
            NAME,
            format!("{observed}: the kernel stops workers and slow path when it is used up"),
            remedy,
        )
    } else {
        Finding::fine(NAME, observed)
    })
}

fn as_object(findings: &[Finding], can_run: bool) -> Value {
    let rows: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let remedy = (!finding.remedy.is_empty()).then_some(&finding.remedy);
            json!({
                "name": finding.name,
                "allowed": finding.allowed,
                "observed": finding.observed,
                "remedy": remedy,
            })
        })
        .collect();
    json!({ "ok": can_run, "findings": rows })
}

fn as_text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { name, allowed, observed, remedy } in findings {
        let mark = if *allowed { "yes" } else { "no " };
        text.push_str(&format!("{mark}  {name:<width$}  {observed}\n"));
        if !remedy.is_empty() {
            text.push_str(&format!("     {:<width$}  remedy: {remedy}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_does_not_apply_is_no_finding() {
        let of = |now: Option<u64>, pinned| locked_memory(Ok(Limit { now, max: now }), pinned);
        assert!(of(None, false).allowed && of(Some(LOCKED_BYTES_WANTED), false).allowed);
        let lifted = of(Some(8 << 20), true);
        assert!(lifted.allowed && lifted.observed.contains("CAP_IPC_LOCK"), "{}", lifted.observed);
        // The pinned memory was within the limit. The limit may still be too low.
        assert!(!of(Some(UMEM_BYTES_TRIED as u64), true).allowed);
        let low = of(Some(8 << 20), false);
        assert!(!low.allowed && low.remedy.contains("LimitMEMLOCK=256M"), "{}", low.remedy);
    }

    #[test]
    fn each_test_runs_once_and_a_refusal_has_a_reason() {
        let findings = findings();
        let mut names: Vec<_> = findings.iter().map(|finding| finding.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(findings.iter().all(|finding| !finding.observed.is_empty()));
        let object = as_object(&findings, true);
        assert_eq!(object["findings"].as_array().map(Vec::len), Some(count));
        assert!(as_text(&findings).lines().count() >= count);
    }
}
